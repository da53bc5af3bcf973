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
from delineate.planning.latency import NetworkKind, Place, as_int8, quick_look

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
    monkeypatch.setattr(latency, "_quick_ms", lambda precision, _image: ms[precision])
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


@pytest.mark.usefixtures("unchecked")
def test_a_network_is_given_up_only_when_int8_cannot_save_it(clock: dict[str, float]) -> None:
    light = candidate(ModelSettings.model_validate({"architecture": "linknet", "downscale": 2}))
    # of the light one; LARGE has 1.7 times its multiply-adds
    clock.update({"float32": 20.0, "int8": 10.0})
    found, left_out = looked(20.0, light, LARGE)
    assert {name for name, _ in found} == {light.name, LARGE.name}
    clock["int8"] = 19.0  # no gain, and now that is known
    found, left_out = looked(19.0, light, LARGE)
    assert left_out == [LARGE.name]


def test_a_graph_in_int8_runs() -> None:
    graph = latency.with_random_weights(SMALL.model, KIND, (64, 64))
    small = as_int8(graph, IMAGE, "cpu")
    kinds = [node.op_type for node in small.graph.node]
    assert kinds.count("QuantizeLinear") > 10
    found = Place(("onnxruntime",)).predictor(small, KIND.spec, "onnxruntime", "int8")
    assert found.predict(IMAGE[None])["labels"].shape == (1, 64, 64)
