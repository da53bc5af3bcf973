"""A quick look at how long candidates take on the engine and the machine that will run them.

Latency does not depend on the weights, so networks are exported with random ones and timed before
anything is trained. What plain convolutions could not do in the time either is left out unmeasured,
and said so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from delineate.bundle.graph import finish
from delineate.bundle.manifest import EngineName, Precision
from delineate.errors import DelineateError, EngineError
from delineate.export import export_network
from delineate.planning.candidates import Candidate, Size, size_of
from delineate.planning.contender import (
    Contender,
    LeftOut,
    NetworkKind,
    Place,
    as_int8,
    with_random_weights,
)
from delineate.types import Image, Predictor

QUICK_CALLS = 5
QUICK_S = 1.0  # for them
HOPEFUL = 1.25  # times the budget: what is slower at a quick look is not timed at length
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16", "float16")
INT8_AT_BEST = 4.0  # times as fast as the fastest float, where processors multiply bytes
TIME_OVER = "the time for the search was over"
DENSE_LAYERS, DENSE_CHANNELS, DENSE_STRIDE = 6, 128, 4


class _Dense(nn.Module):
    """Plain convolutions one after the other, which no network outruns for its multiply-adds."""

    def __init__(self, channels: int, logits: int) -> None:
        super().__init__()
        width, stride = DENSE_CHANNELS, DENSE_STRIDE
        layers: list[nn.Module] = [nn.Conv2d(channels, width, stride, stride)]
        for _ in range(DENSE_LAYERS):
            layers += [nn.Conv2d(width, width, 3, padding=1), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, logits, 1))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.layers(x)
        return logits


def multiply_adds_per_ms(kind: NetworkKind, place: Place, image: Image) -> float:
    """What this machine does at best: plain convolutions on its fastest engine, int8 included.

    Raises:
        EngineError: no engine runs them.
    """
    hw = (image.shape[0], image.shape[1])
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        dense = _Dense(kind.channels, 1 if kind.task == "binary" else len(kind.classes))
    multiple = DENSE_STRIDE
    wrapping = replace(kind.wrapping(), multiple_of=multiple, rescale_output=True)
    inside = (-(-hw[0] // multiple) * multiple, -(-hw[1] // multiple) * multiple)
    graph = finish(export_network(dense.eval(), kind.channels, fixed_hw=inside), wrapping)
    cells = inside[0] * inside[1] // DENSE_STRIDE**2
    work = cells * DENSE_LAYERS * 9 * DENSE_CHANNELS**2
    tried = _timed(graph, kind, place, image, PRECISIONS)
    try:
        small = as_int8(graph, image, place.device)
        tried += _timed(small, kind, place, image, ("int8",))
    except DelineateError:  # then int8 is no hope for others either
        pass
    return float(work / min(quick_ms for *_, quick_ms in tried))


def _timed(
    graph: onnx.ModelProto,
    kind: NetworkKind,
    place: Place,
    image: Image,
    precisions: Sequence[Precision],
) -> list[tuple[EngineName, Precision, Predictor, float]]:
    """Every engine in every precision that it has, with the median of a few calls.

    Raises:
        EngineError: none runs the graph.
    """
    found: list[tuple[EngineName, Precision, Predictor, float]] = []
    refused: list[EngineError] = []
    for engine in place.engines:
        for precision in precisions:
            try:
                if precision == "int8":  # which is known to crash an engine
                    place.survive(graph, kind.spec, engine, precision, image)
                predictor = place.predictor(graph, kind.spec, engine, precision)
                found.append((engine, precision, predictor, _quick_ms(predictor, image)))
            except EngineError as error:
                refused.append(error)
    if not found:
        raise refused[0]
    return found


def quick_look(
    candidates: Sequence[Candidate],
    kind: NetworkKind,
    place: Place,
    image: Image,
    *,
    budget_ms: float,
    limit_s: float,
    tell: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
) -> tuple[list[Contender], list[LeftOut]]:
    """Export and time candidates roughly, as long as there is hope and time.

    The cheapest comes first, so that there is one in any case, and the others in their order.

    Args:
        candidates: networks, what promises most first.
        kind: what they take and give.
        place: engines and device.
        image: that is segmented, (H, W, C).
        budget_ms: what a call may take.
        limit_s: no candidate but the cheapest is begun later.
        tell: given a line for each.
        clock: seconds.

    Returns:
        each candidate that could fit, and the fastest in any case, on its fastest engine in its
        fastest float, and in int8 where floats are about too slow; and what was left out.

    Raises:
        EngineError: no engine runs even the first.
    """
    began = clock()
    hw = (image.shape[0], image.shape[1])
    sizes = {
        item.name: size_of(
            item.model,
            channels=kind.channels,
            classes=len(kind.classes),
            task=kind.task,
            image_hw=hw,
        )
        for item in candidates
    }
    tell("timing plain convolutions")
    per_ms = multiply_adds_per_ms(kind, place, image)
    tried: list[Contender] = []
    left_out: list[LeftOut] = []
    cheapest = min(candidates, key=lambda item: sizes[item.name].multiply_adds)
    for item in sorted(candidates, key=lambda item: item is not cheapest):
        size = sizes[item.name]
        least_ms = size.multiply_adds / per_ms
        if item is not cheapest and least_ms > HOPEFUL * budget_ms:
            reason = f"at least {least_ms:.2g} ms, by its multiply-adds"
            left_out.append(LeftOut(item.name, reason))
            continue
        if item is not cheapest and clock() - began > limit_s:
            left_out.append(LeftOut(item.name, TIME_OVER))
            continue
        tell(f"timing {item.name}")
        try:
            graph = with_random_weights(item.model, kind, hw)
            fastest = _on_engines(item, size, graph, kind, place, image)
        except DelineateError as error:
            if not tried and isinstance(error, EngineError):
                raise
            left_out.append(LeftOut(item.name, str(error)))
            continue
        tried.append(fastest)
        if budget_ms / HOPEFUL < fastest.quick_ms <= INT8_AT_BEST * HOPEFUL * budget_ms:
            tell(f"timing {item.name} in int8")
            try:
                small = as_int8(graph, image, place.device)
                tried.append(_on_engines(item, size, small, kind, place, image, ("int8",)))
            except DelineateError as error:
                left_out.append(LeftOut(f"{item.name}, int8", str(error)))
    return _hopeful(tried, left_out, HOPEFUL * budget_ms)


def _hopeful(
    tried: Sequence[Contender], left_out: Sequence[LeftOut], most_ms: float
) -> tuple[list[Contender], list[LeftOut]]:
    """What is fast enough, and the fastest in any case; the others join what was left out."""
    fastest = min(tried, key=lambda one: one.quick_ms, default=None)
    found = [one for one in tried if one is fastest or one.quick_ms <= most_ms]
    slow = [one for one in tried if one is not fastest and one.quick_ms > most_ms]
    told = [LeftOut(one.label, f"{one.quick_ms:.0f} ms at a quick look") for one in slow]
    return found, [*left_out, *told]


def _on_engines(
    item: Candidate,
    size: Size,
    graph: onnx.ModelProto,
    kind: NetworkKind,
    place: Place,
    image: Image,
    precisions: Sequence[Precision] = PRECISIONS,
) -> Contender:
    """The fastest engine and precision; those that no engine has are passed over."""
    hw = (image.shape[0], image.shape[1])
    found: list[Contender] = []
    for engine, precision, predictor, quick_ms in _timed(graph, kind, place, image, precisions):
        found.append(Contender(item, size, engine, precision, graph, predictor, quick_ms, hw))
    return min(found, key=lambda one: one.quick_ms)


def _quick_ms(predictor: Predictor, image: Image) -> float:
    predictor.predict(image[None])
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < 2 or (len(times) < QUICK_CALLS and time.perf_counter() - began < QUICK_S):
        start = time.perf_counter()
        predictor.predict(image[None])
        times.append(1e3 * (time.perf_counter() - start))
    return float(np.median(times))
