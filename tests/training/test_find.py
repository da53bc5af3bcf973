from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from delineate.errors import RefusedError
from delineate.training import find as find_module
from delineate.training.find import RatePoint, Speed, best_rate, best_size, find
from delineate.training.step import Stepper
from delineate.training.stream import Batch


def ramp(
    falls_at: float, rises_at: float | None, *, steps: int = 100, noise: float = 0.0, seed: int = 0
) -> list[RatePoint]:
    """A loss of 2 that falls to 1 around one rate and climbs from another on."""
    rng = np.random.default_rng(seed)
    points = []
    total = weight = 0.0
    for rate in np.geomspace(1e-6, 1, steps):
        loss = 2 - 1 / (1 + (falls_at / rate) ** 1.5) + rng.normal(0, noise)
        if rises_at is not None:
            loss += max(rate / rises_at, 0.0) ** 2
        total, weight = 0.85 * total + loss, 0.85 * weight + 1
        points.append(RatePoint(float(rate), float(loss), total / weight))
    return points


def test_the_rate_at_which_the_loss_falls_fastest() -> None:
    rate, steepest, diverged = best_rate(ramp(1e-3, None))
    assert diverged is None
    assert steepest is not None
    assert 5e-4 < steepest < 6e-3  # the smoothing lags some steps behind
    assert rate == pytest.approx(steepest, rel=0.06)


def test_a_tenth_of_where_it_rises_again() -> None:
    rate, steepest, diverged = best_rate(ramp(1e-3, 5e-3))
    assert steepest is not None
    assert diverged is not None
    assert 4e-3 < diverged < 3e-2
    assert rate == pytest.approx(min(steepest, diverged / 10), rel=0.06)


@pytest.mark.parametrize("seed", range(5))
def test_noise_moves_it_little(seed: int) -> None:
    rate, _, _ = best_rate(ramp(1e-3, 0.1, noise=0.1, seed=seed))
    assert rate is not None
    assert 1e-4 < rate < 1e-2


def test_a_loss_that_never_falls_gives_no_rate() -> None:
    flat = [RatePoint(float(r), 2.0, 2.0) for r in np.geomspace(1e-6, 1, 100)]
    assert best_rate(flat) == (None, None, None)
    assert best_rate(ramp(1e-3, None)[:10]) == (None, None, None)
    assert best_rate([]) == (None, None, None)


def test_a_loss_that_is_no_number_is_where_it_diverged() -> None:
    points = ramp(1e-4, None)[:70]
    end = points[-1].rate * 1.1
    points.append(RatePoint(end, math.inf, math.inf))
    _, steepest, diverged = best_rate(points)
    assert diverged == pytest.approx(end)
    assert steepest is not None
    assert steepest < end


@pytest.mark.parametrize(
    ("speeds", "expected"),
    [
        ([(1, 5.0), (2, 8.0), (4, 9.5), (8, 10.0), (16, 10.1)], 4),
        ([(1, 5.0), (2, 8.0), (4, 8.0), (8, 10.0), (16, 10.1)], 8),
        ([(1, 30.0), (2, 20.0), (4, 9.0), (8, 10.0)], 4),  # small batches are out of the question
        ([(4, 5.0), (8, 9.0), (16, None)], 8),
        ([(1, 5.0), (2, None)], 1),
        ([(1, None)], 8),
    ],
)
def test_the_smallest_batch_that_is_fast(
    speeds: list[tuple[int, float | None]], expected: int
) -> None:
    assert best_size([Speed(*speed) for speed in speeds], 8) == expected


def test_crops_come_in_batches_of_another_size() -> None:
    def batches() -> Any:
        for number in range(20):
            images = np.full((3, 2, 2, 1), number, np.uint8)
            yield Batch(images, images[..., 0], (f"{number}a", f"{number}b", f"{number}c"))

    found = find_module._resized(batches(), 4)
    first, second = next(found), next(found)
    assert first.names == ("0a", "0b", "0c", "1a")
    assert second.names == ("1b", "1c", "2a", "2b")
    assert second.images[:, 0, 0, 0].tolist() == [1, 1, 2, 2]


def test_both_are_found(
    tmp_path: Path, job: Any, stream: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(find_module, "MOST_STEPS", 30)
    wanted = job(tmp_path)
    found = find(wanted, stream(wanted), limit_s=300.0)
    assert found.batch_size == 4  # five images leave no other choice
    assert [speed.batch_size for speed in found.speeds] == [1, 2, 4]
    assert all(speed.crops_per_s for speed in found.speeds)
    assert 15 <= len(found.ramp) <= 30
    assert 1e-6 <= found.learning_rate <= 1
    assert found.changes == {
        "optimiser.learning_rate": found.learning_rate,
        "batch_size": found.batch_size,
    }
    document = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert document["speeds"][0][0] == 1
    assert found.text.startswith("Learning rate ")


def test_too_little_time_keeps_the_plans_rate(
    tmp_path: Path, job: Any, stream: Callable[..., Any]
) -> None:
    wanted = job(tmp_path)
    found = find(wanted, stream(wanted), limit_s=0.0)
    assert found.ramp == ()
    assert found.learning_rate == wanted.plan.optimiser.learning_rate
    assert "kept: there was no time for a range test" in found.text


def test_a_ramp_ends_where_the_loss_is_no_number(
    tmp_path: Path, job: Any, stream: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(*arguments: Any) -> float:
        rate: float = arguments[-1]
        if rate > 1e-2:
            raise RefusedError("the loss is nan")
        return 2.0 - 1 / (1 + 1e-4 / max(rate, 1e-9))

    monkeypatch.setattr(Stepper, "step", step)
    wanted = job(tmp_path)
    found = find(wanted, stream(wanted), limit_s=60.0)
    assert found.diverged == pytest.approx(1e-2, rel=0.3)
    assert found.to_dict()["ramp"][-1][0] <= 1e-2
