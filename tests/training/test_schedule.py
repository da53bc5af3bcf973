from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delineate.training.schedule import StepCount, TimeBudget, learning_rate_factor

shares = st.floats(0.0, 1.0)


@given(st.floats(-2.0, 3.0), shares)
def test_the_factor_is_a_share(progress: float, warmup: float) -> None:
    assert 0 <= learning_rate_factor(progress, warmup) <= 1


def test_warm_up_then_cosine() -> None:
    found = [learning_rate_factor(p, 0.1) for p in (0.0, 0.05, 0.1, 0.55, 1.0)]
    assert found == pytest.approx([0.01, 0.5, 1, 0.5, 0], abs=1e-12)


def test_no_warm_up() -> None:
    assert learning_rate_factor(0.0, 0.0) == 1
    assert learning_rate_factor(0.5, 0.0) == pytest.approx(0.5)


def test_nothing_but_warm_up() -> None:
    assert learning_rate_factor(0.5, 1.0) == 0.5
    assert learning_rate_factor(1.0, 1.0) == 1


@given(st.lists(shares, min_size=2).map(sorted), st.floats(0.0, 0.5))
def test_the_factor_never_rises_after_the_warm_up(progress: list[float], warmup: float) -> None:
    factors = [learning_rate_factor(p, warmup) for p in progress if p >= warmup]
    assert factors == sorted(factors, reverse=True)


def test_steps() -> None:
    length = StepCount(8)
    assert [length.progress(step, 100.0) for step in (0, 2, 8)] == [0, 0.25, 1]
    assert length.remaining_s(2, 10.0) == 30
    assert length.remaining_s(0, 0.0) == 0
    assert length.remaining_s(8, 40.0) == 0


def test_time() -> None:
    length = TimeBudget(100.0, reserve_s=20.0)
    assert [length.progress(7, t) for t in (0.0, 40.0, 80.0, 88.0)] == [0, 0.5, 1, 1.1]
    assert length.remaining_s(7, 30.0) == 70
    assert length.remaining_s(7, 101.0) == 0
    length.reserve_s = 60.0  # a validation took 20 s
    assert length.progress(7, 30.0) == 0.75


def test_a_short_budget_still_trains() -> None:
    length = TimeBudget(10.0, reserve_s=20.0)
    assert length.progress(0, 0.5) == 0.5
    assert length.progress(0, 1.0) == 1


def test_time_left_is_told_by_the_steps_of_this_process() -> None:
    length = StepCount(100, first_step=40, began_s=500.0)  # 500 s of set-up and earlier sessions
    assert length.remaining_s(50, 510.0) == 50
    assert length.remaining_s(40, 500.0) == 0
