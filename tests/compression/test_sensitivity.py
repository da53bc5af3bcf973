from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import helper

from delineate.bundle.graph import Wrapping, finish
from delineate.compression.piece import Piece
from delineate.compression.quantise import Quantisation, prepared
from delineate.compression.sensitivity import _from_both_ends, divergence, layers, rank_layers
from delineate.config import Normalisation
from delineate.engines.onnxruntime import OnnxRuntimePredictor
from delineate.types import Predictor, PredictorSpec

if TYPE_CHECKING:
    from tests.conftest import Forge

SPEC = PredictorSpec(("a", "b", "c"), "multiclass", 3, "uint8")
WRAPPING = Wrapping(3, "uint8", "multiclass", 3, Normalisation(mean=(127.0,) * 3, std=(60.0,) * 3))
RNG = np.random.default_rng(0)
IMAGES = tuple(RNG.integers(0, 256, (24, width, 3), dtype=np.uint8) for width in (24, 32))
PIECES = tuple(Piece(image) for image in IMAGES)
HOW = Quantisation("onnxruntime")


def predictor(model: onnx.ModelProto) -> Predictor:
    return OnnxRuntimePredictor(model, SPEC, threads=1)


@pytest.fixture(scope="module")
def network(forge: Forge) -> onnx.ModelProto:
    """Three convolutions. The one in the middle has one huge and 15 small values a channel pair."""
    rng = np.random.default_rng(1)
    weights = {
        "w1": rng.normal(0, 0.3, (16, 3, 3, 3)),
        "w2": rng.normal(0, 0.02, (16, 16, 3, 3)),
        "w3": rng.normal(0, 0.3, (3, 16, 1, 1)),
    }
    weights["w2"][:, 0, 1, 1] = 20.0  # a scale for each channel is of no help against that
    weights["w3"] *= 3
    weights["w1"][0] = 1e-4  # and what it weighs is next to nothing
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], name="first", pads=[1] * 4),
        helper.make_node("Relu", ["a"], ["b"], name="relu"),
        helper.make_node("Conv", ["b", "w2"], ["c"], name="middle", pads=[1] * 4),
        helper.make_node("Conv", ["c", "w3"], ["y"], name="last"),
    ]
    constants = {name: value.astype(np.float32) for name, value in weights.items()}
    model = forge.model(nodes, ["n", 3, "h", "w"], constants)
    return prepared(finish(model, WRAPPING))


def test_the_layer_that_suffers_comes_first(network: onnx.ModelProto, tmp_path: Path) -> None:
    assert layers(network) == ("network/first", "network/middle", "network/last")
    found = rank_layers(
        network,
        PIECES,
        HOW,
        predictor=predictor,
        compared=PIECES,
        cache=tmp_path,
        limit_s=600.0,
    )
    assert {item.node for item in found} == set(layers(network))
    assert found[0].node == "network/middle"
    assert found[0].gain > 3 * abs(found[1].gain)
    assert [item.gain for item in found] == sorted((i.gain for i in found), reverse=True)
    assert [path.name for path in tmp_path.iterdir()] == ["x86-minmax.json"]


def test_what_is_float_already_is_not_measured(network: onnx.ModelProto, tmp_path: Path) -> None:
    how = Quantisation("onnxruntime", float_nodes=frozenset({"network/middle"}))
    found = rank_layers(
        network, PIECES, how, predictor=predictor, compared=PIECES, cache=tmp_path, limit_s=600.0
    )
    assert {item.node for item in found} == {"network/first", "network/last"}


def test_a_limit_leaves_the_rest_out(network: onnx.ModelProto, tmp_path: Path) -> None:
    ticks = count()
    clock: Callable[[], float] = lambda: float(next(ticks))  # noqa: E731
    found = rank_layers(
        network,
        PIECES,
        HOW,
        predictor=predictor,
        compared=PIECES,
        cache=tmp_path,
        limit_s=2.0,
        clock=clock,
    )
    assert {item.node for item in found} == {"network/first", "network/last"}


def test_both_ends_come_first() -> None:
    assert _from_both_ends("abcde") == ["a", "e", "b", "d", "c"]
    assert _from_both_ends("abcd") == ["a", "d", "b", "c"]
    assert _from_both_ends([]) == []


def test_a_network_does_not_differ_from_itself(network: onnx.ModelProto) -> None:
    assert divergence(predictor(network), predictor(network), PIECES) == 0.0
