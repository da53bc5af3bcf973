"""ONNX Runtime alone: what the contract of all predictors does not say."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import onnx
import pytest
from onnx import helper

from delineate.bundle.graph import Wrapping, finish
from delineate.config import Normalisation
from delineate.engines.onnxruntime import OnnxRuntimePredictor
from delineate.errors import EngineError
from delineate.types import OUTPUTS, PredictorSpec

SPEC = PredictorSpec(("a", "b"), "multiclass", 3, "uint8")
PLAIN = Normalisation(mean=(0.0,) * 3, std=(1.0,) * 3)


@pytest.fixture(scope="module")
def finished(tiny_network):
    return finish(tiny_network.model, Wrapping(3, "uint8", "multiclass", 2, PLAIN))


@pytest.mark.parametrize("device", ["tpu", "CPU", ""])
def test_an_absent_device(finished, device):
    with pytest.raises(EngineError) as caught:
        OnnxRuntimePredictor(finished, SPEC, device=device)
    assert str(caught.value) == (
        f"device {device!r} is not offered by this ONNX Runtime. Choose cpu; cuda needs the "
        "onnxruntime-gpu package."
    )


def test_a_graph_it_refuses(finished):
    broken = onnx.ModelProto()
    broken.CopyFrom(finished)
    next(node for node in broken.graph.node if node.op_type == "Conv").domain = "nobody"
    predictor = OnnxRuntimePredictor(broken, SPEC)
    with pytest.raises(EngineError, match=r"^ONNX Runtime [\d.]+ refuses the graph \(.*nobody.*\)"):
        predictor.predict(np.zeros((1, 4, 4, 3), np.uint8))


def test_a_size_at_which_the_network_fails(forge):
    """A file may say that any size will do and mean it not."""
    reshape = helper.make_node("Reshape", ["x", "shape"], ["y"])
    shape = {"shape": np.array([1, 3, 8, 8], np.int64)}
    bare = forge.model([reshape], ["n", 3, "h", "w"], shape)
    spec = PredictorSpec(("a", "b", "c"), "multiclass", 3, "uint8")
    predictor = OnnxRuntimePredictor(
        finish(bare, Wrapping(3, "uint8", "multiclass", 3, PLAIN)), spec
    )
    predictor.predict(np.zeros((1, 8, 8, 3), np.uint8))
    with pytest.raises(EngineError) as caught:
        predictor.predict(np.zeros((1, 8, 9, 3), np.uint8))
    assert "fails on a batch of shape (1, 8, 9, 3) (" in str(caught.value)


def test_threads_change_no_result(finished):
    images = np.random.default_rng(0).integers(0, 256, (2, 33, 21, 3), np.uint8)
    one = OnnxRuntimePredictor(finished, SPEC, threads=1).predict(images, OUTPUTS)
    two = OnnxRuntimePredictor(finished, SPEC, threads=2).predict(images, OUTPUTS)
    for name in ("labels", "confidence", "probabilities"):
        np.testing.assert_array_equal(one[name], two[name])
    np.testing.assert_allclose(one["summary"], two["summary"], rtol=1e-6)


def test_a_predictor_that_nobody_holds_is_freed(finished):
    predictor = OnnxRuntimePredictor(finished, SPEC)
    predictor.predict(np.zeros((1, 4, 4, 3), np.uint8))
    left = weakref.ref(predictor)
    del predictor
    gc.collect()
    assert left() is None
