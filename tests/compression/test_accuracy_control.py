from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import helper

from delineate.bundle.graph import Wrapping, finish
from delineate.compression.accuracy_control import controlled
from delineate.compression.piece import Piece
from delineate.compression.quantise import Quantisation, prepared, quantised
from delineate.config import Normalisation
from delineate.engines.onnxruntime import OnnxRuntimePredictor
from delineate.types import Predictor, PredictorSpec

if TYPE_CHECKING:
    from tests.conftest import Forge

SPEC = PredictorSpec(("a", "b", "c"), "multiclass", 3, "uint8")
WRAPPING = Wrapping(3, "uint8", "multiclass", 3, Normalisation(mean=(127.0,) * 3, std=(60.0,) * 3))
HOW = Quantisation("nncf")
IMAGES = tuple(
    np.kron(
        np.random.default_rng(seed).permuted(np.tile(np.uint8([230, 90, 40]), (4, 4, 1)), axis=2),
        np.ones((8, 8, 1), np.uint8),
    )
    for seed in range(3)
)
PIECES = tuple(Piece(image) for image in IMAGES)


@pytest.fixture(scope="module")
def harmed(forge: Forge) -> onnx.ModelProto:
    """Names the brightest channel; int8 leaves no levels to the weights in the middle."""
    through = np.zeros((16, 16, 1, 1))
    through[range(3), range(3)] = 1.0
    middle = through.copy()
    middle[:, 3] = 1000.0
    last = np.eye(3, 16)[:, :, None, None]
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["b"], name="relu"),
        helper.make_node("Conv", ["b", "w2"], ["c"], name="middle"),
        helper.make_node("Relu", ["c"], ["d"], name="rectify"),
        helper.make_node("Conv", ["d", "w3"], ["y"], name="last"),
    ]
    weights = {"w1": through[:, :3], "w2": middle, "w3": last}
    constants = {name: value.astype(np.float32) for name, value in weights.items()}
    return prepared(finish(forge.model(nodes, ["n", 3, "h", "w"], constants), WRAPPING))


def predictor(model: onnx.ModelProto) -> Predictor:
    return OnnxRuntimePredictor(model, SPEC, threads=1)


def agreement(model: onnx.ModelProto, harmed: onnx.ModelProto) -> float:
    pairs = [
        [predictor(one).predict(image[None])["labels"] for one in (model, harmed)]
        for image in IMAGES
    ]
    return float(np.mean([a == b for a, b in pairs]))


def test_it_leaves_the_harmed_layer_in_float(harmed: onnx.ModelProto) -> None:
    assert agreement(quantised(harmed, PIECES, HOW), harmed) < 0.6
    found = controlled(harmed, PIECES, HOW, predictor=predictor, compared=3, limit_s=600.0)
    assert found is not None
    onnx.checker.check_model(found)
    assert agreement(found, harmed) > 0.99
    assert any(node.op_type == "QuantizeLinear" for node in found.graph.node)


def test_a_limit_ends_it(harmed: onnx.ModelProto) -> None:
    began = time.monotonic()
    found = controlled(harmed, PIECES, HOW, predictor=predictor, compared=3, limit_s=0.5)
    assert found is None
    assert time.monotonic() - began < 30
