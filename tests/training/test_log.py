from __future__ import annotations

from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from delineate.training.log import COLUMNS, RunLog, read_metrics


def test_rows_come_back(tmp_path: Path) -> None:
    with RunLog(tmp_path, 0) as log:
        log.write({"step": 1, "loss": 0.5, "learning_rate": 1e-5})
        log.write({"step": 1, "val_miou": 0.25, "loss": None})
    text = (tmp_path / "metrics.csv").read_text()
    assert text == ",".join(COLUMNS) + "\n1,,1e-05,0.5,,,,\n1,,,,,,0.25,\n"
    empty = dict.fromkeys(COLUMNS)
    assert read_metrics(tmp_path) == [
        {**empty, "step": 1, "learning_rate": 1e-5, "loss": 0.5},
        {**empty, "step": 1, "val_miou": 0.25},
    ]


def test_rows_are_on_disk_at_once(tmp_path: Path) -> None:
    with RunLog(tmp_path, 0) as log:
        log.write({"step": 1})
        assert len(read_metrics(tmp_path)) == 1


def test_rows_after_the_checkpoint_are_dropped(tmp_path: Path) -> None:
    with RunLog(tmp_path, 0) as log:
        for step in range(1, 6):
            log.write({"step": step, "loss": step / 10})
    with RunLog(tmp_path, 3) as log:
        assert [row["step"] for row in read_metrics(tmp_path)] == [1, 2, 3]
        log.write({"step": 4, "loss": 0.9})
    assert [row["loss"] for row in read_metrics(tmp_path)] == [0.1, 0.2, 0.3, 0.9]


@pytest.mark.parametrize("tail", ["12", "12,3.5", "12,1,1,1,1,0.123,0.4", "12,1,\0", "12,,x"])
def test_a_half_written_row_is_left_out(tmp_path: Path, tail: str) -> None:
    with RunLog(tmp_path, 0) as log:
        log.write({"step": 11, "loss": 0.5})
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write(tail)
    assert [row["step"] for row in read_metrics(tmp_path)] == [11]
    with RunLog(tmp_path, 20) as log:  # and the next row begins on a line of its own
        log.write({"step": 12, "loss": 0.25})
    assert [row["loss"] for row in read_metrics(tmp_path)] == [0.5, 0.25]


def test_a_wrong_row_ends_the_table(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(",".join(COLUMNS) + "\n1,,,,,,\n2,x,,,,,\n3,,,,,,\n")
    assert [row["step"] for row in read_metrics(tmp_path)] == [1]


@pytest.mark.parametrize("text", [None, "", "step", "step,elapsed_s\n"])
def test_no_rows(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "metrics.csv").write_text(text)
    assert read_metrics(tmp_path) == []


def test_tensorboard_reads_the_events(tmp_path: Path) -> None:
    with RunLog(tmp_path, 0) as log:
        for step in range(1, 6):
            log.write({"step": step, "loss": step / 4})
    with RunLog(tmp_path, 3) as log:
        log.write({"step": 4, "loss": 2.0, "val_miou": 0.5})
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert events.Tags()["scalars"] == ["loss", "val_miou"]
    found = [(event.step, event.value) for event in events.Scalars("loss")]
    assert found == [(1, 0.25), (2, 0.5), (3, 0.75), (4, 2.0)]


def test_steps_stay_whole_numbers_after_a_resume(tmp_path: Path) -> None:
    with RunLog(tmp_path, 0) as log:
        log.write({"step": 1, "loss": 0.5})
    before = (tmp_path / "metrics.csv").read_text()
    with RunLog(tmp_path, 1):
        pass
    assert (tmp_path / "metrics.csv").read_text() == before
    (tmp_path / "metrics.csv").write_text(before.replace("\n1,", "\n1.0,"))  # of version 0.1
    assert [str(row["step"]) for row in read_metrics(tmp_path)] == ["1"]
