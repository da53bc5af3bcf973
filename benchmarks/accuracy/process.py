"""A training in a process of its own, on two threads."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

THREADS = 2
TAIL_LINES = 30


class UnitError(RuntimeError):
    """A process of a unit died; the message is the end of its log."""


def run(command: Sequence[object], log: Path, env: Mapping[str, str] | None = None) -> None:
    """Run ``command`` with its output appended to ``log``.

    Raises:
        UnitError: its exit status is not 0.
    """
    words = [str(word) for word in command]
    threads = {name: str(THREADS) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    whole = {**os.environ, "CUDA_VISIBLE_DEVICES": "", **threads, **(env or {})}
    whole.pop("PYTHONDONTWRITEBYTECODE", None)  # compiling torch anew is ten seconds of each start
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file:
        print("+", *words, file=file, flush=True)
        done = subprocess.run(words, stdout=file, stderr=file, env=whole, check=False)
    if done.returncode != 0:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-TAIL_LINES:])
        raise UnitError(f"{words[0]} ended with {done.returncode}; {log} ends:\n{tail}")


def warm_up(log: Path) -> None:
    """Import what the first unit would otherwise read from a cold disk and compile in its time."""
    run([python(), "-c", "import benchmarks.accuracy.smp, delineate.workflows.train"], log)


def python() -> str:
    """This environment's interpreter."""
    return sys.executable
