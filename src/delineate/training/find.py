"""A learning rate and a batch size, found by trying them for about a minute."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float64
from lightning_fabric import Fabric

from delineate.errors import RefusedError
from delineate.training.job import Job
from delineate.training.settled import settled
from delineate.training.step import Stepper, precision
from delineate.training.stream import Batch, SampleStream
from delineate.training.world import World

RATES = (1e-6, 1.0)
MOST_STEPS = 100
FEWEST_STEPS = 30  # of a ramp; a shorter one says nothing
SIZES = (1, 2, 4, 8, 16, 32)
SMALLEST_BATCH = 4  # batch normalisation over fewer crops is noise
GOOD_SPEED = 0.9  # of the best throughput
SMOOTHING = 0.85  # of the loss: about the last seven steps
SPEED_SHARE = 0.35  # of the time, at most, goes into batch sizes
_TIMED_STEPS = 2  # after one that is not counted
_DIVERGED = 4.0  # times the least loss: the ramp ends there
_FALL = 0.05  # of the first loss, at least; a smaller fall is noise
_WINDOW = 8  # points, at least, over which a slope is fitted


@dataclass(frozen=True)
class RatePoint:
    """One step of the ramp: its learning rate, the loss, and the loss smoothed.

    Both are infinite where the loss was no number; the ramp ends there.
    """

    rate: float
    loss: float
    smoothed: float


@dataclass(frozen=True)
class Speed:
    """Crops a second at a batch size; None where the memory was too small."""

    batch_size: int
    crops_per_s: float | None


@dataclass(frozen=True)
class Found:
    """What was found.

    Attributes:
        learning_rate, batch_size: to be used.
        ramp: the range test, up to where the loss diverged.
        steepest, diverged: learning rates where the loss fell fastest, and where it began to rise;
            None where it did not.
        speeds: of the batch sizes that were tried.
        seconds: that it took.
        text: for people.
    """

    learning_rate: float
    batch_size: int
    ramp: tuple[RatePoint, ...]
    steepest: float | None
    diverged: float | None
    speeds: tuple[Speed, ...]
    seconds: float
    text: str

    @property
    def changes(self) -> dict[str, Any]:
        """Of the plan, by dotted path."""
        return {"optimiser.learning_rate": self.learning_rate, "batch_size": self.batch_size}

    def to_dict(self) -> dict[str, Any]:
        return {
            "learning_rate": self.learning_rate,
            "batch_size": self.batch_size,
            "text": self.text,
            "seconds": round(self.seconds, 2),
            "steepest": self.steepest,
            "diverged": self.diverged,
            "ramp": [[p.rate, p.loss, p.smoothed] for p in self.ramp if p.loss < math.inf],
            "speeds": [[speed.batch_size, speed.crops_per_s] for speed in self.speeds],
        }


def find(job: Job, stream: SampleStream, *, limit_s: float) -> Found:
    """Find the batch size, then the learning rate for it. The job's own network is not touched.

    The batch size is the smallest that reaches 90 % of the best throughput of the network (samples
    are prepared beforehand), from 4 on, up to a quarter of the training images.

    The learning rate comes from a range test (Smith 2017, arXiv:1506.01186): over up to 100 steps
    it rises exponentially from 1e-6 to 1. Of the smoothed loss two points are taken, where it falls
    fastest (the choice of fast.ai's finder, by a line fitted over several points) and where, past
    its least, it has lost half of what it had gained; the smaller of the first and a tenth of the
    second is the answer. Where the loss never falls, the plan's own rate stays.

    Args:
        job: its plan, images and normalisation.
        stream: of its crops, from the beginning.
        limit_s: seconds for all of it; kept to within a step.

    Raises:
        RefusedError: a single crop does not fit the memory.
    """
    began = time.monotonic()
    fabric = Fabric(accelerator="auto", devices=1, precision=_precision(job))
    fabric.launch()
    with settled(deterministic=job.plan.deterministic), closing(stream.batches(0)) as batches:
        speeds = _speeds(job, fabric, batches, SPEED_SHARE * limit_s)
        batch_size = best_size(speeds, job.plan.batch_size)
        left_s = limit_s - (time.monotonic() - began)
        ramp = _ramp(job, fabric, _resized(batches, batch_size), batch_size, left_s)
    rate, steepest, diverged = best_rate(ramp)
    seconds = time.monotonic() - began
    if rate is None:
        rate = job.plan.optimiser.learning_rate
        kept = (
            f"kept: in {len(ramp)} steps of the range test the loss did not fall"
            if ramp
            else "kept: there was no time for a range test"
        )
    else:
        kept = f"found in {len(ramp)} steps of the range test"
    text = f"Learning rate {rate:.2g} ({kept}), batch size {batch_size}; {seconds:.0f} s"
    return Found(rate, batch_size, ramp, steepest, diverged, speeds, seconds, text)


def _precision(job: Job) -> Any:
    return precision(job.plan.precision)


def _stepper(job: Job, fabric: Fabric, size: int) -> tuple[Stepper, list[str]]:
    """A network of the plan with fresh weights, and what it says of the memory."""
    said: list[str] = []
    fresh = replace(job, plan=job.plan.model_copy(update={"batch_size": size}))
    return Stepper(fresh, fabric, World(), micro_batch=size, note=said.append), said


def _resized(batches: Iterator[Batch], size: int) -> Generator[Batch, None, None]:
    """The same crops in batches of another size."""
    waiting = next(batches)
    while True:
        while len(waiting.names) < size:
            waiting = waiting.joined(next(batches))
        yield waiting.part(slice(size))
        waiting = waiting.part(slice(size, None))


def _speeds(
    job: Job, fabric: Fabric, batches: Iterator[Batch], limit_s: float
) -> tuple[Speed, ...]:
    """Throughput of the sizes, smallest first, as far as time and memory go."""
    largest = max(SMALLEST_BATCH, len(job.train) // 4)
    stepper, said = _stepper(job, fabric, SIZES[0])
    began = time.monotonic()
    found: list[Speed] = []
    for size in (size for size in SIZES if size <= largest):
        stepper.micro_batch = size
        batch = next(_resized(batches, size))
        stepper.step(batch, 0, 0.0)  # the first of a size is slower: memory is laid out for it
        if said:  # the step went through in smaller pieces
            found.append(Speed(size, None))
            break
        start = time.monotonic()
        for number in range(_TIMED_STEPS):
            stepper.step(batch, 1 + number, 0.0)
        step_s = max(time.monotonic() - start, 1e-6) / _TIMED_STEPS
        found.append(Speed(size, size / step_s))
        next_s = 2 * step_s * (1 + _TIMED_STEPS)
        if size >= SMALLEST_BATCH and time.monotonic() - began + next_s > limit_s:
            break
    return tuple(found)


def best_size(speeds: Sequence[Speed], usual: int) -> int:
    """The smallest batch size from 4 on that reaches 90 % of the best throughput.

    Args:
        speeds: of the sizes tried, smallest first.
        usual: taken where none from 4 on could be tried, as far as memory is known to hold it.
    """
    known = {s.batch_size: s.crops_per_s for s in speeds if s.crops_per_s is not None}
    allowed = {size: speed for size, speed in known.items() if size >= SMALLEST_BATCH}
    if not allowed:
        return min(usual, max(known, default=usual))
    best = max(allowed.values())
    return min(size for size, speed in allowed.items() if speed >= GOOD_SPEED * best)


def _ramp(
    job: Job, fabric: Fabric, batches: Iterator[Batch], size: int, limit_s: float
) -> tuple[RatePoint, ...]:
    """The range test, of as many steps as there is time for; nothing where there is too little."""
    stepper, _ = _stepper(job, fabric, size)
    began = time.monotonic()
    stepper.step(next(batches), 0, RATES[0])
    start = time.monotonic()
    stepper.step(next(batches), 1, RATES[0])
    step_s = max(time.monotonic() - start, 1e-6)
    steps = min(MOST_STEPS, int((limit_s - (time.monotonic() - began)) / step_s))
    if steps < FEWEST_STEPS:
        return ()
    points: list[RatePoint] = []
    total = weight = 0.0
    for number, rate in enumerate(np.geomspace(*RATES, steps)):
        try:
            loss = stepper.step(next(batches), 2 + number, float(rate))
        except RefusedError:
            if not points:
                raise
            # the loss is no number any more, as on every ramp that goes far enough
            points.append(RatePoint(float(rate), math.inf, math.inf))
            break
        total, weight = SMOOTHING * total + loss, SMOOTHING * weight + 1
        points.append(RatePoint(float(rate), loss, total / weight))
        if points[-1].smoothed > _DIVERGED * min(point.smoothed for point in points):
            break
        if time.monotonic() - began > limit_s:
            break
    return tuple(points)


def best_rate(ramp: Sequence[RatePoint]) -> tuple[float | None, float | None, float | None]:
    """The learning rate of a range test, where its loss falls fastest and where it rises again.

    See :func:`find` for the rule. Each is None where the ramp does not show it.
    """
    if len(ramp) < FEWEST_STEPS // 2:
        return None, None, None
    rates = np.log([point.rate for point in ramp])
    losses = np.array([point.smoothed for point in ramp])
    start = float(np.median(losses[: max(3, len(losses) // 10)]))
    lowest = int(losses.argmin())
    fall = start - float(losses[lowest])
    if fall < _FALL * abs(start) or lowest < _WINDOW:
        return None, None, None
    risen = np.flatnonzero(losses[lowest:] > losses[lowest] + fall / 2)
    diverged = float(np.exp(rates[lowest + risen[0]])) if len(risen) else None
    steepest = _steepest(rates[: lowest + 1], losses[: lowest + 1])
    rate = steepest if diverged is None else min(steepest, diverged / 10)
    return _two_digits(rate), steepest, diverged


def _steepest(rates: Float64[np.ndarray, " n"], losses: Float64[np.ndarray, " n"]) -> float:
    """The rate in the middle of the stretch on which a fitted line falls fastest."""
    window = max(_WINDOW, len(rates) // 6)
    starts = range(len(rates) - window + 1)
    slopes = [np.polyfit(rates[s : s + window], losses[s : s + window], 1)[0] for s in starts]
    first = int(np.argmin(slopes))
    return float(np.exp(rates[first : first + window].mean()))


def _two_digits(rate: float) -> float:
    return float(f"{rate:.1e}")
