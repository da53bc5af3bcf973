from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from delineate.config import Duration
from delineate.training.find import Found, RatePoint, Speed
from delineate.workflows import find as find_module
from delineate.workflows.find import find_and_note, find_section, limit_of

RAMP = tuple(RatePoint(10.0 ** (i / 5 - 6), 2 - i / 40, 2 - i / 40) for i in range(30))
FOUND = Found(
    learning_rate=2e-3,
    batch_size=4,
    ramp=RAMP,
    steepest=2e-3,
    diverged=0.5,
    speeds=(Speed(2, 3.0), Speed(4, 5.0), Speed(8, None)),
    seconds=12.3,
    text="Learning rate 0.002 (found in 30 steps of the range test), batch size 4; 12 s",
)


@pytest.mark.parametrize(
    ("duration", "seconds"),
    [
        (Duration(steps=100), 60.0),
        (Duration(budget_s=3600), 60.0),
        (Duration(budget_s=600), 30.0),
    ],
)
def test_how_long_it_may_take(duration: Duration, seconds: float) -> None:
    assert limit_of(duration) == pytest.approx(seconds)


class FakeJob:
    duration = Duration(budget_s=200)

    def __init__(self, run: Path) -> None:
        self.run = run


@pytest.mark.usefixtures("unchecked")
def test_what_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def fake(job: Any, stream: Any, *, limit_s: float) -> Found:
        asked.update(job=job, stream=stream, limit_s=limit_s)
        return FOUND

    monkeypatch.setattr(find_module, "find", fake)
    job = FakeJob(tmp_path)
    assert find_and_note(job, "stream") is FOUND  # type: ignore[arg-type]
    assert asked == {"job": job, "stream": "stream", "limit_s": 10.0}
    assert json.loads((tmp_path / "find.json").read_text()) == FOUND.to_dict()


def test_the_part_of_the_page() -> None:
    found = find_section(FOUND.to_dict())
    assert found.startswith("<section><h2>Learning rate and batch size</h2>")
    assert "Learning rate 0.002 (found in 30 steps" in found
    assert "chosen: 0.002" in found
    assert "4 crops: 5 crops/s" in found
    assert "8 crops" not in found
    assert found.count("<svg") == found.count("</svg>") == 2


def test_the_part_of_the_page_without_a_ramp() -> None:
    found = find_section(FOUND.to_dict() | {"ramp": [], "speeds": [[4, None]]})
    assert "<svg" not in found
