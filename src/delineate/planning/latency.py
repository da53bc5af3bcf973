"""How long candidates take on the engine and the machine that will run them.

Latency does not depend on the weights, so networks are exported with random ones and timed before
anything is trained. The cheapest come first; what cannot fit any more is left out unmeasured, and
said so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import torch

from delineate.bundle.graph import Wrapping, finish
from delineate.bundle.load import engine_predictor
from delineate.bundle.manifest import EngineName, Precision
from delineate.compression.quantise import Quantisation, prepared, quantised
from delineate.config import ModelSettings, Normalisation
from delineate.errors import DelineateError, EngineError
from delineate.export import export_network
from delineate.models import build
from delineate.planning.candidates import Candidate, Size, size_of
from delineate.types import Image, PixelType, Predictor, PredictorSpec, Task

QUICK_CALLS = 5
QUICK_S = 1.0  # for them
HOPEFUL = 1.25  # times the budget: what is slower at a quick look is not timed at length
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16", "float16")
INT8_AT_BEST = 4.0  # times as fast as the fastest float, where processors multiply bytes


@dataclass(frozen=True)
class NetworkKind:
    """What every candidate takes and gives.

    Attributes:
        channels, dtype: of a raw image.
        classes: names, background included.
        task: multiclass or binary.
        normalisation: of raw values.
    """

    channels: int
    dtype: PixelType
    classes: tuple[str, ...]
    task: Task
    normalisation: Normalisation

    @property
    def spec(self) -> PredictorSpec:
        return PredictorSpec(
            self.classes,
            self.task,
            self.channels,
            self.dtype,
            normalised_by_image=self.normalisation.by == "image",
        )


@dataclass(frozen=True)
class Place:
    """Where candidates run.

    Attributes:
        engines: those that are tried.
        device: ``cpu``, ``cuda`` or ``gpu``.
        threads: inside one call; all cores when left out.
    """

    engines: tuple[EngineName, ...]
    device: str = "cpu"
    threads: int | None = None

    def predictor(
        self, model: onnx.ModelProto, spec: PredictorSpec, engine: EngineName, precision: Precision
    ) -> Predictor:
        return engine_predictor(model, spec, engine, precision, self.device, self.threads)


@dataclass(frozen=True)
class Contender:
    """A candidate with random weights on one engine.

    Attributes:
        candidate: the network.
        size: parameters and multiply-adds.
        engine, precision: how it runs.
        graph: finished.
        predictor: runs it.
        quick_ms: the median of a few calls.
        image_hw: height and width of the image they were made with, pixels.
    """

    candidate: Candidate
    size: Size
    engine: EngineName
    precision: Precision
    graph: onnx.ModelProto
    predictor: Predictor
    quick_ms: float
    image_hw: tuple[int, int]

    @property
    def label(self) -> str:
        precision = "" if self.precision == "float32" else f", {self.precision}"
        return f"{self.candidate.name}{precision}"


@dataclass(frozen=True)
class LeftOut:
    """A candidate that was not timed at length, and why not."""

    name: str
    reason: str


def with_random_weights(
    model: ModelSettings, kind: NetworkKind, image_hw: tuple[int, int]
) -> onnx.ModelProto:
    """A finished graph of a network that was never trained, for one image of one size.

    Raises:
        ModelError: the network cannot be built or exported.
    """
    bare = model.model_copy(update={"encoder_weights": None})
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        network = build(bare, channels=kind.channels, classes=len(kind.classes), task=kind.task)
    wrapping = Wrapping(
        channels=kind.channels,
        dtype=kind.dtype,
        task=kind.task,
        classes=len(kind.classes),
        normalisation=kind.normalisation,
    )
    exported = export_network(network.eval(), kind.channels, fixed_hw=image_hw)
    return finish(exported, wrapping)


def as_int8(graph: onnx.ModelProto, image: Image, device: str) -> onnx.ModelProto:
    """A graph in int8, as fast as one that was made with care; its answers mean nothing.

    Raises:
        ModelError: ONNX Runtime cannot quantise it.
    """
    how = Quantisation("onnxruntime", "x86" if device == "cpu" else "tensorrt")
    return quantised(prepared(graph), [image], how)


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
    """Export and time candidates roughly, the cheapest first, as long as there is hope and time.

    Args:
        candidates: networks.
        kind: what they take and give.
        place: engines and device.
        image: that is segmented, (H, W, C).
        budget_ms: what a call may take.
        limit_s: no candidate is begun later.
        tell: given a line for each.
        clock: seconds.

    Returns:
        for each candidate that could fit, and for the fastest in any case, its fastest engine at
        each precision there is, int8 only where floats are too slow; and what was left out.

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
    tried: list[Contender] = []
    left_out: list[LeftOut] = []
    for item in sorted(candidates, key=lambda item: sizes[item.name].multiply_adds):
        size = sizes[item.name]
        least_ms = _least_ms(tried, size)
        if least_ms > HOPEFUL * budget_ms:
            reason = f"at least {least_ms:.0f} ms, by its multiply-adds"
            left_out.append(LeftOut(item.name, reason))
            continue
        if clock() - began > limit_s:
            left_out.append(LeftOut(item.name, "the time for the search was over"))
            continue
        tell(f"timing {item.name}")
        try:
            graph = with_random_weights(item.model, kind, hw)
            floats = _on_engines(item, size, graph, kind, place, image)
        except DelineateError as error:
            if not tried and isinstance(error, EngineError):
                raise
            left_out.append(LeftOut(item.name, str(error)))
            continue
        tried += floats
        quick_ms = min(one.quick_ms for one in floats)
        if budget_ms / HOPEFUL < quick_ms <= INT8_AT_BEST * HOPEFUL * budget_ms:
            tell(f"timing {item.name} in int8")
            try:
                small = as_int8(graph, image, place.device)
                tried += _on_engines(item, size, small, kind, place, image, ("int8",))
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


def _least_ms(found: Sequence[Contender], size: Size) -> float:
    """What a network takes if it is as fast for its multiply-adds as the fastest so far.

    As long as none was timed in int8, its best is assumed.
    """
    rates = [one.quick_ms / one.size.multiply_adds for one in found]
    unknown = all(one.precision != "int8" for one in found)
    return min(rates, default=0.0) * size.multiply_adds / (INT8_AT_BEST if unknown else 1.0)


def _on_engines(
    item: Candidate,
    size: Size,
    graph: onnx.ModelProto,
    kind: NetworkKind,
    place: Place,
    image: Image,
    precisions: Sequence[Precision] = PRECISIONS,
) -> list[Contender]:
    """The fastest engine at each precision; a precision that no engine has is not there."""
    best: dict[Precision, Contender] = {}
    refused: list[EngineError] = []
    for engine in place.engines:
        for precision in precisions:
            try:
                predictor = place.predictor(graph, kind.spec, engine, precision)
                quick_ms = _quick_ms(predictor, image)
            except EngineError as error:
                refused.append(error)
                continue
            hw = (image.shape[0], image.shape[1])
            one = Contender(item, size, engine, precision, graph, predictor, quick_ms, hw)
            if precision not in best or quick_ms < best[precision].quick_ms:
                best[precision] = one
    if not best:
        raise refused[0]
    return list(best.values())


def _quick_ms(predictor: Predictor, image: Image) -> float:
    predictor.predict(image[None])
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < 2 or (len(times) < QUICK_CALLS and time.perf_counter() - began < QUICK_S):
        start = time.perf_counter()
        predictor.predict(image[None])
        times.append(1e3 * (time.perf_counter() - start))
    return float(np.median(times))
