"""Trainings one after the other in folders below one: each done once, resumed, or begun."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from delineate.bundle.load import load
from delineate.config import Duration, Plan, load_yaml, with_changes
from delineate.data.dataset import Dataset
from delineate.errors import DatasetError, SettingsError
from delineate.evaluation.evaluate import Evaluation
from delineate.evaluation.intervals import ImageCounts
from delineate.release import measure
from delineate.training.clock import Clock
from delineate.training.fit import EXPORT_S
from delineate.training.job import Event
from delineate.workflows.resuming import refuse_other_dataset
from delineate.workflows.train import train
from delineate.workflows.training_setup import Prepared, TrainSettings

Watch = Callable[[Event], None]


@dataclass(frozen=True)
class Part:
    """One training among several.

    Attributes:
        folder: its name below the folder of the whole.
        title: what a person is told: ``fold 2 of 5``.
        data: with the splits train and val.
        plan: of this part.
        name: of its bundle; the folder's name when left out.
        alone: without the teacher that the others have.
    """

    folder: str
    title: str
    data: Dataset
    plan: Plan
    name: str | None = None
    alone: bool = False


@dataclass(frozen=True)
class Done:
    """A part that has come to its end.

    Attributes:
        part: with the plan that was trained in the end.
        run, bundle: its folders.
        evaluation: of its bundle on its val, with the counts of each image.
        summaries: of its predictions, (images, K + 2).
        steps: of the optimiser.
        elapsed_s: seconds.
    """

    part: Part
    run: Path
    bundle: Path
    evaluation: Evaluation
    summaries: Float32[np.ndarray, "images columns"]
    steps: int
    elapsed_s: float

    @property
    def counts(self) -> ImageCounts:
        """Of each image of val."""
        images = self.evaluation.details.images
        if images is None:
            raise DatasetError("was scored without the counts of its images", where=self.run)
        return images


def train_parts(
    parts: Sequence[Part],
    prepared: Prepared,
    clock: Clock,
    *,
    reserve_s: float,
    watch: Watch | None,
) -> Iterator[Done]:
    """Train the parts in their order.

    Of a budget each part gets what is left, divided by the parts that are left; a number of steps
    is that of each part. With ``resume``, a part with a ``result.json`` is scored again and not
    trained, an unfinished one goes on. With ``find``, the first part finds learning rate and batch
    size, and the others take them from it, so that they differ in nothing else.

    Args:
        parts: what to train.
        prepared: the whole; its folder, duration and settings.
        clock: of the whole.
        reserve_s: seconds of a budget kept for what follows the last part.
        watch: told about every part, with the progress of the whole.

    Raises:
        SettingsError: the budget is over before all parts are trained.
        CheckpointError: a part was trained on other files.
    """
    runs = [prepared.job.run / part.folder for part in parts]
    for index, (part, run) in enumerate(zip(parts, runs, strict=True)):
        if (run / "result.json").exists():
            yield _finished(part, run, prepared)
            continue
        left = sum(not (other / "result.json").exists() for other in runs)
        settings = replace(
            prepared.settings,
            duration=_share(prepared, clock, run, left, reserve_s),
            resume=(run / "plan.yaml").exists(),
            force=False,
            find=prepared.settings.find and index == 0,
            name=part.name,
            spent_s=0.0,
            teacher=None if part.alone else prepared.settings.teacher,
            unlabelled=None if part.alone else prepared.settings.unlabelled,
        )
        plan = None if settings.resume else part.plan  # its own, with what was found
        if plan is not None and prepared.settings.find and index > 0:
            plan = _as_found(plan, runs[0])
        told = _Told(watch, clock, index, len(parts))
        told.note(part.title)
        changes = prepared.changes if settings.resume else None
        result = train(part.data, run, plan=plan, changes=changes, settings=settings, watch=told)
        yield Done(
            _as_trained(part, run),
            run,
            result.bundle,
            result.evaluation,
            result.exported.summaries,
            result.steps,
            result.elapsed_s,
        )


def refuse_short(settings: TrainSettings, *, parts: int, reserve_s: float) -> None:
    """Raise where a budget leaves no time to train in, before anything is written.

    Args:
        settings: the duration is that of the whole.
        parts: trainings, each of which ends in an export.
        reserve_s: seconds of the budget kept for what follows the last part.

    Raises:
        SettingsError: that is so.
    """
    budget_s, aside_s = settings.duration.budget_s, parts * EXPORT_S + reserve_s
    if budget_s is not None and not settings.resume and budget_s <= aside_s:
        raise SettingsError(
            f"{budget_s:g} s are less than {_exports(parts)}, about {aside_s:.0f} s",
            where="--budget",
            mend=f"Give {math.ceil(2 * aside_s)} s or more.",
        )


def _exports(parts: int) -> str:
    return f"the exports of {parts} trainings take" if parts > 1 else "an export takes"


def _as_found(plan: Plan, first: Path) -> Plan:
    """``plan`` with the learning rate and the batch size that the first part has found."""
    found = load_yaml(first / "plan.yaml", Plan)
    changes = {
        "optimiser.learning_rate": found.optimiser.learning_rate,
        "batch_size": found.batch_size,
    }
    return with_changes(plan, changes, "--find")


def _as_trained(part: Part, run: Path) -> Part:
    return replace(part, plan=load_yaml(run / "plan.yaml", Plan))


def _share(prepared: Prepared, clock: Clock, run: Path, left: int, reserve_s: float) -> Duration:
    """How long the next of ``left`` parts lasts, what it has spent already included."""
    whole = prepared.settings.duration
    if whole.budget_s is None:
        return whole
    spent_s, elapsed_s = 0.0, clock.elapsed_s()
    with suppress(OSError, ValueError):  # it has not begun
        spent_s = float((run / "clock").read_text())
    rest_s = whole.budget_s - reserve_s - elapsed_s + spent_s
    if rest_s <= 0:
        raise SettingsError(
            f"{whole.budget_s:g} s are over, and {left} of its trainings are not done",
            where=prepared.job.run,
            mend="Resume with a longer budget, of at least "
            f"{math.ceil(2 * (elapsed_s + reserve_s))} s.",
        )
    return Duration(budget_s=rest_s / left)


def _finished(part: Part, run: Path, prepared: Prepared) -> Done:
    """A part that an earlier call has trained: its bundle is scored again."""
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    refuse_other_dataset(run, part.data.fingerprint())
    path = run / Path(result["bundle"]).name
    bundle = load(path, engine="onnxruntime")
    val = part.data.split("val")
    evaluation, summaries = measure(bundle, bundle.manifest, val, prepared.job.read)
    return Done(
        _as_trained(part, run),
        run,
        path,
        evaluation,
        summaries,
        result["steps"],
        result["elapsed_s"],
    )


class _Told:
    """A watcher of one part that tells of the whole, and keeps the whole's clock going."""

    def __init__(self, watch: Watch | None, clock: Clock, index: int, count: int) -> None:
        self._watch, self._clock, self._index, self._count = watch, clock, index, count
        self._began_s = clock.elapsed_s()

    def __call__(self, event: Event) -> None:
        own_s = self._clock.elapsed_s() - self._began_s  # noted on disk too, for a kill
        if self._watch is None:
            return
        if event.kind in ("step", "validation"):
            later = self._count - self._index - 1
            event = replace(
                event,
                fraction=(self._index + min(event.fraction, 1.0)) / self._count,
                remaining_s=event.remaining_s + later * (own_s + event.remaining_s),
            )
        self._watch(event)

    def note(self, text: str) -> None:
        self(Event.note(text))
