"""ONNX Runtime alone: what the contract of all predictors does not say."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import onnx
import pytest
from onnx import helper

from delineate.bundle.graph import Wrapping, finish
from delineate.bundle.load import engines_on
from delineate.config import Normalisation
from delineate.engines import onnxruntime as module
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


def test_a_device_that_does_not_start_is_not_replaced_by_the_processor(finished, monkeypatch):
    """ONNX Runtime itself would go on with the CPU where a library of CUDA is absent."""
    offered = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(module.ort, "get_available_providers", lambda: offered)
    predictor = OnnxRuntimePredictor(finished, SPEC, device="cuda")
    with pytest.raises(EngineError) as caught:
        predictor.predict(np.zeros((1, 4, 4, 3), np.uint8))
    assert "cannot start CUDAExecutionProvider, and would run CPUExecutionProvider" in str(
        caught.value
    )


@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
def test_what_tensorrt_is_asked_for(finished, monkeypatch, tmp_path, precision):
    made = []

    class Session(module.ort.InferenceSession):
        def __init__(self, _graph, _options, providers):
            made.extend(providers)

        def get_providers(self):
            return [name for name, _ in made]

        def run(self, outputs, inputs):
            return [np.zeros(inputs["image"].shape[:3], np.uint8) for _ in outputs]

    offered = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(module.ort, "get_available_providers", lambda: offered)
    monkeypatch.setattr(module.ort, "InferenceSession", Session)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    predictor = OnnxRuntimePredictor(finished, SPEC, device="cuda", tensorrt=precision)
    predictor.predict(np.zeros((1, 4, 4, 3), np.uint8))
    (first, options), (second, _) = made
    assert (first, second) == ("TensorrtExecutionProvider", "CUDAExecutionProvider")
    assert options["trt_fp16_enable"] is (precision == "float16")
    assert options["trt_int8_enable"] is (precision == "int8")
    assert options["trt_engine_cache_path"] == str(tmp_path / "delineate/tensorrt")


def test_engines_that_are_compared_on_a_gpu(monkeypatch):
    offered = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(module.ort, "get_available_providers", lambda: offered)
    assert engines_on("cuda", "auto") == ("onnxruntime",)
    offered.insert(0, "TensorrtExecutionProvider")
    assert engines_on("cuda", "auto") == ("onnxruntime", "tensorrt")


def test_tensorrt_on_a_processor(finished):
    with pytest.raises(EngineError, match="TensorRT is not offered by this ONNX Runtime on cpu"):
        OnnxRuntimePredictor(finished, SPEC, tensorrt="float32")


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
