"""The search for compressed variants: try, mend, and let the gate judge.

First come the variants that cost nothing to make: 16-bit floats, and int8 by both tools. All are
timed in turns on the engines that may ship. What is fast enough and loses too much is mended:
layers that suffer stay float, more of them at each try; NNCF's accuracy control proposes others.
What is not fast enough cannot be mended by that, since layers in float only cost time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnx
from pydantic import Field

from delineate.bundle.manifest import EngineName, Precision
from delineate.compression.accuracy_control import controlled
from delineate.compression.attempts import Attempt, Candidate, Place
from delineate.compression.gate import GateSettings, Loss, lost, score_reasons, speed_reasons
from delineate.compression.piece import Piece
from delineate.compression.qdq import Family
from delineate.compression.quantise import Quantisation, Ranges, Tool, quantised
from delineate.compression.sensitivity import rank_layers
from delineate.config import Settings
from delineate.engines.timing import Interval, Timing, speedup
from delineate.errors import DelineateError, EngineError
from delineate.evaluation.evaluate import Evaluation
from delineate.types import Predictor

FLOAT_PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16", "float16")

# Layers that stay float, one try after another, until the scores hold or the speed is gone
MENDED_LAYERS = (1, 2, 4, 8, 16)
COMPARED_PIECES = 4  # on which layers are ranked
RANKING_SHARE = 0.3  # of the time that is left


class SearchSettings(Settings):
    """How long and how thoroughly variants are looked for."""

    gate: GateSettings = GateSettings()
    family: Family = Field("x86", description="which targets int8 files are for")
    tools: tuple[tuple[Tool, Ranges], ...] = Field(
        (("nncf", "minmax"), ("onnxruntime", "minmax"), ("onnxruntime", "percentile")),
        description="that quantise, with the ranges of each, in the order they are tried",
    )
    limit_s: float = Field(1800.0, ge=0.0, description="nothing new is begun later, seconds")


class Search:
    """Looks for admissible variants of one network.

    Args:
        model: its finished float32 graph.
        prepared: the same, from :func:`~delineate.compression.quantise.prepared`.
        pieces: of images of the training split, for ranges and ranking.
        place: what runs and scores it.
        settings: thresholds and limits.
        cache: a folder for ranges.
        tell: given a line for every thing that is done.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        prepared: onnx.ModelProto,
        pieces: Sequence[Piece],
        place: Place,
        settings: SearchSettings,
        *,
        cache: Path,
        tell: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.model, self.prepared, self.pieces = model, prepared, pieces
        self.place, self.settings, self.cache, self.tell = place, settings, cache, tell
        self._clock, self._began = clock, clock()
        self.left_out: list[str] = []  # what could not be made or run, and why

    def run(self) -> tuple[Attempt, ...]:
        """All attempts: floats, the fastest first, then int8 in the order it was tried.

        Raises:
            EngineError: no engine runs the network in float32.
        """
        floats = self._floats()
        if not any(item.precision == "float32" for item in floats):
            raise EngineError(
                f"no engine runs this network in float32 ({'; '.join(self.left_out)})"
            )
        ints = self._first_ints()
        self.tell(f"timing {len(floats) + len(ints)} variants in turns")
        timings = self._timed([*floats, *ints])
        found, reference, base = self._judge_floats(floats, timings)
        tried = [self._judged(item, timings[item.label], base, reference) for item in ints]
        mended = [] if any(item.admitted for item in tried) else self._mend(tried, base, reference)
        return (*found, *tried, *mended)

    def _left_s(self) -> float:
        return self.settings.limit_s - (self._clock() - self._began)

    def _floats(self) -> list[Candidate]:
        return [
            candidate
            for engine in self.place.engines
            for precision in FLOAT_PRECISIONS
            for candidate in self._made(precision, engine, precision, None, self.model)
        ]

    def _first_ints(self) -> list[Candidate]:
        made = []
        for tool, ranges in self.settings.tools:
            how = Quantisation(tool, self.settings.family, ranges)
            made += self._quantised(how)
        return made

    def _quantised(self, how: Quantisation) -> list[Candidate]:
        """A quantised graph on every engine; nothing where that cannot be."""
        name = _name(how)
        self.tell(f"making {name}")
        try:
            graph = quantised(self.prepared, self.pieces, how, cache=self.cache)
        except DelineateError as error:
            self.left_out.append(f"{name}: {error}")
            return []
        return [
            candidate
            for engine in self.place.engines
            for candidate in self._made(name, engine, "int8", how, graph)
        ]

    def _made(
        self,
        name: str,
        engine: EngineName,
        precision: Precision,
        how: Quantisation | None,
        graph: onnx.ModelProto,
    ) -> list[Candidate]:
        try:
            if precision == "int8":  # which is known to crash an engine
                self.place.survive(graph, engine, precision)
            predictor = self.place.engines[engine](graph, precision)
            self.place.call(predictor)
        except EngineError as error:
            self.left_out.append(f"{name} on {engine}: {error.found}")
            return []
        return [Candidate(name, engine, precision, how, graph, predictor)]

    def _timed(self, candidates: Sequence[Candidate]) -> dict[str, Timing]:
        def call_of(candidate: Candidate) -> Callable[[], object]:
            return lambda: self.place.call(candidate.predictor)

        return self.place.timed({item.label: call_of(item) for item in candidates})

    def _judge_floats(
        self, floats: Sequence[Candidate], timings: Mapping[str, Timing]
    ) -> tuple[list[Attempt], Evaluation, _Base]:
        """Float variants, the scores of float32, and the fastest variant that holds them."""
        ordered = sorted(floats, key=lambda item: timings[item.label].quantile(0.5).value)
        first = next(item for item in ordered if item.precision == "float32")
        base = _Base(first, timings[first.label])
        self.tell(f"scoring {first.label}")
        reference = self.place.score(first.predictor)
        attempts = []
        for item in ordered:
            if item.precision == "float32":
                own = reference if item is first else self.place.score(item.predictor)
                attempts.append(_attempt(item, timings[item.label], own, None, None, "", ()))
                continue
            attempts.append(self._judged(item, timings[item.label], base, reference, always=True))
        holding = [
            _Base(item, attempt.timing)
            for item, attempt in zip(ordered, attempts, strict=True)
            if attempt.loss is None or not score_reasons(attempt.loss, self.settings.gate)
        ]
        return attempts, reference, min(holding, key=lambda one: one.timing.quantile(0.5).value)

    def _judged(
        self,
        item: Candidate,
        timing: Timing,
        base: _Base,
        reference: Evaluation,
        *,
        always: bool = False,
    ) -> Attempt:
        """Speed first, which is known; scores where speed allows, or there is time."""
        gate = self.settings.gate
        ratio = speedup(timing, base.timing)
        reasons = speed_reasons(ratio, base.candidate.label, gate)
        evaluation = loss = None
        if not reasons or always or self._left_s() > 0:
            self.tell(f"scoring {item.label}")
            evaluation = self.place.score(item.predictor)
            loss = lost(reference, evaluation)
            reasons = (*score_reasons(loss, gate), *reasons)
        return _attempt(item, timing, evaluation, loss, ratio, base.candidate.label, reasons)

    def _mend(self, tried: Sequence[Attempt], base: _Base, reference: Evaluation) -> list[Attempt]:
        """More and more layers in float, of what is fast enough; the least lossy first."""
        fast = [
            item
            for item in tried
            if item.speedup is not None
            and item.loss is not None
            and not speed_reasons(item.speedup, item.base, self.settings.gate)
        ]
        found: list[Attempt] = []
        for item in sorted(fast, key=lambda item: _loss_of(item)):
            if self._left_s() <= 0:
                break
            found += self._with_layers_in_float(item, base, reference)
            if found and found[-1].admitted:
                return found
        for item in fast:
            if item.how is not None and item.how.tool == "nncf" and self._left_s() > 0:
                found += self._controlled(item, item.how, base, reference)
        return found

    def _controlled(
        self, item: Attempt, how: Quantisation, base: _Base, reference: Evaluation
    ) -> list[Attempt]:
        """What NNCF's accuracy control makes of it, if it comes to an end in time."""
        kept = replace(how, controlled=True)
        self.tell(f"making {_name(kept)}")
        try:
            graph = controlled(
                self.prepared,
                self.pieces,
                kept,
                predictor=self._surviving(item.engine),
                compared=COMPARED_PIECES,
                limit_s=self._left_s(),
            )
        except DelineateError as error:
            self.left_out.append(f"{_name(kept)}: {error}")
            return []
        if graph is None:
            self.left_out.append(f"{_name(kept)}: the time was over")
            return []
        made = self._made(_name(kept), item.engine, "int8", kept, graph)
        return [self._against(base, one, reference) for one in made]

    def _surviving(self, engine: EngineName) -> Callable[[onnx.ModelProto], Predictor]:
        """Int8 graphs on an engine, each tried first where a crash ends another process."""

        def predictor(graph: onnx.ModelProto) -> Predictor:
            self.place.survive(graph, engine, "int8")
            return self.place.engines[engine](graph, "int8")

        return predictor

    def _against(self, base: _Base, item: Candidate, reference: Evaluation) -> Attempt:
        """The gate's word on one more candidate, timed in turns with the base alone."""
        timings = self._timed([base.candidate, item])
        now = _Base(base.candidate, timings[base.candidate.label])
        return self._judged(item, timings[item.label], now, reference)

    def _with_layers_in_float(
        self, item: Attempt, base: _Base, reference: Evaluation
    ) -> list[Attempt]:
        how = item.how
        if how is None:
            return []
        self.tell(f"looking for the layers that {item.label} suffers from")
        try:
            ranked = rank_layers(
                self.prepared,
                self.pieces,
                how,
                predictor=self._surviving(item.engine),
                compared=self.pieces[:COMPARED_PIECES],
                cache=self.cache,
                limit_s=RANKING_SHARE * self._left_s(),
            )
        except DelineateError as error:
            self.left_out.append(f"layers of {item.label} in float: {error}")
            return []
        useful = [layer.node for layer in ranked if layer.gain > 0]
        found: list[Attempt] = []
        for count in MENDED_LAYERS:
            if count > len(useful) or self._left_s() <= 0:
                break
            kept = replace(how, float_nodes=how.float_nodes | set(useful[:count]))
            made = [one for one in self._quantised(kept) if one.engine == item.engine]
            if not made:
                break
            attempt = self._against(base, made[0], reference)
            found.append(attempt)
            too_slow = attempt.speedup is not None and speed_reasons(
                attempt.speedup, attempt.base, self.settings.gate
            )
            if attempt.admitted or too_slow:
                break
        return found


@dataclass(frozen=True)
class _Base:
    """What others are compared with."""

    candidate: Candidate
    timing: Timing


def _attempt(
    item: Candidate,
    timing: Timing,
    evaluation: Evaluation | None,
    loss: Loss | None,
    ratio: Interval | None,
    base: str,
    reasons: tuple[str, ...],
) -> Attempt:
    return Attempt(
        name=item.name,
        engine=item.engine,
        precision=item.precision,
        how=item.how,
        graph=item.graph,
        evaluation=evaluation,
        loss=loss,
        timing=timing,
        speedup=ratio,
        base=base,
        reasons=reasons,
    )


def _loss_of(item: Attempt) -> float:
    return item.loss.miou if item.loss is not None else float("inf")


def _name(how: Quantisation) -> str:
    tool = {"nncf": "NNCF", "onnxruntime": "ONNX Runtime"}[how.tool]
    details = [tool + (" accuracy control" if how.controlled else "")]
    if how.ranges == "percentile":
        details.append("percentiles")
    if how.float_nodes:
        count = len(how.float_nodes)
        details.append(f"{count} layer{'s' if count > 1 else ''} float")
    return f"int8 ({', '.join(details)})"
