"""How commands talk: results on stdout, everything else on stderr, errors in one line."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from delineate.errors import DelineateError, MissingExtraError, SettingsError

err = Console(stderr=True, soft_wrap=True)

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace what is there.")]
DeviceOption = Annotated[str, typer.Option(help="cpu, cuda or gpu.")]
EngineOption = Annotated[str, typer.Option(help="auto, onnxruntime, openvino or tensorrt.")]
ThreadsOption = Annotated[
    int | None,
    typer.Option(
        help="Inside one call; all when left out.", callback=lambda value: _checked_threads(value)
    ),
]
MapOption = Annotated[
    str | None,
    typer.Option(
        "--map",
        help="Classes renamed or joined: car=vehicle,truck=vehicle,*=background. 'ignore' as the "
        "new name makes the pixels count nowhere.",
    ),
]


def emit(document: Any, *, as_json: bool, show: Callable[[Console], None]) -> None:
    """Print a result: ``document`` as JSON, or what ``show`` prints for people."""
    if as_json:
        print(json.dumps(document, indent=2, default=str))
    else:  # names of files and classes are no markup, and a path is never broken
        show(Console(markup=False, soft_wrap=True))


def report_error(error: DelineateError, *, as_json: bool) -> None:
    """One error, on stderr; with ``--json`` also as the document."""
    err.print("error:", style="bold red", end=" ")
    err.print(str(error), highlight=False, markup=False)
    if as_json:
        emit_error(type(error).__name__, error.found, error.where, error.mend)


def emit_error(kind: str, found: str, where: str | None = None, mend: str = "") -> None:
    """The JSON document of a command that failed."""
    fields = {"kind": kind, "found": found, "where": where, "mend": mend}
    print(json.dumps({"error": fields}, indent=2))


class Interrupted(Exception):  # noqa: N818  (nothing went wrong)
    """Ctrl-C; ``mend`` says what is left and how to go on."""

    def __init__(self, mend: str) -> None:
        self.mend = mend
        super().__init__(mend)


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Around imports that need the extra ``name``.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        yield
    except ImportError as error:
        missing = (error.name or "a package").partition(".")[0]
        if missing == "delineate":
            raise
        raise MissingExtraError(missing, name) from error


def plain_table(*headers: str, title: str | None = None) -> Table:
    """A table in the one style of all commands: first column left, the others right."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for index, header in enumerate(headers):
        table.add_column(header, justify="left" if index == 0 else "right")
    return table


@contextmanager
def counting(what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr with rate and time left; yields a setter of the number done."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, transient=True) as progress:
        task = progress.add_task(what, total=total, rate="")

        def update(done: int) -> None:
            speed = progress.tasks[0].speed
            rate = "" if speed is None else f"{speed:.1f}/s"
            progress.update(task, completed=done, rate=rate)

        yield update


LARGEST_SIDE_PX = 16_384  # of an image that is timed
_DURATION = re.compile(
    r"^(?:([0-9]+(?:\.[0-9]+)?)h)?(?:([0-9]+(?:\.[0-9]+)?)m)?(?:([0-9]+(?:\.[0-9]+)?)s)?$"
)


def parse_duration(text: str, where: str = "--budget") -> float:
    """Seconds of ``90s``, ``30m``, ``1h30m``.

    Raises:
        SettingsError: the text is no duration.
    """
    match = _DURATION.match(text.strip().lower())
    if not text.strip() or match is None:
        raise SettingsError(
            f"{text!r} is no duration", where=where, mend="Write 90s, 30m or 1h30m."
        )
    hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return hours * 3600 + minutes * 60 + seconds


def _checked_threads(threads: int | None) -> int | None:
    """More threads than cores only wait for each other, and engines take 0 for all."""
    cores = os.cpu_count() or 1
    if threads is not None and not 1 <= threads <= cores:
        raise SettingsError(
            f"{threads} threads cannot be used",
            where="--threads",
            mend=f"Give 1 to {cores}, the cores of this machine.",
        )
    return threads


def checked_ms(budget_ms: float, where: str = "--p95-ms") -> float:
    """A latency budget.

    Raises:
        SettingsError: it is no positive, finite number.
    """
    if not 0 < budget_ms < math.inf:
        raise SettingsError(
            f"{budget_ms:g} ms is no budget", where=where, mend="Give more than 0, and an end."
        )
    return budget_ms


def parse_size(text: str) -> tuple[int, int]:
    """Height and width of ``1024x768``, pixels.

    Raises:
        SettingsError: the text is no size.
    """
    match = re.fullmatch(r"([1-9][0-9]*)x([1-9][0-9]*)", text.strip().lower())
    if match is None:
        raise SettingsError(
            f"{text!r} is no size", where="--image-size", mend="Write HEIGHTxWIDTH, as in 480x640."
        )
    if max(int(match[1]), int(match[2])) > LARGEST_SIDE_PX:
        raise SettingsError(
            f"{text} is larger than what is segmented at once",
            where="--image-size",
            mend=f"Give sides of up to {LARGEST_SIDE_PX} px; larger images are cut into tiles.",
        )
    return int(match[1]), int(match[2])


@contextmanager
def progress_of(what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar that begins with the first sample, when their number is known."""
    with ExitStack() as stack:
        update: Callable[[int], None] | None = None

        def progress(done: int, total: int) -> None:
            nonlocal update
            if update is None:
                update = stack.enter_context(counting(what, total))
            update(done)

        yield progress
