"""What is timed: candidates with random weights, what they take and give, and where they run."""

from __future__ import annotations

from dataclasses import dataclass

import onnx
import torch

from delineate.bundle.footprint import graph_footprint
from delineate.bundle.graph import Wrapping, finish
from delineate.bundle.load import engine_predictor
from delineate.bundle.manifest import EngineName, Precision
from delineate.compression.piece import Piece
from delineate.compression.quantise import Quantisation, prepared, quantised
from delineate.config import ModelSettings, Normalisation
from delineate.export import export_network
from delineate.models import build
from delineate.planning.candidates import Candidate, Size
from delineate.types import Image, PixelType, Predictor, PredictorSpec, Task


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

    def wrapping(self) -> Wrapping:
        """What lies round a bare network of this kind."""
        return Wrapping(
            channels=self.channels,
            dtype=self.dtype,
            task=self.task,
            classes=len(self.classes),
            normalisation=self.normalisation,
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

    def survive(
        self,
        model: onnx.ModelProto,
        spec: PredictorSpec,
        engine: EngineName,
        precision: Precision,
        image: Image,
    ) -> None:
        """Raise EngineError where a process that runs the graph on such an image dies."""
        hw = (image.shape[0], image.shape[1])
        graph_footprint(
            model,
            spec,
            engine,
            precision,
            image_hw=hw,
            device=self.device,
            threads=self.threads,
        )


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
    exported = export_network(network.eval(), kind.channels, fixed_hw=image_hw)
    return finish(exported, kind.wrapping())


def as_int8(graph: onnx.ModelProto, image: Image, device: str) -> onnx.ModelProto:
    """A graph in int8, as fast as one that was made with care; its answers mean nothing.

    Raises:
        ModelError: ONNX Runtime cannot quantise it.
    """
    how = Quantisation("onnxruntime", "x86" if device == "cpu" else "tensorrt")
    return quantised(prepared(graph), [Piece(image)], how)
