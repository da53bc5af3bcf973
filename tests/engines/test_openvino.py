"""OpenVINO alone: static networks for each shape, and precision that is always set."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from onnx import helper

from delineate.bundle.graph import Wrapping, finish
from delineate.config import Normalisation
from delineate.engines import openvino
from delineate.engines.openvino import CAPABILITIES, STATIC_AFTER, STATIC_SHAPES, OpenVinoPredictor
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


@pytest.fixture
def always_static(monkeypatch):
    monkeypatch.setattr(openvino, "STATIC_AFTER", 0)


@pytest.mark.usefixtures("always_static")
def test_more_shapes_than_are_kept(finished):
    predictor = OpenVinoPredictor(finished, SPEC, threads=1)
    images = [_image(4 + i, 6) for i in range(STATIC_SHAPES + 2)]
    first = [predictor.predict(image, ("probabilities",))["probabilities"] for image in images]
    assert len(predictor._compiled) == STATIC_SHAPES
    for image, expected in zip(images, first, strict=True):
        again = predictor.predict(image, ("probabilities",))["probabilities"]
        np.testing.assert_array_equal(again, expected)
    assert len(predictor._compiled) == STATIC_SHAPES


def test_a_new_size_costs_no_compilation(finished, monkeypatch):
    predictor = OpenVinoPredictor(finished, SPEC, threads=1)
    shapes = []
    compile_one = predictor._compile
    monkeypatch.setattr(
        predictor, "_compile", lambda *key: (shapes.append(key[1]), compile_one(*key))[1]
    )
    for height in (8, 8, *range(9, 40)):
        predictor.predict(_image(height, 6))
    assert shapes == [(1, 8, 6, 3), (-1, -1, -1, 3)]
    for _ in range(STATIC_AFTER):  # 20 was seen once above
        predictor.predict(_image(20, 6))
    assert shapes[2:] == [(1, 20, 6, 3)]


def test_results_do_not_depend_on_what_came_before(finished):
    images = [_image(side, side + 3) for side in (17, 30, 8)]
    alone = [OpenVinoPredictor(finished, SPEC, threads=1).predict(x, OUTPUTS) for x in images]
    predictor = OpenVinoPredictor(finished, SPEC, threads=1)
    predictor.predict(_image(5, 5), OUTPUTS)
    for _ in range(STATIC_AFTER + 2):  # of free shape at first, static at the end
        for image, expected in zip(images, alone, strict=True):
            found = predictor.predict(image, OUTPUTS)
            assert all(np.array_equal(found[name], expected[name]) for name in OUTPUTS)
    assert len(predictor._compiled) == 4


def test_sizes_by_turns_do_not_compile_at_every_call(finished, monkeypatch):
    monkeypatch.setattr(openvino, "STATIC_AFTER", 2)
    monkeypatch.setattr(openvino, "STATIC_SHAPES", 2)
    predictor = OpenVinoPredictor(finished, SPEC, threads=1)
    compile_one, count = predictor._compile, []
    monkeypatch.setattr(
        predictor, "_compile", lambda *key: (count.append(key), compile_one(*key))[1]
    )
    for _ in range(6):
        for height in (4, 5, 6):
            predictor.predict(_image(height, 6))
    assert len(count) < 10


@pytest.mark.usefixtures("always_static")
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
def test_precision_is_set_or_refused(finished, precision):
    able = openvino.ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if CAPABILITIES[precision] not in able:  # it would take float32 without a word
        with pytest.raises(EngineError) as caught:
            OpenVinoPredictor(finished, SPEC, precision=precision)
        assert str(caught.value).startswith(
            f"device 'cpu' has no {precision} arithmetic. Use another precision; it has "
        )
        return
    predictor = OpenVinoPredictor(finished, SPEC, precision=precision, threads=1)
    predictor.predict(_image(8, 8))
    (compiled,) = predictor._compiled.values()
    used = compiled._network.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    assert used == precision


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
    with pytest.raises(EngineError) as caught:
        predictor.predict(np.zeros((1, 8, 9, 3), np.uint8), OUTPUTS)  # by the network of free shape
    assert "fails on a batch of shape (1, 8, 9, 3) (" in str(caught.value)
