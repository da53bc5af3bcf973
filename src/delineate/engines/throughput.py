"""Images per second at saturation: as many as a predictor gives when it never waits for work.

Several calls at a time, or several images in one call, may give more than one after the other. A
short trial finds which; the figure itself is measured in turns with all other contenders, like the
latencies of :mod:`delineate.engines.timing`.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from delineate.engines.energy import Meter
from delineate.errors import EngineError
from delineate.types import Image, Predictor

TRIAL_S = TURN_S = 1.0
BATCH = 8
BATCH_PIXELS = 2**24  # of all images of a call
WARM_UP_CALLS = 10  # OpenVINO compiles a shape for itself when it has come back nine times


@dataclass(frozen=True)
class Load:
    """How work is offered.

    Attributes:
        batch: images in a call.
        workers: calls at a time.
    """

    batch: int
    workers: int


@dataclass(frozen=True)
class Throughput:
    """What a predictor gives at saturation.

    Attributes:
        images_per_s: the median over rounds.
        low, high: the least and the most of a round.
        load: the one that gave the most.
        joules_per_image: None where the machine counts none.
    """

    images_per_s: float
    low: float
    high: float
    load: Load
    joules_per_image: float | None


def throughputs(
    contenders: Mapping[str, tuple[Predictor, Image, Meter]],
    *,
    cores: int,
    rounds: int = 5,
    seed: int = 0,
) -> dict[str, Throughput]:
    """Images per second of each contender.

    Args:
        contenders: by name, a predictor, an image (H, W, C) that it takes, and the meter of the
            energy of the device that it runs on.
        cores: calls at a time that are tried at most.
        rounds: turns of each; one lasts a second, and the last call until its end.
        seed: of the order.
    """
    loads = {
        name: _best_load(predictor, image, cores)
        for name, (predictor, image, _) in contenders.items()
    }
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    joules: dict[str, list[float]] = {name: [] for name in contenders}
    names, rng = list(contenders), np.random.default_rng(seed)
    for _ in range(rounds):
        for index in rng.permutation(len(names)):
            name = names[index]
            predictor, image, meter = contenders[name]
            before = meter.now()
            images, elapsed_s = _run(predictor, image, loads[name], TURN_S)
            used = meter.since(before)
            rates[name].append(images / elapsed_s)
            if used is not None:
                joules[name].append(used / images)
    return {
        name: Throughput(
            statistics.median(found),
            min(found),
            max(found),
            loads[name],
            statistics.median(joules[name]) if joules[name] else None,
        )
        for name, found in rates.items()
    }


def _best_load(predictor: Predictor, image: Image, cores: int) -> Load:
    best, most = Load(1, 1), 0.0
    for load in _loads(predictor, image, cores):
        try:
            for _ in range(WARM_UP_CALLS):  # compiles and allocates for this size
                _run(predictor, image, load, 0.0)
            images, elapsed_s = _run(predictor, image, load, TRIAL_S)
        except (EngineError, MemoryError):
            if load == Load(1, 1):
                raise
            continue
        if images / elapsed_s > most:
            best, most = load, images / elapsed_s
    return best


def _loads(predictor: Predictor, image: Image, cores: int) -> Sequence[Load]:
    held = BATCH_PIXELS // (image.shape[0] * image.shape[1])
    batch = min(BATCH, predictor.spec.largest_batch or BATCH, max(held, 1))
    loads = [Load(1, 1), Load(1, cores), Load(batch, 1)]
    return list(dict.fromkeys(loads))


def _run(predictor: Predictor, image: Image, load: Load, seconds: float) -> tuple[int, float]:
    """Images done, and the seconds until the last of them; each worker makes one call at least."""
    images = np.repeat(image[None], load.batch, axis=0)
    began = time.perf_counter()

    def work() -> int:
        calls = 0
        while not calls or time.perf_counter() - began < seconds:
            predictor.predict(images)
            calls += 1
        return calls

    with ThreadPoolExecutor(load.workers) as pool:
        running = [pool.submit(work) for _ in range(load.workers)]
        calls = sum(one.result() for one in running)
    return calls * load.batch, time.perf_counter() - began
