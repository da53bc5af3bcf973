"""How long calls take, measured side by side, so that a noisy machine does not decide.

Contenders take turns in rounds of random order (random interleaving, as Google's benchmark library
has it): what slows the machine for a second slows all of them. Ratios are therefore taken within a
round, and their interval comes from a bootstrap over rounds, because calls that follow each other
are not independent. Quantiles have the distribution-free interval of order statistics; where there
are too few calls for one, its end is infinite, and nothing is claimed.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

LEVEL = 0.95
WARM_UP_S = 0.5  # and at least this many calls make a window of the warm-up
WARM_UP_CALLS = 5
WARM_UP_LIMIT_S = 10.0
STEADY = 0.02  # medians of two windows differ by less
RESAMPLES = 2000


@dataclass(frozen=True)
class Interval:
    """An estimate and the ends of its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def at_most(self) -> float:
        """The upper end, or the value itself where there are too few calls for one."""
        return self.high if math.isfinite(self.high) else self.value


@dataclass(frozen=True)
class Timing:
    """How long the calls of one contender took.

    Attributes:
        first_ms: the very first call, with all that is compiled and allocated in it.
        steady: the warm-up ended because calls no longer became faster, not because its time
            was over.
        rounds_ms: calls of each round, milliseconds, after the warm-up and in their order.
    """

    first_ms: float
    steady: bool
    rounds_ms: tuple[Float64[np.ndarray, " _"], ...]

    @property
    def calls_ms(self) -> Float64[np.ndarray, " calls"]:
        """All calls, in their order; none is left out as an outlier."""
        return np.concatenate(self.rounds_ms)

    def followed_by(self, later: Timing) -> Timing:
        """With the rounds of a later :func:`time_calls` of the same contender."""
        return Timing(self.first_ms, self.steady, (*self.rounds_ms, *later.rounds_ms))

    def quantile(self, q: float) -> Interval:
        """The latency that a share ``q`` of the calls does not exceed, milliseconds.

        An end of the interval is 0 or infinite when there are too few calls to bound it: the
        95th percentile needs 72 of them, the 99th 368.
        """
        calls = np.sort(self.calls_ms)
        low, high = _order_statistics(len(calls), q)
        return Interval(
            float(np.quantile(calls, q)),
            float(calls[low]) if low >= 0 else 0.0,
            float(calls[high]) if high < len(calls) else math.inf,
        )


def _order_statistics(count: int, q: float) -> tuple[int, int]:
    """Indices of sorted values between which the quantile lies with 95 %; outside: no bound.

    The number of values below the quantile is binomial.
    """
    tail = (1 - LEVEL) / 2
    below = 0.0
    low, high = -1, count
    for k in range(count + 1):
        log = math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1)
        below += math.exp(log + k * math.log(q) + (count - k) * math.log1p(-q))
        if below <= tail:
            low = k  # at most k values are below with this little probability
        if below >= 1 - tail:
            high = k
            break
    return low, high


def speedup(contender: Timing, base: Timing, *, seed: int = 0) -> Interval:
    """How many times as fast ``contender`` is as ``base``, both from one :func:`time_calls`.

    The median over rounds of the ratio of their medians in a round.
    """
    ratios = np.array(
        [
            np.median(slow) / np.median(fast)
            for fast, slow in zip(contender.rounds_ms, base.rounds_ms, strict=True)
        ]
    )
    rng = np.random.default_rng(seed)
    drawn = np.median(ratios[rng.integers(len(ratios), size=(RESAMPLES, len(ratios)))], axis=1)
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(np.median(ratios)), float(low), float(high))


def time_calls(
    calls: Mapping[str, Callable[[], object]],
    *,
    rounds: int = 20,
    burst_s: float = 0.2,
    limit_s: float = math.inf,
    least_rounds: int = 3,
    warm_up_limit_s: float = WARM_UP_LIMIT_S,
    seed: int = 0,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Timing]:
    """Time contenders in turns.

    Each is warmed up first, until the medians of two windows agree within 2 %, for
    ``warm_up_limit_s`` at most. In each round every contender then makes a burst of calls; the
    first of a burst refills the caches that another contender had taken, and is not counted.

    Args:
        calls: by name; each does one whole piece of work, and waits for its end.
        rounds: how often each has its turn.
        burst_s: how long a turn lasts; three calls at least.
        limit_s: no round begins later than this after the first, unless there are fewer than
            ``least_rounds``.
        least_rounds: see ``limit_s``.
        warm_up_limit_s: of each contender.
        seed: of the order.
        clock: seconds.

    Returns:
        the timing of each, all with the same number of rounds.
    """
    firsts: dict[str, float] = {}
    warm: dict[str, tuple[float, bool]] = {}
    for name, call in calls.items():
        began = clock()
        call()
        firsts[name] = (clock() - began) * 1e3
        warm[name] = _warm_up(call, clock, warm_up_limit_s)
    burst = {name: max(2, math.ceil(burst_s / max(s, 1e-6))) for name, (s, _) in warm.items()}
    rng = np.random.default_rng(seed)
    names = list(calls)
    found: dict[str, list[Float64[np.ndarray, " calls"]]] = {name: [] for name in names}
    began = clock()
    for done in range(rounds):
        if done >= least_rounds and clock() - began >= limit_s:
            break
        for index in rng.permutation(len(names)):
            name = names[index]
            calls[name]()
            found[name].append(_burst(calls[name], burst[name], clock))
    return {name: Timing(firsts[name], warm[name][1], tuple(found[name])) for name in names}


def _burst(
    call: Callable[[], object], count: int, clock: Callable[[], float]
) -> Float64[np.ndarray, " calls"]:
    """Milliseconds of each of ``count`` calls."""
    times = np.empty(count + 1)
    times[0] = clock()
    for i in range(count):
        call()
        times[i + 1] = clock()
    return np.asarray(np.diff(times) * 1e3)


def _warm_up(
    call: Callable[[], object], clock: Callable[[], float], limit_s: float
) -> tuple[float, bool]:
    """Seconds of a call in the last window, and whether the one before was the same."""
    began = clock()
    before: float | None = None
    while True:
        window: list[float] = []
        window_began = clock()
        while len(window) < WARM_UP_CALLS or clock() - window_began < WARM_UP_S:
            call_began = clock()
            call()
            window.append(clock() - call_began)
            if len(window) >= 2 and clock() - began >= limit_s:
                break
        median = statistics.median(window)
        if before is not None and abs(median - before) <= STEADY * before:
            return median, True
        if clock() - began >= limit_s:
            return median, False
        before = median
