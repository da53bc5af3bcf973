"""OpenVINO alone: static networks for each shape, and precision that is always set."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from onnx import helper

from delineate.bundle.graph import Wrapping, finish
from delineate.config import Normalisation
from delineate.engines import openvino
from delineate.engines.openvino import STATIC_SHAPES, OpenVinoPredictor
from delineate.errors import EngineError, MissingExtraError
from delineate.types import OUTPUTS, PredictorSpec

SPEC = PredictorSpec(("a", "b"), "multiclass", 3, "uint8")
PLAIN = Normalisation(mean=(0.0,) * 3, std=(1.0,) * 3)


@pytest.fixture(scope="module")
def finished(tiny_network):
    return finish(tiny_network.model, Wrapping(3, "uint8", "multiclass", 2, PLAIN))


def _image(height, width):
    return np.random.default_rng(height).integers(0, 256, (1, height, width, 3), np.uint8)


def test_an_absent_device(finished):
    with pytest.raises(EngineError) as caught:
        OpenVinoPredictor(finished, SPEC, device="tpu")
    assert str(caught.value).startswith("device 'tpu' is not offered by this OpenVINO. Choose cpu")


def test_without_openvino_the_extra_is_named(finished, monkeypatch):
    monkeypatch.setattr(openvino, "ov", None)
    with pytest.raises(MissingExtraError) as caught:
        OpenVinoPredictor(finished, SPEC)
    assert str(caught.value) == (
        "this needs OpenVINO, which is not installed. Install it with: "
        "pip install 'delineate[openvino]'"
    )


def test_more_shapes_than_are_kept(finished):
    predictor = OpenVinoPredictor(finished, SPEC, threads=1)
    images = [_image(4 + i, 6) for i in range(STATIC_SHAPES + 2)]
    first = [predictor.predict(image, ("probabilities",))["probabilities"] for image in images]
    assert len(predictor._compiled) == STATIC_SHAPES
    for image, expected in zip(images, first, strict=True):
        again = predictor.predict(image, ("probabilities",))["probabilities"]
        np.testing.assert_array_equal(again, expected)
    assert len(predictor._compiled) == STATIC_SHAPES


def test_the_shape_used_longest_ago_goes(finished):
    predictor = OpenVinoPredictor(finished, SPEC, threads=1)
    for i in range(STATIC_SHAPES):
        predictor.predict(_image(4 + i, 6))
    predictor.predict(_image(4, 6))
    predictor.predict(_image(50, 6))
    heights = [shape[1] for _, shape in predictor._compiled]
    assert heights == [6, 7, 8, 9, 10, 11, 4, 50]


def test_requests_are_used_again(finished):
    predictor = OpenVinoPredictor(finished, SPEC, threads=1)
    image = _image(8, 8)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: predictor.predict(image), range(40)))
    (compiled,) = predictor._compiled.values()
    assert 1 <= compiled._idle.qsize() <= 4


@pytest.mark.parametrize("precision", ["f32", "bf16", "f16"])
def test_precision_is_set(finished, precision):
    predictor = OpenVinoPredictor(finished, SPEC, precision=precision, threads=1)
    assert predictor._config["INFERENCE_PRECISION_HINT"] == precision
    predictor.predict(_image(8, 8))
    (compiled,) = predictor._compiled.values()
    # a processor without the arithmetic falls back to float32, never the other way
    used = compiled._network.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    assert used in {precision, "f32"}


def test_a_graph_it_refuses(forge):
    reshape = helper.make_node("Reshape", ["x", "shape"], ["y"])
    shape = {"shape": np.array([1, 3, 8, 8], np.int64)}
    bare = forge.model([reshape], ["n", 3, "h", "w"], shape)
    spec = PredictorSpec(("a", "b", "c"), "multiclass", 3, "uint8")
    predictor = OpenVinoPredictor(finish(bare, Wrapping(3, "uint8", "multiclass", 3, PLAIN)), spec)
    predictor.predict(np.zeros((1, 8, 8, 3), np.uint8), OUTPUTS)
    with pytest.raises(EngineError) as caught:
        predictor.predict(np.zeros((1, 8, 9, 3), np.uint8))
    assert "refuses the graph for batches of shape (1, 8, 9, 3) (" in str(caught.value)
