"""Candidates at a quick look: in int8 as well, where floats are too slow."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from delineate.config import ModelSettings, Normalisation
from delineate.errors import EngineError, ModelError
from delineate.planning import latency
from delineate.planning.candidates import candidate
from delineate.planning.contender import LeftOut, NetworkKind, Place, as_int8
from delineate.planning.latency import quick_look

KIND = NetworkKind(
    3, "uint8", ("a", "b", "c"), "multiclass", Normalisation(mean=(120.0,) * 3, std=(60.0,) * 3)
)
IMAGE = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
SMALL = candidate(ModelSettings(architecture="fast-scnn"))
LARGE = candidate(ModelSettings(architecture="ddrnet-23-slim"))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Milliseconds of a call, by precision; nothing is exported, quantised or run."""
    ms = {"float32": 40.0, "int8": 15.0}

    def predictor(_place: Place, _graph: Any, _spec: Any, engine: str, precision: str) -> str:
        if precision not in ms:
            raise EngineError(f"{engine} has no {precision}")
        return precision

    monkeypatch.setattr(Place, "predictor", predictor)
    monkeypatch.setattr(Place, "survive", lambda *_: None)
    monkeypatch.setattr(latency, "_quick_ms", lambda precision, _image: ms[precision])
    monkeypatch.setattr(latency, "multiply_adds_per_ms", lambda *_: 1e9)
    monkeypatch.setattr(latency, "with_random_weights", lambda *_: onnx.ModelProto())
    monkeypatch.setattr(latency, "as_int8", lambda *_: onnx.ModelProto())
    return ms


def looked(budget_ms: float, *candidates: Any) -> tuple[set[tuple[str, str]], list[str]]:
    found, left_out = quick_look(
        candidates or (SMALL,),
        KIND,
        Place(("onnxruntime",)),
        IMAGE,
        budget_ms=budget_ms,
        limit_s=60.0,
        tell=lambda _: None,
    )
    return {(one.candidate.name, one.precision) for one in found}, [one.name for one in left_out]


@pytest.mark.usefixtures("clock", "unchecked")
def test_int8_is_tried_where_floats_are_too_slow() -> None:
    assert looked(100.0) == ({("Fast-SCNN", "float32")}, [])
    # a quick look is no p95: what takes the whole budget on the average is tried in int8 too
    assert looked(40.0) == ({("Fast-SCNN", "float32"), ("Fast-SCNN", "int8")}, [])
    assert looked(30.0) == ({("Fast-SCNN", "int8")}, ["Fast-SCNN"])
    # a quarter of 40 ms is beyond hope
    assert looked(7.0) == ({("Fast-SCNN", "float32")}, [])


@pytest.mark.usefixtures("clock", "unchecked")
def test_what_cannot_be_quantised_is_still_there_in_float(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Any:
        raise ModelError("no operator of this network can be quantised")

    monkeypatch.setattr(latency, "as_int8", refuse)
    assert looked(35.0) == ({("Fast-SCNN", "float32")}, ["Fast-SCNN, int8"])


@pytest.mark.usefixtures("clock", "unchecked")
def test_an_engine_that_crashes_takes_nothing_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(*_: Any) -> None:
        raise EngineError("a process with onnxruntime ended with SIGSEGV")

    monkeypatch.setattr(Place, "survive", dies)
    assert looked(35.0) == ({("Fast-SCNN", "float32")}, ["Fast-SCNN, int8"])


@pytest.mark.usefixtures("clock", "unchecked")
def test_the_cheapest_comes_first_and_the_others_in_their_order() -> None:
    said: list[str] = []
    middle = candidate(SMALL.model.model_copy(update={"downscale": 2}))
    quick_look(
        [LARGE, SMALL, middle],
        KIND,
        Place(("onnxruntime",)),
        IMAGE,
        budget_ms=1000.0,
        limit_s=60.0,
        tell=said.append,
    )
    names = [line.removeprefix("timing ") for line in said[1:]]
    assert names == [middle.name, LARGE.name, SMALL.name]


@pytest.mark.usefixtures("clock", "unchecked")
def test_without_time_the_cheapest_is_there_still() -> None:
    found, left_out = quick_look(
        [LARGE, SMALL],
        KIND,
        Place(("onnxruntime",)),
        IMAGE,
        budget_ms=1000.0,
        limit_s=-1.0,
        tell=lambda _: None,
    )
    assert [one.candidate.name for one in found] == [SMALL.name]
    assert left_out == [LeftOut(LARGE.name, latency.TIME_OVER)]


@pytest.mark.usefixtures("clock", "unchecked")
def test_what_plain_convolutions_could_not_do_either_is_not_exported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Fast-SCNN has 13 million multiply-adds at 64 x 64 px, DDRNet 71
    monkeypatch.setattr(latency, "multiply_adds_per_ms", lambda *_: 1e6)
    found, left_out = looked(40.0, SMALL, LARGE)
    assert {name for name, _ in found} == {SMALL.name}
    assert left_out == [LARGE.name]
    found, left_out = looked(60.0, SMALL, LARGE)
    assert {name for name, _ in found} == {SMALL.name, LARGE.name}


@pytest.mark.usefixtures("clock", "unchecked")
def test_the_cheapest_is_timed_however_small_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "multiply_adds_per_ms", lambda *_: 1e6)
    found, left_out = looked(0.1, SMALL, LARGE)
    assert found == {(SMALL.name, "float32")}
    assert left_out == [LARGE.name]


def test_plain_convolutions_are_timed_on_this_machine() -> None:
    found = latency.multiply_adds_per_ms(KIND, Place(("onnxruntime",)), IMAGE)
    assert 1e5 < found < 1e10  # of a machine of our days: 0.1 to 10,000 billion a second


def test_a_graph_in_int8_runs() -> None:
    graph = latency.with_random_weights(SMALL.model, KIND, (64, 64))
    small = as_int8(graph, IMAGE, "cpu")
    kinds = [node.op_type for node in small.graph.node]
    assert kinds.count("QuantizeLinear") > 10
    found = Place(("onnxruntime",)).predictor(small, KIND.spec, "onnxruntime", "int8")
    assert found.predict(IMAGE[None])["labels"].shape == (1, 64, 64)
