"""NNCF, in a process of its own.

Where it is imported it alters torch for the whole process, and a crash inside it would take a
search of half an hour along.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import onnx

from delineate.compression.nncf_process import ABSENT, PIXELS, SCALINGS
from delineate.compression.piece import Piece
from delineate.compression.qdq import Family
from delineate.errors import MissingExtraError, ModelError

Measure: TypeAlias = Callable[[onnx.ModelProto, Sequence[int]], list[float]]


@dataclass(frozen=True)
class Control:
    """What NNCF's accuracy control is given.

    Attributes:
        compared: how many of the pieces, from the first, are measured.
        largest_drop: of the mean of their values.
        most_removed: layers that may become float.
    """

    compared: int
    largest_drop: float
    most_removed: int


def by_nncf(
    model: onnx.ModelProto,
    pieces: Sequence[Piece],
    wanted: Collection[str],
    family: Family,
    *,
    control: Control | None = None,
    measure: Measure = lambda _graph, _items: [],
    limit_s: float | None = None,
) -> onnx.ModelProto | None:
    """A graph with QDQ pairs around the wanted nodes; their types are NNCF's.

    Args:
        model: with unique names of its nodes.
        pieces: of images, for the ranges.
        wanted: names of the nodes that become integers.
        family: targets.
        control: leave layers in float until ``measure`` is near that of ``model``.
        measure: of a graph, a value for each piece whose index is given; larger is better.
        limit_s: seconds after which the process is stopped.

    Returns:
        None where the time was over first.

    Raises:
        MissingExtraError: NNCF is not installed.
        ModelError: NNCF fails on this network.
    """
    if importlib.util.find_spec("nncf") is None:
        raise MissingExtraError("NNCF", "compress")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        onnx.save(model, folder / "given.onnx")
        _save(pieces, folder)
        job = {
            "wanted": sorted(wanted),
            "family": family,
            "control": None if control is None else asdict(control),
        }
        (folder / "job.json").write_text(json.dumps(job))
        status, words = _run(folder, measure, limit_s)
        if status is None:
            return None
        if status == ABSENT:
            raise MissingExtraError("NNCF", "compress")
        if status != 0:
            told = folder / "error.txt"
            why = told.read_text() if told.is_file() else f"its process ended with {status}"
            task = "quantise" if control is None else "control the accuracy of"
            last = "" if told.is_file() or not words else f": {words[-1]}"
            raise ModelError(f"NNCF cannot {task} this network ({why}{last})")
        return onnx.load(folder / "made.onnx")


def _save(pieces: Sequence[Piece], folder: Path) -> None:
    pixels = {f"{index:06d}": piece.pixels for index, piece in enumerate(pieces)}
    np.savez(folder / PIXELS, **pixels)  # type: ignore[arg-type]
    found = {f"{i:06d}": p.scaling for i, p in enumerate(pieces) if p.scaling is not None}
    np.savez(folder / SCALINGS, **found)  # type: ignore[arg-type]


def _run(folder: Path, measure: Measure, limit_s: float | None) -> tuple[int | None, list[str]]:
    """Answer the process until it ends: its exit status, None if stopped, and what it said."""
    with (folder / "words.txt").open("w+") as words:
        process = subprocess.Popen(
            [sys.executable, "-m", "delineate.compression.nncf_process", str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=words,
            text=True,
        )
        over = threading.Event()

        def stop() -> None:
            over.set()
            process.kill()

        timer = threading.Timer(threading.TIMEOUT_MAX if limit_s is None else limit_s, stop)
        timer.daemon = True
        timer.start()
        try:
            with process:
                _answer(process, folder, measure)
        except BrokenPipeError:
            pass  # it was stopped, or has crashed; its status tells
        finally:
            timer.cancel()
            process.kill()
        words.seek(0)
        return (None if over.is_set() else process.returncode), words.read().split("\n")


def _answer(process: subprocess.Popen[str], folder: Path, measure: Measure) -> None:
    if process.stdout is None or process.stdin is None:
        raise TypeError("the process has no pipes")
    for line in process.stdout:
        asked = json.loads(line)
        file = folder / asked["graph"]
        values = measure(onnx.load(file), asked["items"])
        file.unlink()
        print(json.dumps(values), file=process.stdin, flush=True)
