"""How a run went: ``history.jsonl``, a line for each validation, and ``warnings.json``."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from delineate.data.files import write_text, writing
from delineate.evaluation.evaluate import Evaluation
from delineate.types import Image, LabelMap

HISTORY = "history.jsonl"
WARNINGS = "warnings.json"


@dataclass(frozen=True)
class Validation:
    """What the loop hands over after a validation.

    Attributes:
        step: optimiser steps done.
        elapsed_s: seconds since the run began, all resumes together.
        fraction: of the training that is done, 0 to 1.
        remaining_s: seconds to the end, estimated.
        evaluation: the scores on val.
        seconds: where the time went since the run began, by name: ``step``, ``wait``,
            ``validation``, ``checkpoint``, ``page``, ``other``.
        throughput_images_per_s: crops trained on for each second of steps and waiting.
        predict: the class ids of an image with the weights that were validated; to be called
            before the training goes on.
    """

    step: int
    elapsed_s: float
    fraction: float
    remaining_s: float
    evaluation: Evaluation
    seconds: Mapping[str, float]
    throughput_images_per_s: float
    predict: Callable[[Image], LabelMap]


@dataclass(frozen=True)
class HistoryRow:
    """One line of ``history.jsonl``; the fields are those of :class:`Validation`.

    Attributes:
        scores: as :meth:`Scores.to_dict` gives them; what is undefined is None.
    """

    step: int
    elapsed_s: float
    scores: Mapping[str, Any]
    seconds: Mapping[str, float]
    throughput_images_per_s: float

    @property
    def miou(self) -> float | None:
        """Mean IoU on val, 0 to 1."""
        value: float | None = self.scores["mean_iou"]
        return value

    @property
    def iou(self) -> dict[str, float | None]:
        """IoU of each class by name, 0 to 1."""
        return {one["name"]: one["iou"] for one in self.scores["classes"]}


def append_history(run: Path, validation: Validation) -> HistoryRow:
    """Add a line: a reader sees all of it or, if this is killed meanwhile, leaves it out.

    Raises:
        OutputError: the disk is full.
    """
    row = HistoryRow(
        step=validation.step,
        elapsed_s=round(validation.elapsed_s, 2),
        scores=validation.evaluation.scores.to_dict(),
        seconds={name: round(value, 3) for name, value in validation.seconds.items()},
        throughput_images_per_s=round(validation.throughput_images_per_s, 3),
    )
    with writing(run / HISTORY), (run / HISTORY).open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(row)) + "\n")
    return row


def read_history(run: Path) -> list[HistoryRow]:
    """The lines of ``history.jsonl``; a half-written last one is left out."""
    try:
        whole, _, _ = (run / HISTORY).read_text(encoding="utf-8").rpartition("\n")
    except FileNotFoundError:
        return []
    rows = []
    for line in whole.splitlines():
        try:
            rows.append(HistoryRow(**json.loads(line)))
        except (ValueError, TypeError):  # what follows a damaged line is no longer in order
            break
    return rows


def rewind_history(run: Path, step: int) -> None:
    """Drop the lines of steps after ``step``: a resumed run writes them again."""
    kept = [row for row in read_history(run) if row.step <= step]
    if (run / HISTORY).exists():
        write_text(run / HISTORY, "".join(json.dumps(asdict(row)) + "\n" for row in kept))


def add_warning(run: Path, text: str) -> None:
    """Note what a reader of the run should know; what is there already is not said twice."""
    there = read_warnings(run)
    if text not in there:
        write_text(run / WARNINGS, json.dumps([*there, text], indent=2, ensure_ascii=False))


def read_warnings(run: Path) -> list[str]:
    """What was noted by :func:`add_warning`, oldest first."""
    try:
        found = json.loads((run / WARNINGS).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return []
    return [str(text) for text in found] if isinstance(found, list) else []
