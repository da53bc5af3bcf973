"""Why processes that train together ended: left by one of them, or seen from outside."""

from __future__ import annotations

import json
import os
import signal
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.elastic.rendezvous import RendezvousError

from delineate import errors
from delineate.errors import DelineateError, EngineError

VERDICT = ".verdict.json"  # a file of the run's folder


def leave_verdict(verdict: Path, error: BaseException) -> None:
    """Write, unless another process was first, why this one ended on purpose.

    Whole or not at all: where the disk is full nothing is left, and the process ends by its error.
    """
    words = {"kind": type(error).__name__}
    if isinstance(error, DelineateError):
        words |= {"found": error.found, "mend": error.mend}
        words |= {} if error.where is None else {"where": error.where}
    with suppress(OSError), tempfile.TemporaryDirectory(dir=verdict.parent) as folder:
        whole = Path(folder) / verdict.name
        whole.write_text(json.dumps(words), encoding="utf-8")
        os.link(whole, verdict)  # fails where another was first


def judged(verdict: Path, *, keep: bool) -> BaseException | None:
    """What :func:`leave_verdict` wrote, to be raised.

    Args:
        verdict: the file.
        keep: leave it where other machines may still look for it.
    """
    if not verdict.exists():
        return None
    words = json.loads(verdict.read_text(encoding="utf-8"))
    if not keep:
        verdict.unlink()
    kind = getattr(errors, words["kind"], None)
    if kind is None:
        return KeyboardInterrupt()
    error: DelineateError = kind.__new__(kind)  # not all are made from the same arguments
    DelineateError.__init__(error, words["found"], where=words.get("where"), mend=words["mend"])
    return error


def died(error: ChildFailedError, folder: Path, times: int) -> EngineError:
    """What to raise when processes died ``times`` times, at last as ``error`` says."""
    rank, failure = error.get_first_failure()
    mend = "--resume goes on from the last checkpoint."
    if failure.exitcode < 0:
        cause = f"by {failure.signal_name()}"
        if failure.exitcode == -signal.SIGKILL:
            mend = (
                "SIGKILL often means that memory was full: use fewer --devices or a smaller "
                f"--batch-size. {mend}"
            )
    else:
        cause = f"with {_raised(failure.error_file_data) or f'exit status {failure.exitcode}'}"
    return EngineError(
        f"process {rank} ended before its work was done, {times} times, at last {cause}",
        where=folder,
        mend=mend,
    )


def _raised(told: Any) -> str:
    """What torch noted of an exception, and the line that raised it."""
    message = told.get("message", "") if isinstance(told, dict) else told
    if not isinstance(message, dict):
        return str(message or "")
    stack = str(message.get("extraInfo", {}).get("py_callstack", ""))
    lines = [line.strip() for line in stack.splitlines() if line.strip().startswith("File ")]
    at = f" ({lines[-1]})" if lines else ""
    return f"{message.get('message', '')}{at}"


def not_met(error: RendezvousError, nodes: int, rendezvous: str | None) -> EngineError:
    """What to raise when machines waited for each other in vain."""
    return EngineError(
        f"the {nodes} nodes did not meet ({error or type(error).__name__})",
        where=rendezvous,
        mend="Run the same command on every node, and see that each reaches HOST:PORT.",
    )
