"""Who follows a training: its page, MLflow where that is wanted, and the caller."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from delineate.errors import DelineateError
from delineate.training.history import add_warning
from delineate.training.job import Event
from delineate.training.log import Row
from delineate.training.trackers import MlflowTracker
from delineate.workflows.run_page import PAGE, RunPage
from delineate.workflows.run_pictures import RunPictures
from delineate.workflows.training_setup import Prepared


@dataclass
class Following:
    """Passes on what a training tells.

    Attributes:
        run: its folder.
        page: of the run.
        tracker: of MLflow, or None.
        caller: what the caller wants to be told, or None.
    """

    run: Path
    page: RunPage
    tracker: MlflowTracker | None
    caller: Callable[[Event], None] | None

    def on_event(self, event: Event) -> None:
        if event.kind == "step":
            self.page.renew(event.fraction, event.remaining_s)
        self.pass_on(event)

    def pass_on(self, event: Event) -> None:
        """Tell the caller alone."""
        if self.caller is not None:
            self.caller(event)

    def warn(self, text: str) -> None:
        """Note something for readers of the run, and tell the caller."""
        _warn(self.run, self.caller, text)

    def on_row(self, row: Row) -> None:
        if self.tracker is not None:
            self.tracker.log(row)

    def finish(self, result: dict[str, Any], bundle: Path) -> None:
        """Tell everybody that the training has come to its end."""
        self.page.finish()
        if self.tracker is not None:
            self.tracker.finish(result, [self.run / PAGE, self.run / "plan.yaml", bundle])


@contextmanager
def followed(prepared: Prepared, caller: Callable[[Event], None] | None) -> Iterator[Following]:
    """Followers for the time of a training; where it fails they say how it stopped."""
    tracker = _tracker(prepared, caller)
    following = Following(prepared.job.run, page_of(prepared), tracker, caller)
    try:
        following.page.begin()
        yield following
    except BaseException as error:
        with suppress(DelineateError):  # a full disk, say: the first error is the one to tell
            following.page.stop(_reason(error))
        if following.tracker is not None:
            following.tracker.stop()
        raise


def page_of(prepared: Prepared) -> RunPage:
    """The page of a training."""
    job = prepared.job
    pictures = RunPictures(
        job.run,
        job.val,
        job.read,
        classes=job.classes,
        colours=prepared.data.colours,
        ignore_index=job.ignore_index,
    )
    return RunPage(job.run, pictures)


def _warn(run: Path, caller: Callable[[Event], None] | None, text: str) -> None:
    add_warning(run, text)
    if caller is not None:
        caller(Event.note(text))


def _tracker(prepared: Prepared, caller: Callable[[Event], None] | None) -> MlflowTracker | None:
    settings, run = prepared.settings, prepared.job.run
    if settings.mlflow is None:
        return None
    return MlflowTracker(
        settings.mlflow,
        run=run,
        params=prepared.job.plan.model_dump(mode="json"),
        tags={"dataset_sha256": prepared.dataset_sha256, "command": settings.command},
        warn=lambda text: _warn(run, caller, text),
    )


def _reason(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    return str(error) if isinstance(error, DelineateError) else type(error).__name__
