"""Normalisation by image: every engine, every tile and every wrapper uses that of the whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from delineate.bundle.graph import Wrapping, finish
from delineate.config import Normalisation, TilingSettings
from delineate.engines.onnxruntime import OnnxRuntimePredictor
from delineate.engines.openvino import OpenVinoPredictor
from delineate.engines.pytorch import TorchPredictor
from delineate.engines.scaling import batch_scalings, graph_inputs, image_scaling, scaled_for
from delineate.engines.tta import TtaPredictor
from delineate.tiling.segment import segment
from delineate.types import (
    OUTPUTS,
    Images,
    Output,
    PerImagePredictor,
    Prediction,
    Predictor,
    PredictorSpec,
)

SPEC = PredictorSpec(("rest", "cell"), "multiclass", 3, "uint8", normalised_by_image=True)
BY_IMAGE = Normalisation(by="image", mean=(100.0,) * 3, std=(50.0,) * 3)
ENGINES = ("onnxruntime", "openvino", "pytorch")
TILING = TilingSettings(tile_px=32, overlap_px=8)


def shaded(height: int = 80, width: int = 96, seed: int = 0) -> np.ndarray:
    """Bright on the left and dark on the right, so that no tile is like the whole."""
    rng = np.random.default_rng(seed)
    shade = np.linspace(120, 10, width)[None, :, None]
    return (shade + rng.integers(0, 40, (height, width, 3))).astype(np.uint8)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("channels", [1, 3, 4, 6])
def test_each_channel_comes_to_mean_0_and_deviation_1(dtype: str, channels: int) -> None:
    rng = np.random.default_rng(channels)
    image = (rng.gamma(2.0, 20.0, (50, 61, channels)) * np.arange(1, channels + 1)).astype(dtype)
    scale, offset = image_scaling(image)
    found = image.reshape(-1, channels).astype(np.float64) * scale + offset
    np.testing.assert_allclose(found.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(found.std(0), 1, atol=1e-4)


def test_what_is_no_number_does_not_count() -> None:
    image = np.random.default_rng(0).normal(5, 2, (20, 30, 2)).astype(np.float32)
    wanted = image_scaling(image[10:])
    image[:10] = np.nan
    image[0, 0, 0] = np.inf
    np.testing.assert_allclose(image_scaling(image), wanted, rtol=1e-5)
    image[:] = np.nan
    np.testing.assert_array_equal(image_scaling(image), [[1, 1], [0, 0]])


@pytest.mark.parametrize("value", [0.0, 7.0, 3e7])
def test_a_channel_of_one_value_becomes_nought(value: float) -> None:
    image = np.full((9, 9, 1), value, np.float32)
    scale, offset = image_scaling(image)
    assert scale == 1
    assert value * scale + offset == 0


class _Torch(nn.Module):
    def __init__(self, weight: np.ndarray, bias: np.ndarray) -> None:
        super().__init__()
        self.inner = nn.Conv2d(3, 2, 3, padding=1)
        self.inner.weight = nn.Parameter(torch.from_numpy(weight))
        self.inner.bias = nn.Parameter(torch.from_numpy(bias))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.inner(x)
        return found


@pytest.fixture(scope="module")
def make(tiny_network: Any) -> Callable[[str, Normalisation], Any]:
    def predictor(engine: str, normalisation: Normalisation) -> Any:
        spec = replace(SPEC, normalised_by_image=normalisation.by == "image")
        if engine == "pytorch":
            module = _Torch(tiny_network.weight, tiny_network.bias).eval()
            return TorchPredictor(module, spec, normalisation)
        graph = finish(tiny_network.model, Wrapping(3, "uint8", "multiclass", 2, normalisation))
        kinds = {"onnxruntime": OnnxRuntimePredictor, "openvino": OpenVinoPredictor}
        return kinds[engine](graph, spec)

    return predictor


@pytest.mark.parametrize("engine", ENGINES)
def test_images_of_a_batch_are_normalised_each_by_itself(engine: str, make: Any) -> None:
    images = np.stack([shaded(), shaded(seed=1) // 3])
    together = make(engine, BY_IMAGE).predict(images, OUTPUTS)
    for index, image in enumerate(images):
        flat = image.reshape(-1, 3).astype(np.float64)
        own = Normalisation(mean=tuple(flat.mean(0)), std=tuple(flat.std(0)))
        wanted = make(engine, own).predict(image[None], OUTPUTS)
        assert (together["labels"][index] == wanted["labels"][0]).mean() > 0.999
        apart = together["probabilities"][index].astype(int) - wanted["probabilities"][0]
        assert np.abs(apart).max() <= 1
        np.testing.assert_allclose(together["summary"][index], wanted["summary"][0], atol=1e-3)


@pytest.mark.parametrize("engine", ENGINES)
def test_exposure_changes_nothing(engine: str, make: Any) -> None:
    image = shaded()
    predictor = make(engine, BY_IMAGE)
    dark = predictor.predict(image[None] // 2 * 2, ("labels",))["labels"]
    bright = predictor.predict(image[None] // 2 + 40, ("labels",))["labels"]
    assert (dark == bright).mean() > 0.999


@pytest.mark.parametrize("engine", ENGINES)
def test_tiles_are_normalised_by_the_whole_image(engine: str, make: Any) -> None:
    image = shaded()
    flat = image.reshape(-1, 3).astype(np.float64)
    own = Normalisation(mean=tuple(flat.mean(0)), std=tuple(flat.std(0)))
    wanted = segment(make(engine, own), image, OUTPUTS, tiling=TILING)
    found = segment(make(engine, BY_IMAGE), image, OUTPUTS, tiling=TILING)
    apart = found["probabilities"].astype(int) - wanted["probabilities"]
    assert np.abs(apart).max() <= 1
    # which is not what tiles say that are taken for whole images
    each = make(engine, BY_IMAGE).predict(image[None, :32, :32], ("probabilities",))
    corner = each["probabilities"].astype(int) - found["probabilities"][:, :, :32, :32]
    assert np.abs(corner).max() > 20


@pytest.mark.parametrize("views", ["flips", "dihedral"])
def test_views_share_the_scaling_of_the_image(views: str, make: Any) -> None:
    image = shaded()
    own = image_scaling(image)
    inner = make("onnxruntime", BY_IMAGE)
    tile = image[None, :32, :32]
    found = TtaPredictor(inner, views).scaled(own).predict(tile, ("probabilities",))
    wanted = TtaPredictor(inner.scaled(own), views).predict(tile, ("probabilities",))
    np.testing.assert_array_equal(found["probabilities"], wanted["probabilities"])
    whole = TtaPredictor(inner, views).predict(tile, ("probabilities",))
    assert (whole["probabilities"] != found["probabilities"]).any()


@pytest.mark.parametrize("engine", ENGINES)
def test_a_scaled_view_leaves_its_predictor_as_it_was(engine: str, make: Any) -> None:
    predictor, image = make(engine, BY_IMAGE), shaded()
    assert isinstance(predictor, PerImagePredictor)
    before = predictor.predict(image[None], ("probabilities",))["probabilities"]
    other = predictor.scaled(image_scaling(image // 4))
    assert (other.predict(image[None], ("probabilities",))["probabilities"] != before).any()
    after = predictor.predict(image[None], ("probabilities",))["probabilities"]
    np.testing.assert_array_equal(before, after)
    assert scaled_for(predictor, image) is not predictor


def test_what_is_normalised_by_the_dataset_is_left_alone(make: Any) -> None:
    fixed = make("onnxruntime", BY_IMAGE.model_copy(update={"by": "dataset"}))
    assert scaled_for(fixed, shaded()) is fixed


def test_a_predictor_that_cannot_be_scaled_is_named() -> None:
    class Forgetful:
        spec = SPEC

        def predict(self, images: Images, outputs: Sequence[Output] = ("labels",)) -> Prediction:
            raise AssertionError(images.shape, outputs)

    forgetful: Predictor = Forgetful()
    with pytest.raises(TypeError, match=r"Forgetful is normalised by image and has no scaled"):
        scaled_for(forgetful, shaded())


def test_a_graph_says_whether_it_takes_them(tiny_network: Any) -> None:
    image = shaded()
    for normalisation in (BY_IMAGE, BY_IMAGE.model_copy(update={"by": "dataset"})):
        graph = finish(tiny_network.model, Wrapping(3, "uint8", "multiclass", 2, normalisation))
        inputs = graph_inputs(graph, image)
        assert set(inputs) == {value.name for value in graph.graph.input}
        np.testing.assert_array_equal(inputs["image"], image[None])
    np.testing.assert_array_equal(batch_scalings(image[None])[0], image_scaling(image))
