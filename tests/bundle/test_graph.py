"""The finished graph against the same pipeline written down in NumPy, on both engines."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from onnx import helper

from delineate.bundle.graph import OPSET, Wrapping, finish
from delineate.config import Normalisation
from delineate.engines.onnxruntime import OnnxRuntimePredictor
from delineate.engines.openvino import OpenVinoPredictor
from delineate.types import OUTPUTS, PredictorSpec

FEW = settings(
    max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
RGB = Normalisation(mean=(120.0, 110.0, 100.0), std=(60.0, 50.0, 70.0))
BASE = Wrapping(channels=3, dtype="uint8", task="multiclass", classes=3, normalisation=RGB)


def _normalisation(channels, top):
    return Normalisation(
        mean=tuple(top * (0.4 + 0.01 * c) for c in range(channels)),
        std=tuple(top * (0.2 + 0.01 * c) for c in range(channels)),
    )


# What is put round the network, and how the network differs from the plain one
CASES = {
    "plain": (BASE, {}),
    "uint16": (replace(BASE, dtype="uint16", normalisation=_normalisation(3, 65535)), {}),
    "float32": (replace(BASE, dtype="float32", normalisation=_normalisation(3, 1)), {}),
    "one channel": (replace(BASE, channels=1, normalisation=_normalisation(1, 255)), {}),
    "sixteen channels": (
        replace(BASE, channels=16, dtype="uint16", normalisation=_normalisation(16, 65535)),
        {},
    ),
    "bgr": (replace(BASE, channel_order=(2, 1, 0)), {}),
    "nhwc": (replace(BASE, layout="nhwc"), {"layout": "nhwc"}),
    "pad": (replace(BASE, multiple_of=8), {}),
    "resize": (replace(BASE, resize_hw=(12, 10)), {"size": (12, 10), "batch": 1}),
    "nhwc, bgr and pad": (
        replace(BASE, layout="nhwc", channel_order=(2, 1, 0), multiple_of=4),
        {"layout": "nhwc"},
    ),
    "planes": (replace(BASE, output_planes=(4, 0, 2)), {"planes": 5}),
    "rescale": (replace(BASE, multiple_of=2, rescale_output=True), {"stride": 2}),
    "resize and rescale": (
        replace(BASE, resize_hw=(16, 8), rescale_output=True),
        {"size": (16, 8), "stride": 2},
    ),
    "binary": (replace(BASE, task="binary", classes=2), {"planes": 1}),
    "binary plane": (
        replace(BASE, task="binary", classes=2, output_planes=(1,), multiple_of=4),
        {"planes": 2},
    ),
}


@dataclass(frozen=True)
class Case:
    wrapping: Wrapping
    convolution: object
    onnxruntime: OnnxRuntimePredictor
    openvino: OpenVinoPredictor


def _predictors(model, wrapping):
    spec = PredictorSpec(
        tuple(f"class {i}" for i in range(wrapping.classes)),
        wrapping.task,
        wrapping.channels,
        wrapping.dtype,
    )
    return OnnxRuntimePredictor(model, spec, threads=1), OpenVinoPredictor(model, spec, threads=1)


@pytest.fixture(scope="module", params=CASES)
def case(request, forge):
    wrapping, changes = CASES[request.param]
    planes = changes.get("planes", wrapping.classes)
    convolution = forge.convolution(wrapping.channels, **{**changes, "planes": planes})
    model = finish(convolution.model, wrapping)
    return Case(wrapping, convolution, *_predictors(model, wrapping))


def _lerp(length, wanted):
    """(wanted, length): linear interpolation between pixel centres, clamped at the border."""
    at = np.clip((np.arange(wanted) + 0.5) * length / wanted - 0.5, 0, length - 1)
    low = np.floor(at).astype(int)
    high = np.minimum(low + 1, length - 1)
    matrix = np.zeros((wanted, length))
    np.add.at(matrix, (np.arange(wanted), low), 1 - (at - low))
    np.add.at(matrix, (np.arange(wanted), high), at - low)
    return matrix


def _resized(x, size):
    rows, columns = _lerp(x.shape[1], size[0]), _lerp(x.shape[2], size[1])
    return np.einsum("ih,jw,nhwc->nijc", rows, columns, x)


def _expected_scores(images, wrapping, convolution):
    """(N, H, W, planes) in float64."""
    height, width = images.shape[1:3]
    x = images.astype(np.float64)
    if wrapping.channel_order is not None:
        x = x[..., list(wrapping.channel_order)]
    x = (x - np.array(wrapping.normalisation.mean)) / np.array(wrapping.normalisation.std)
    if wrapping.resize_hw is not None:
        x = _resized(x, wrapping.resize_hw)
    else:
        below, right = -height % wrapping.multiple_of, -width % wrapping.multiple_of
        x = np.pad(x, ((0, 0), (0, below), (0, right), (0, 0)), mode="edge")
    scores = convolution.scores(x)
    if wrapping.output_planes is not None:
        scores = scores[..., list(wrapping.output_planes)]
    if wrapping.resize_hw is not None:
        return _resized(scores, (height, width))
    if wrapping.rescale_output:
        scores = _resized(scores, x.shape[1:3])
    return scores[:, :height, :width]


def _expected_probabilities(scores, task):
    if task == "binary":
        foreground = 1 / (1 + np.exp(-scores))
        return np.concatenate([1 - foreground, foreground], axis=-1)
    raised = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return raised / raised.sum(axis=-1, keepdims=True)


def _images(wrapping, count, height, width, seed):
    rng = np.random.default_rng(seed)
    shape = (count, height, width, wrapping.channels)
    if wrapping.dtype == "float32":
        return rng.random(shape).astype(np.float32)
    return rng.integers(0, np.iinfo(wrapping.dtype).max, shape, wrapping.dtype, endpoint=True)


def _assert_as_expected(found, probabilities):
    """``probabilities`` (N, H, W, K) in float64; float32 may round the other way."""
    in_order = np.sort(probabilities, axis=-1)
    clear = in_order[..., -1] - in_order[..., -2] > 1e-4
    labels = probabilities.argmax(axis=-1)
    assert (found["labels"] == labels)[clear].all()
    planes = np.moveaxis(probabilities, -1, 1)
    np.testing.assert_allclose(found["probabilities"], planes * 255, atol=0.51)
    np.testing.assert_allclose(found["confidence"], in_order[..., -1] * 255, atol=0.51)
    classes = probabilities.shape[-1]
    shares = [(found["labels"] == k).mean(axis=(1, 2)) for k in range(classes)]
    entropy = -(probabilities * np.log(np.maximum(probabilities, 1e-12))).sum(axis=-1)
    expected = [*shares, in_order[..., -1].mean(axis=(1, 2)), entropy.mean(axis=(1, 2))]
    np.testing.assert_allclose(found["summary"], np.stack(expected, axis=1), atol=2e-4)


@FEW
@given(
    height=st.integers(1, 19),
    width=st.integers(1, 19),
    count=st.integers(1, 3),
    seed=st.integers(0, 2**16),
)
@example(height=1, width=1, count=1, seed=0)
def test_the_graph_is_the_pipeline(case, height, width, count, seed):
    if case.wrapping.resize_hw is not None:
        count = 1  # the network inside takes one image at a time
    images = _images(case.wrapping, count, height, width, seed)
    probabilities = _expected_probabilities(
        _expected_scores(images, case.wrapping, case.convolution), case.wrapping.task
    )
    first = case.onnxruntime.predict(images, OUTPUTS)
    second = case.openvino.predict(images, OUTPUTS)
    for found in (first, second):
        _assert_as_expected(found, probabilities)
    if case.wrapping.task == "binary":
        for found in (first, second):
            assert (found["probabilities"].sum(axis=1, dtype=np.int64) == 255).all()


@pytest.mark.parametrize("task", ["multiclass", "binary"])
def test_probabilities_are_taken_as_they_are(forge, task):
    planes = 1 if task == "binary" else 2
    bare = forge.model([helper.make_node("Clip", ["x"], ["y"])], ["n", planes, "h", "w"])
    wrapping = Wrapping(
        channels=planes,
        dtype="float32",
        task=task,
        classes=2,
        normalisation=Normalisation(mean=(0.0,) * planes, std=(1.0,) * planes),
        output_kind="probabilities",
    )
    foreground = np.linspace(0, 1, 101, dtype=np.float32).reshape(1, 1, -1, 1)
    images = foreground
    if task == "multiclass":
        images = np.concatenate([1 - foreground, foreground], axis=-1)
    probabilities = np.concatenate([1 - foreground, foreground], axis=-1)
    for predictor in _predictors(finish(bare, wrapping), wrapping):
        found = predictor.predict(images, OUTPUTS)
        _assert_as_expected(found, probabilities.astype(np.float64))
        assert (found["labels"][0, 0] == (np.arange(101) > 50)).all()  # a tie is background


def test_saturated_logits_have_no_entropy(forge):
    """exp(1000) overflows; softmax and the logarithm must not."""
    bare = forge.model([helper.make_node("Identity", ["x"], ["y"])], ["n", 2, "h", "w"])
    wrapping = Wrapping(
        channels=2,
        dtype="float32",
        task="multiclass",
        classes=2,
        normalisation=Normalisation(mean=(0.0, 0.0), std=(1.0, 1.0)),
    )
    images = np.array([[-1000, 1000], [1000, -1000]], np.float32).reshape(1, 1, 2, 2)
    for predictor in _predictors(finish(bare, wrapping), wrapping):
        found = predictor.predict(images, OUTPUTS)
        assert found["labels"].tolist() == [[[1, 0]]]
        assert found["confidence"].tolist() == [[[255, 255]]]
        np.testing.assert_array_equal(found["summary"], [[0.5, 0.5, 1.0, 0.0]])


@pytest.mark.parametrize(("classes", "dtype"), [(256, np.uint8), (257, np.uint16)])
def test_many_classes_get_wider_labels(forge, classes, dtype):
    """Class k has the k-th largest score, but the last is made the largest of all."""
    weight = np.zeros((classes, 1, 1, 1), np.float32)
    bias = -np.arange(classes, dtype=np.float32)
    weight[-1], bias[-1] = 1.0, -100.0
    conv = helper.make_node("Conv", ["x", "w", "b"], ["y"])
    bare = forge.model([conv], ["n", 1, "h", "w"], {"w": weight, "b": bias})
    wrapping = Wrapping(
        channels=1,
        dtype="uint8",
        task="multiclass",
        classes=classes,
        normalisation=Normalisation(mean=(0.0,), std=(1.0,)),
    )
    images = np.array([[0, 255]], np.uint8)[None, ..., None]
    for predictor in _predictors(finish(bare, wrapping), wrapping):
        found = predictor.predict(images, ("labels", "summary"))
        assert found["labels"].dtype == dtype
        assert found["labels"].tolist() == [[[0, classes - 1]]]
        assert found["summary"].shape == (1, classes + 2)
        assert found["summary"][0, 0] == found["summary"][0, classes - 1] == 0.5


def test_a_finished_graph_says_what_it_takes_and_gives(tiny_network):
    wrapping = replace(BASE, classes=2)
    model = finish(tiny_network.model, wrapping)
    onnx.checker.check_model(model, full_check=True)
    assert [entry.version for entry in model.opset_import] == [OPSET]
    assert [value.name for value in model.graph.input] == ["image"]
    assert tuple(value.name for value in model.graph.output) == OUTPUTS
    dims = model.graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_param or dim.dim_value for dim in dims] == ["n", "h", "w", 3]


def test_names_of_the_network_cannot_clash_with_ours(forge):
    nodes = [
        helper.make_node("Identity", ["image"], ["delineate/constant_0"]),
        helper.make_node("Identity", ["delineate/constant_0"], ["labels"]),
    ]
    bare = forge.model(nodes, ["n", 3, "h", "w"], inputs=["image"], outputs=["labels"])
    onnxruntime, openvino = _predictors(finish(bare, BASE), BASE)
    images = np.random.default_rng(0).integers(0, 256, (1, 4, 5, 3), np.uint8)
    expected = ((images - np.array(RGB.mean)) / np.array(RGB.std)).argmax(-1)
    for predictor in (onnxruntime, openvino):
        np.testing.assert_array_equal(predictor.predict(images)["labels"], expected)
