"""What every predictor keeps, whatever runs it. A further engine is one more of ``MAKERS``."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn

from delineate.bundle.graph import Wrapping, finish
from delineate.config import Normalisation
from delineate.engines.check import check_batch
from delineate.engines.classical import (
    ColourPredictor,
    ForestPredictor,
    KMeansPredictor,
    MultiOtsuPredictor,
    OtsuPredictor,
    WatershedPredictor,
)
from delineate.engines.onnxruntime import OnnxRuntimePredictor
from delineate.engines.openvino import OpenVinoPredictor
from delineate.engines.pytorch import TorchPredictor
from delineate.errors import ImageError, SettingsError
from delineate.types import OUTPUTS, Prediction, Predictor, PredictorSpec

CLASSES = ("background", "cell", "dirt")
SPEC = PredictorSpec(CLASSES, "multiclass", 3, "uint8")
NORMALISATION = Normalisation(mean=(120.0, 110.0, 100.0), std=(60.0, 50.0, 70.0))


class Fake:
    """The test double of ten lines: the brightest channel is the class."""

    spec = SPEC

    def predict(self, images, outputs=("labels",)):
        check_batch(images, outputs, self.spec)
        planes = np.moveaxis(images, -1, 1).astype(np.float64) + 1
        planes /= planes.sum(axis=1, keepdims=True)
        labels, top = planes.argmax(axis=1).astype(np.uint8), planes.max(axis=1)
        sums = [*((labels == k).mean((1, 2)) for k in range(3)), top.mean((1, 2)),
                -(planes * np.log(planes)).sum(1).mean((1, 2))]  # fmt: skip
        found = {"labels": labels, "confidence": np.rint(top * 255).astype(np.uint8),
                 "probabilities": np.rint(planes * 255).astype(np.uint8),
                 "summary": np.stack(sums, 1).astype(np.float32)}  # fmt: skip
        return Prediction(**{name: found[name] for name in outputs})


def _graph(network):
    wrapping = Wrapping(3, "uint8", "multiclass", 3, NORMALISATION, multiple_of=4)
    return finish(network.model, wrapping)


def _torch(network):
    module = nn.Conv2d(3, 3, 3, padding=1).eval()
    with torch.no_grad():
        module.weight.copy_(torch.from_numpy(network.weight))
        module.bias.copy_(torch.from_numpy(network.bias))
    return TorchPredictor(module, SPEC, NORMALISATION)


def _labelled():
    images = _images(3, 32, 32)
    return [(image, (image[..., 0] // 86).astype(np.uint8)) for image in images]


MAKERS = {
    "fake": lambda _: Fake(),
    "onnxruntime": lambda network: OnnxRuntimePredictor(_graph(network), SPEC),
    "openvino": lambda network: OpenVinoPredictor(_graph(network), SPEC, threads=1),
    "pytorch": _torch,
    "otsu": lambda _: OtsuPredictor.fit(_labelled(), CLASSES, "cell"),
    "multi-otsu": lambda _: MultiOtsuPredictor.fit(_labelled(), CLASSES, "cell"),
    "colour": lambda _: ColourPredictor.fit(_labelled(), CLASSES, "cell"),
    "kmeans": lambda _: KMeansPredictor.fit(_labelled(), CLASSES, "cell"),
    "watershed": lambda _: WatershedPredictor.fit(_labelled(), CLASSES, "cell"),
    "forest": lambda _: ForestPredictor.fit(_labelled(), CLASSES, "cell"),
}


@pytest.fixture(scope="module")
def network(forge):
    return forge.convolution(planes=3)


@pytest.fixture(scope="module", params=MAKERS)
def predictor(request, network):
    return MAKERS[request.param](network)


def _images(count, height, width, seed=0):
    """Smooth, so that a pixel has neighbours of its kind."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, -(-height // 4), -(-width // 4), 3), np.uint8)
    return coarse.repeat(4, axis=1).repeat(4, axis=2)[:, :height, :width]


def _assert_same(found, expected):
    assert set(found) == set(expected)
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


def test_it_is_a_predictor(predictor):
    assert isinstance(predictor, Predictor)
    assert predictor.spec.classes == CLASSES
    assert predictor.spec.channels == 3


@pytest.mark.parametrize(
    "outputs", [*((name,) for name in OUTPUTS), ("summary", "labels"), OUTPUTS]
)
def test_it_gives_what_was_asked_for_and_nothing_else(predictor, outputs):
    images = _images(2, 13, 9)
    found = predictor.predict(images, outputs)
    assert set(found) == set(outputs)
    everything = predictor.predict(images, OUTPUTS)
    for name in outputs:
        np.testing.assert_array_equal(found[name], everything[name], err_msg=name)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 17), (23, 2), (16, 16)])
def test_shapes_and_types(predictor, height, width):
    found = predictor.predict(_images(2, height, width), OUTPUTS)
    assert found["labels"].shape == (2, height, width)
    assert found["labels"].dtype == np.uint8
    assert found["confidence"].shape == (2, height, width)
    assert found["confidence"].dtype == np.uint8
    assert found["probabilities"].shape == (2, 3, height, width)
    assert found["probabilities"].dtype == np.uint8
    assert found["summary"].shape == (2, len(predictor.spec.summary_names))
    assert found["summary"].dtype == np.float32


def test_outputs_agree_with_each_other(predictor):
    found = predictor.predict(_images(2, 21, 18), OUTPUTS)
    labels, planes = found["labels"].astype(np.int64), found["probabilities"]
    of_label = np.take_along_axis(planes, labels[:, None], axis=1)[:, 0]
    np.testing.assert_array_equal(of_label, planes.max(axis=1))
    np.testing.assert_array_equal(of_label, found["confidence"])
    assert np.abs(planes.sum(axis=1, dtype=np.int64) - 255).max() <= 1
    shares = np.stack([(labels == k).mean(axis=(1, 2)) for k in range(3)], axis=1)
    np.testing.assert_allclose(found["summary"][:, :3], shares, atol=1e-6)
    confidence = found["confidence"].mean(axis=(1, 2)) / 255
    np.testing.assert_allclose(found["summary"][:, 3], confidence, atol=0.5 / 255)
    assert (found["summary"][:, 4] >= 0).all()
    assert (found["summary"][:, 4] <= np.log(3) + 1e-6).all()


def test_a_batch_is_its_images(predictor):
    images = _images(5, 17, 22)
    together = predictor.predict(images, OUTPUTS)
    for split in ((1, 1, 1, 1, 1), (2, 3), (4, 1)):
        ends = np.cumsum(split)
        parts = [
            predictor.predict(images[end - size : end], OUTPUTS)
            for size, end in zip(split, ends, strict=True)
        ]
        joined = {name: np.concatenate([part[name] for part in parts]) for name in OUTPUTS}
        for name in ("labels", "confidence", "probabilities"):
            np.testing.assert_array_equal(joined[name], together[name], err_msg=f"{name} {split}")
        np.testing.assert_array_equal(joined["summary"][:, :3], together["summary"][:, :3])
        # Engines add floats from the first aligned address on, which moves with the place in the
        # batch: means over pixels may differ in the last bit.
        np.testing.assert_allclose(joined["summary"], together["summary"], rtol=1e-6)


def test_it_keeps_no_state(predictor):
    first, second = _images(1, 11, 12, seed=1), _images(2, 15, 8, seed=2)
    before = predictor.predict(first, OUTPUTS)
    kept = {name: value.copy() for name, value in before.items()}
    predictor.predict(second, OUTPUTS)
    predictor.predict(second, ("labels",))
    _assert_same(before, kept)  # what was returned is the caller's
    _assert_same(predictor.predict(first, OUTPUTS), kept)


def test_it_leaves_the_images_alone(predictor):
    images = _images(2, 10, 10)
    images.setflags(write=False)
    copy = images.copy()
    predictor.predict(images, OUTPUTS)
    np.testing.assert_array_equal(images, copy)


def test_many_threads_get_what_one_gets(predictor):
    batches = [_images(1 + i % 2, 9 + 4 * (i % 3), 12, seed=i) for i in range(3)]
    wanted = [OUTPUTS, ("labels",)]
    work = [(batch, outputs) for batch in batches for outputs in wanted] * 6
    serial = [predictor.predict(*item) for item in work]
    with ThreadPoolExecutor(8) as pool:
        parallel = list(pool.map(lambda item: predictor.predict(*item), work))
    for found, expected in zip(parallel, serial, strict=True):
        _assert_same(found, expected)


@pytest.mark.parametrize(
    "view",
    [
        lambda images: images[:, ::-1],
        lambda images: images[:, ::2, ::3],
        lambda images: images.transpose(0, 2, 1, 3),
        lambda images: images[..., ::-1],
        np.asfortranarray,
    ],
    ids=["flipped", "strided", "transposed", "bgr", "fortran"],
)
def test_any_memory_layout_is_taken(predictor, view):
    images = view(_images(2, 14, 15))
    expected = predictor.predict(np.ascontiguousarray(images), OUTPUTS)
    _assert_same(predictor.predict(images, OUTPUTS), expected)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("shape", "dtype", "message"),
    [
        ((6, 8, 3), "uint8", "a batch of shape (6, 8, 3) was given. Give (N, H, W, C); "
         "image[None] makes a batch of one image."),
        ((1, 6, 8, 3), "float32", "pixels are float32, the model takes uint8. Convert the image "
         "to uint8 in the value range the model was trained on."),
        ((1, 6, 8, 1), "uint8", "the image has 1 channels, the model takes 3."),
        ((1, 0, 8, 3), "uint8", "a batch of shape (1, 0, 8, 3) holds no pixels."),
    ],
)  # fmt: skip
def test_images_that_do_not_fit_are_refused(predictor, shape, dtype, message):
    with pytest.raises(ImageError) as caught:
        predictor.predict(np.zeros(shape, dtype), ("labels",))
    assert str(caught.value) == message


@pytest.mark.usefixtures("unchecked")
def test_an_unknown_output_is_refused(predictor):
    with pytest.raises(SettingsError) as caught:
        predictor.predict(_images(1, 4, 4), ("labels", "mask"))
    assert str(caught.value) == (
        "asked for outputs mask. Choose from labels, confidence, probabilities, summary."
    )


@pytest.mark.parametrize("other", ["openvino", "pytorch"])
def test_engines_agree(network, other):
    first, second = MAKERS["onnxruntime"](network), MAKERS[other](network)
    for height, width in ((4, 4), (20, 32), (32, 24)):  # multiples, which nobody pads
        images = _images(2, height, width, seed=height)
        a, b = first.predict(images, OUTPUTS), second.predict(images, OUTPUTS)
        np.testing.assert_array_equal(a["labels"], b["labels"])
        for name in ("confidence", "probabilities"):
            assert np.abs(a[name].astype(int) - b[name]).max() <= 1
        np.testing.assert_allclose(a["summary"], b["summary"], atol=1e-5)


@pytest.mark.parametrize("kind", ["onnxruntime", "openvino", "pytorch"])
@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_foreign_byte_order_is_read_right(network, kind, dtype):
    """Arrays of big-endian TIFF files say '>u2', whose name is uint16 like any other."""
    spec = PredictorSpec(CLASSES, "multiclass", 3, dtype)
    wrapping = Wrapping(3, dtype, "multiclass", 3, NORMALISATION)
    if kind == "pytorch":
        made = TorchPredictor(_torch(network)._module, spec, NORMALISATION)
    else:
        engine = OnnxRuntimePredictor if kind == "onnxruntime" else OpenVinoPredictor
        made = engine(finish(network.model, wrapping), spec)
    images = _images(1, 8, 9).astype(dtype)
    foreign = images.astype(images.dtype.newbyteorder())
    _assert_same(made.predict(foreign, OUTPUTS), made.predict(images, OUTPUTS))
