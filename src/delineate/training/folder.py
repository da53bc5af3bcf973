"""The folder of one run: who may write it, and what an earlier run left in it."""

from __future__ import annotations

import fcntl
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from delineate.errors import OutputError, SettingsError

LOCK = ".lock"
READY = ".ready"  # locked while machines may join the training
_MARKERS = frozenset({"plan.yaml", "run.json"})  # one of them makes a folder a run
# Folders of trainings inside a run: of a cross-validation, a learning curve, a distillation
PARTS = ("fold-*", "full", "half", "quarter", "larger", "distilled", "alone")
_LOOK_AGAIN_S = 0.5
_FILES = (
    "clock",
    "curve.json",
    "distill.json",
    "find.json",
    "folds.json",
    "history.jsonl",
    "metrics.csv",
    "mlflow.json",
    "report.html",
    "validation.html",
    "warnings.json",
)


def refuse_folder(out: Path, *, force: bool) -> None:
    """Raise when a new run cannot begin in ``out``.

    Args:
        out: absent, or an empty folder; with ``force`` it may hold a run.

    Raises:
        OutputError: that is not so.
    """
    if out.exists() and not out.is_dir():
        raise OutputError("is a file, and a run is a folder", where=out, mend="Name another.")
    there = {path.name for path in out.iterdir()} - {LOCK} if out.exists() else set()
    if not there:
        return
    if not force:
        raise OutputError("exists already", where=out, mend="Name another, or add --force.")
    if not there & _MARKERS:
        raise OutputError(
            "is a folder that holds no run, so it is not replaced",
            where=out,
            mend="Name another.",
        )


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Make the folder ``out``, and keep other processes from training in it.

    The file of the lock stays: to remove it would let two processes hold locks on two files of
    one name.

    Raises:
        OutputError: another process trains in it, or it cannot be made.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        file = (out / LOCK).open("ab")
    except OSError as error:
        raise OutputError(f"cannot be made ({error.strerror})", where=out) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputError(
                "is being trained by another process",
                where=out,
                mend="Wait for it to end, or name another.",
            ) from error
        except OSError as error:
            raise OutputError(f"cannot be locked ({error.strerror})", where=out) from error
        yield


@contextmanager
def joinable(out: Path) -> Iterator[None]:
    """Let other machines take part in the training in ``out``, which is locked and described."""
    with (out / READY).open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # waits for one that just looks
        yield


def await_joinable(out: Path, limit_s: float) -> None:
    """Wait until a training in ``out`` takes other machines in.

    Raises:
        SettingsError: none did so in time.
    """
    until = time.monotonic() + limit_s
    while True:
        if (out / READY).exists():
            with (out / READY).open("rb") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    return
        if time.monotonic() > until:
            raise SettingsError(
                f"has been waited for {limit_s:g} s, and no training there took machines in",
                where=out,
                mend="Start delineate train with --nodes and --rendezvous on one machine, and see "
                "that this one has the same folder there.",
            )
        time.sleep(_LOOK_AGAIN_S)


def clear(out: Path, *, all_of_it: bool) -> None:
    """Remove what a kill has left in ``out``; with ``all_of_it`` what an earlier run made too.

    What says that a run has come to its end goes in any case: it is about to go on.
    """
    checkpoints = out / "checkpoints"
    old = [out / "result.json", *checkpoints.glob(".*.part")]
    if all_of_it:
        old += [*(out / name for name in _FILES), *checkpoints.glob("*.safetensors")]
        bundles = (path.parent for path in out.glob("*.bundle/manifest.json"))
        parts = (path.parent for kind in PARTS for path in out.glob(f"{kind}/plan.yaml"))
        for folder in (out / "tensorboard", out / "samples", *bundles, *parts):
            shutil.rmtree(folder, ignore_errors=True)
    for path in old:
        path.unlink(missing_ok=True)
