from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import cycle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from delineate.engines.timing import Timing, speedup, time_calls


class Machine:
    """Calls take the seconds they say, on a clock of its own."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.slowness = 1.0
        self.order: list[str] = []

    def clock(self) -> float:
        return self.now_s

    def call(self, name: str, seconds: Iterator[float]) -> Callable[[], None]:
        def run() -> None:
            self.order.append(name)
            self.now_s += next(seconds) * self.slowness

        return run

    def time(self, calls: dict[str, list[float]], **settings: float) -> dict[str, Timing]:
        made = {name: self.call(name, cycle(s)) for name, s in calls.items()}
        return time_calls(made, clock=self.clock, **settings)  # type: ignore[arg-type]


def timing(*rounds: list[float]) -> Timing:
    return Timing(0.0, True, tuple(np.array(r, np.float64) for r in rounds))


def test_the_first_call_is_told_apart() -> None:
    machine = Machine()
    times = iter([3.0, *[1 / 64] * 10_000])
    found = time_calls({"a": machine.call("a", times)}, clock=machine.clock, rounds=4)["a"]
    assert found.first_ms == pytest.approx(3000)
    assert found.steady
    assert len(found.rounds_ms) == 4
    assert found.calls_ms == pytest.approx(np.full(4 * 13, 15.625))  # bursts of 0.2 s


def test_calls_that_become_faster_are_waited_for() -> None:
    machine = Machine()
    seconds = [0.1 * max(0.2, 0.99**i) for i in range(10_000)]
    found = machine.time({"a": seconds}, rounds=2)["a"]
    assert found.steady
    assert found.calls_ms.max() < 1.05 * found.calls_ms.min()


def test_calls_that_never_settle() -> None:
    machine = Machine()
    found = machine.time({"a": [0.05 * 1.01**i for i in range(2000)]}, rounds=1)["a"]
    assert not found.steady


def test_contenders_take_turns_in_every_round() -> None:
    machine = Machine()
    found = machine.time({"a": [1 / 8], "b": [1 / 16]}, rounds=6)
    turns = ["".join(machine.order[-8 * i : len(machine.order) - 8 * (i - 1)]) for i in range(1, 7)]
    assert set(turns) == {"aaabbbbb", "bbbbbaaa"}  # one call more than is counted
    assert {len(timing.rounds_ms) for timing in found.values()} == {6}
    assert {len(burst) for burst in found["a"].rounds_ms} == {2}
    assert {len(burst) for burst in found["b"].rounds_ms} == {4}


def test_a_slow_call_is_still_timed_twice_a_round() -> None:
    found = Machine().time({"a": [7.0]}, rounds=3)["a"]
    assert [len(burst) for burst in found.rounds_ms] == [2, 2, 2]


def test_a_limit_ends_the_rounds() -> None:
    found = Machine().time({"a": [1.0]}, rounds=100, limit_s=9.5)["a"]
    assert len(found.rounds_ms) == 4  # the fourth began after 9 s
    found = Machine().time({"a": [1.0]}, rounds=100, limit_s=0.0, least_rounds=2)["a"]
    assert len(found.rounds_ms) == 2


def test_a_warm_up_may_be_shorter() -> None:
    slowing = [0.05 * 1.01**i for i in range(2000)]
    usual, short = Machine(), Machine()
    usual.time({"a": slowing}, rounds=1)
    short.time({"a": slowing}, rounds=1, warm_up_limit_s=1.0)
    assert len(short.order) < len(usual.order) / 3


def test_a_machine_that_slows_down_changes_no_ratio() -> None:
    a = timing([10.0, 10.0], [30.0, 32.0], [9.0])
    b = timing([20.0], [62.0], [18.0, 18.0])
    found = speedup(a, b)
    assert (found.value, found.low, found.high) == (2.0, 2.0, 2.0)


def test_a_ratio_is_no_surer_than_its_rounds() -> None:
    rng = np.random.default_rng(0)
    same = [[timing(*rng.lognormal(0, 0.3, (20, 3))) for _ in "ab"] for _ in range(40)]
    found = [speedup(a, b) for a, b in same]
    assert sum(f.low <= 1 <= f.high for f in found) >= 34  # 38 expected
    few = speedup(*(timing(*rng.lognormal(0, 0.3, (4, 3))) for _ in "ab"))
    assert few.high - few.low > 0.05


def test_quantiles_of_few_calls_have_no_upper_end() -> None:
    few, enough = timing(list(range(1, 72))), timing(list(range(1, 73)))
    assert few.quantile(0.95).high == math.inf
    assert enough.quantile(0.95).high == 72
    assert timing(list(range(1, 368))).quantile(0.99).high == math.inf
    assert timing(list(range(1, 369))).quantile(0.99).high == 368
    assert timing([5.0]).quantile(0.5).low == 0


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 400), st.sampled_from([0.5, 0.9, 0.95]))
def test_a_quantile_lies_in_its_interval(count: int, q: float) -> None:
    rng = np.random.default_rng(count)
    found = timing(rng.exponential(size=count).tolist()).quantile(q)
    assert found.low <= found.value <= found.high


def test_intervals_of_quantiles_cover_the_truth() -> None:
    rng = np.random.default_rng(1)
    truth = -math.log(0.1)  # the 90th percentile of the exponential distribution
    inside = 0
    for _ in range(300):
        found = timing(rng.exponential(size=100).tolist()).quantile(0.9)
        inside += found.low <= truth <= found.high
    assert inside >= 276  # 285 expected of an exact interval, and this one is wider
