from __future__ import annotations

import pytest

from delineate.config import Duration
from delineate.training.find import Found, RatePoint, Speed
from delineate.workflows.find import find_section, limit_of

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
