"""What a search for variants works with: places that run graphs, candidates, and attempts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import onnx

from delineate.bundle.manifest import EngineName, Precision
from delineate.compression.gate import Loss
from delineate.compression.quantise import Quantisation
from delineate.engines.timing import Interval, Timing
from delineate.evaluation.evaluate import Evaluation
from delineate.types import Predictor


@dataclass(frozen=True)
class Place:
    """What a graph may be run by.

    Attributes:
        engines: by name; each makes a predictor of a graph in a precision, or raises EngineError
            where this machine has no such arithmetic.
        survive: raises EngineError where a process that runs a graph on an engine in a precision
            dies.
        score: of a predictor on the validation split, boundaries included.
        call: one piece of work of a predictor, of the size that is timed.
        timed: times calls in turns, as :func:`~delineate.engines.timing.time_calls` does.
    """

    engines: Mapping[EngineName, Callable[[onnx.ModelProto, Precision], Predictor]]
    survive: Callable[[onnx.ModelProto, EngineName, Precision], object]
    score: Callable[[Predictor], Evaluation]
    call: Callable[[Predictor], object]
    timed: Callable[[Mapping[str, Callable[[], object]]], dict[str, Timing]]


@dataclass(frozen=True)
class Attempt:
    """One variant on one engine, and what the gate says of it.

    Attributes:
        name: for people, as in ``int8 (NNCF), 4 layers float``.
        engine: that ran it.
        precision: of its arithmetic.
        how: of int8, else None.
        graph: its file; that of float32 for other float precisions.
        evaluation: on the validation split; None where it was too slow to be scored.
        loss: against float32 on the same engine.
        timing: in turns with the others.
        speedup: against ``base``; None for float32.
        base: the fastest variant of higher precision.
        reasons: why it is refused; empty: admitted.
    """

    name: str
    engine: EngineName
    precision: Precision
    how: Quantisation | None
    graph: onnx.ModelProto
    evaluation: Evaluation | None
    loss: Loss | None
    timing: Timing
    speedup: Interval | None
    base: str
    reasons: tuple[str, ...]

    @property
    def label(self) -> str:
        return f"{self.name} on {self.engine}"

    @property
    def admitted(self) -> bool:
        return not self.reasons


@dataclass(frozen=True)
class Candidate:
    """A graph that can be run, before anything is known of it."""

    name: str
    engine: EngineName
    precision: Precision
    how: Quantisation | None
    graph: onnx.ModelProto
    predictor: Predictor

    @property
    def label(self) -> str:
        return f"{self.name} on {self.engine}"
