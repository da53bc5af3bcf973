from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from delineate.evaluation.confusion import Confusion
from delineate.evaluation.evaluate import Evaluation
from delineate.evaluation.scores import compute_scores
from delineate.training.history import (
    HISTORY,
    WARNINGS,
    Validation,
    add_warning,
    append_history,
    read_history,
    read_warnings,
    rewind_history,
)


def validation(step: int) -> Validation:
    confusion = Confusion(("sky", "car", "ghost"), None)
    truth = np.array([[0, 0, 0, 1]], np.uint8)
    confusion.update(truth, np.array([[0, 0, 1, 1]], np.uint8), where="the test")
    return Validation(
        step=step,
        elapsed_s=step + 0.123456,
        fraction=0.5,
        remaining_s=1.0,
        evaluation=Evaluation(confusion, compute_scores(confusion), (), (), 1, 0, 1.0, 0.5, 0.1),
        seconds={"step": step * 0.9, "wait": step * 0.01},
        throughput_images_per_s=9.87654,
        predict=lambda image: np.zeros(image.shape[:2], np.uint8),
    )


def test_what_is_appended_is_read(tmp_path: Path) -> None:
    written = [append_history(tmp_path, validation(step)) for step in (10, 20)]
    assert read_history(tmp_path) == written
    row = written[1]
    assert (row.step, row.elapsed_s, row.throughput_images_per_s) == (20, 20.12, 9.877)
    assert row.seconds == {"step": 18.0, "wait": 0.2}
    assert row.iou == {"sky": 2 / 3, "car": 0.5, "ghost": None}
    assert row.miou is not None
    assert math.isclose(row.miou, (2 / 3 + 0.5) / 2)


def test_a_run_without_a_validation_has_no_history(tmp_path: Path) -> None:
    rewind_history(tmp_path, 0)
    assert read_history(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_a_half_written_line_is_left_out_and_a_resume_removes_it(tmp_path: Path) -> None:
    for step in (10, 20, 30):
        append_history(tmp_path, validation(step))
    path = tmp_path / HISTORY
    whole = path.read_text()
    path.write_text(whole[:-5])
    assert [row.step for row in read_history(tmp_path)] == [10, 20]
    rewind_history(tmp_path, 20)
    append_history(tmp_path, validation(25))
    assert [row.step for row in read_history(tmp_path)] == [10, 20, 25]


def test_a_resume_drops_the_lines_that_come_again(tmp_path: Path) -> None:
    for step in (10, 20, 30):
        append_history(tmp_path, validation(step))
    rewind_history(tmp_path, 20)
    assert [row.step for row in read_history(tmp_path)] == [10, 20]


def test_what_follows_a_damaged_line_is_not_read(tmp_path: Path) -> None:
    append_history(tmp_path, validation(10))
    with (tmp_path / HISTORY).open("a") as file:
        file.write('{"step": 20}\n')
    append_history(tmp_path, validation(30))
    assert [row.step for row in read_history(tmp_path)] == [10]


def test_a_warning_is_kept_once(tmp_path: Path) -> None:
    assert read_warnings(tmp_path) == []
    for text in ("class ö has no pixel in train", "the disk is slow", "the disk is slow"):
        add_warning(tmp_path, text)
    assert read_warnings(tmp_path) == ["class ö has no pixel in train", "the disk is slow"]


def test_what_somebody_else_wrote_is_no_warning(tmp_path: Path) -> None:
    for text in ("{", '{"a": 1}'):
        (tmp_path / WARNINGS).write_text(text)
        assert read_warnings(tmp_path) == []
