from __future__ import annotations

from pathlib import Path

import pytest

from delineate.training.clock import Clock


class Time:
    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    fake = Time()
    monkeypatch.setattr("delineate.training.clock.time", fake)
    return fake


def test_it_goes_on_where_a_killed_run_stood(tmp_path: Path, time: Time) -> None:
    first = Clock(tmp_path / "clock", 2.0)
    assert first.elapsed_s() == 2
    time.now += 5
    assert first.elapsed_s() == 7
    time.now += 1000  # the machine was off
    again = Clock(tmp_path / "clock", 3.0)
    assert again.elapsed_s() == 10
    assert [path.name for path in tmp_path.iterdir()] == ["clock"]


def test_it_writes_once_a_second(tmp_path: Path, time: Time) -> None:
    clock = Clock(tmp_path / "clock", 0.0)
    time.now += 1.5
    clock.elapsed_s()
    time.now += 0.5
    assert clock.elapsed_s() == 2
    assert (tmp_path / "clock").read_text() == "1.500"


@pytest.mark.parametrize("text", ["", "soon", "\0"])
def test_what_is_no_number_counts_as_none(tmp_path: Path, time: Time, text: str) -> None:
    (tmp_path / "clock").write_text(text)
    assert Clock(tmp_path / "clock", 0.0).elapsed_s() == 0
    assert time.now == 100


def test_what_another_process_writes_beside_it_is_left_alone(tmp_path: Path, time: Time) -> None:
    (tmp_path / "clock.part").write_text("of another process")
    clock = Clock(tmp_path / "clock", 0.0)
    time.now += 2
    clock.elapsed_s()
    assert (tmp_path / "clock.part").read_text() == "of another process"
    assert (tmp_path / "clock").read_text() == "2.000"
