"""Classical methods: what they find on images made for them, and what they refuse."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from delineate.engines.classical import (
    ColourPredictor,
    ForestPredictor,
    GrabCutPredictor,
    KMeansPredictor,
    MultiOtsuPredictor,
    OtsuPredictor,
    WatershedPredictor,
)
from delineate.engines.classical.forest import features
from delineate.errors import ImageError, SettingsError
from delineate.types import OUTPUTS, Predictor

CLASSES = ("background", "cell", "dirt")


def _scene(seed: int, channels: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Dark red cells and a little green dirt on bright grey."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((48, 64), np.uint8)
    row, column = rng.integers(0, 24, 2)
    labels[row : row + 20, column : column + 24] = 1
    labels[:3, :5] = 2
    colours = np.array([[200, 200, 200], [120, 30, 40], [40, 150, 60]], np.float64)
    image = colours[labels] + rng.normal(0, 5, (48, 64, 3))
    return np.rint(image).astype(np.uint8)[..., :channels], labels


METHODS = [
    OtsuPredictor,
    MultiOtsuPredictor,
    ColourPredictor,
    KMeansPredictor,
    WatershedPredictor,
    ForestPredictor,
]
Control = Any  # any of them


@pytest.fixture(scope="module", params=METHODS)
def control(request: pytest.FixtureRequest) -> Control:
    return request.param.fit((_scene(seed) for seed in range(4)), CLASSES, "cell")


def test_a_control_finds_what_colour_tells(control: Control) -> None:
    image, labels = _scene(9)
    found = control.predict(image[None])["labels"][0]
    assert found.dtype == np.uint8
    assert ((found == 1) == (labels == 1)).mean() > 0.97


def test_the_colour_table_tells_all_classes() -> None:
    fitted = ColourPredictor.fit([_scene(0)], CLASSES, "cell", blur_px=0.0)
    image, labels = _scene(1)
    assert (fitted.predict(image[None])["labels"][0] == labels).all()


def test_a_control_is_a_predictor(control: Control) -> None:
    predictor: Predictor = control
    assert predictor.spec.classes == CLASSES
    assert predictor.spec.task == "multiclass"
    assert predictor.spec.channels == 3
    assert predictor.spec.dtype == "uint8"


def test_all_outputs_agree_with_each_other(control: Control) -> None:
    images = np.stack([_scene(seed)[0] for seed in (5, 6)])
    result = control.predict(images, OUTPUTS)
    assert set(result) == set(OUTPUTS)
    labels, probabilities = result["labels"], result["probabilities"]
    assert probabilities.shape == (2, 3, 48, 64)
    assert probabilities.dtype == np.uint8
    assert np.abs(probabilities.astype(int).sum(1) - 255).max() <= 1
    np.testing.assert_array_equal(
        np.take_along_axis(probabilities, labels[:, None].astype(np.int64), 1)[:, 0],
        result["confidence"],
    )
    np.testing.assert_array_equal(probabilities.max(1), result["confidence"])
    summary = result["summary"]
    assert summary.dtype == np.float32
    assert summary.shape == (2, len(control.spec.summary_names))
    for k in range(3):
        np.testing.assert_allclose(summary[:, k], (labels == k).mean((1, 2)), atol=1e-6)
    np.testing.assert_allclose(
        summary[:, 3], result["confidence"].mean((1, 2)) / 255, atol=0.5 / 255
    )
    assert (summary[:, 4] >= 0).all()
    assert (summary[:, 4] <= np.log(3) + 1e-6).all()


def test_otsu_is_certain() -> None:
    fitted = OtsuPredictor.fit([_scene(0)], CLASSES, "cell")
    result = fitted.predict(_scene(1)[0][None], OUTPUTS)
    assert set(np.unique(result["probabilities"])) == {0, 255}
    assert (result["confidence"] == 255).all()
    assert result["summary"][0, 3:].tolist() == [1.0, 0.0]


def test_otsu_takes_the_channel_side_and_background_that_training_shows() -> None:
    labels = np.zeros((32, 32), np.uint8)
    labels[8:24, 8:24] = 1
    image = np.full((32, 32, 3), 90, np.uint8)
    image[..., 1] = np.where(labels == 1, 130, 90)
    image[..., 0] = np.random.default_rng(0).integers(0, 255, (32, 32))
    fitted = OtsuPredictor.fit([(image, labels)], ("empty", "full"), "full")
    assert (fitted.channel, fitted.bright) == ("green", True)
    assert (fitted.foreground, fitted.other) == (1, 0)
    assert fitted.spec.task == "binary"
    turned = OtsuPredictor.fit([(image, labels)], ("empty", "full"), "empty")
    assert (turned.channel, turned.bright, turned.other) == ("green", False, 1)
    assert (turned.predict(image[None])["labels"][0] == labels).all()


@settings(max_examples=15, deadline=None)
@given(st.sets(st.sampled_from(OUTPUTS), min_size=1), st.integers(1, 3))
def test_only_what_was_asked_for_and_one_by_one_the_same(names: set[str], count: int) -> None:
    fitted = ColourPredictor.fit([_scene(0)], CLASSES, "cell")
    images = np.stack([_scene(seed)[0] for seed in range(count)])
    outputs = [name for name in OUTPUTS if name in names]
    together = fitted.predict(images, outputs)
    assert set(together) == names
    for index in range(count):
        alone = fitted.predict(images[index : index + 1], outputs)
        for name in outputs:
            np.testing.assert_array_equal(alone[name][0], together[name][index])


@pytest.mark.parametrize("kind", METHODS)
def test_grey_images_work(kind: Any) -> None:
    fitted = kind.fit([_scene(0, channels=1)], CLASSES, "cell")
    assert fitted.spec.channels == 1
    image, labels = _scene(3, channels=1)
    found = fitted.predict(image[None])["labels"][0]
    assert ((found == 1) == (labels == 1)).mean() > 0.9


@pytest.mark.parametrize("kind", [OtsuPredictor, ColourPredictor])
def test_ignored_pixels_do_not_count(kind: type[OtsuPredictor] | type[ColourPredictor]) -> None:
    image, labels = _scene(0)
    hidden = np.where(labels == 2, 255, labels).astype(np.uint8)
    odd = image.copy()
    odd[labels == 2] = (120, 30, 40)
    one, other = (kind.fit([(im, hidden)], CLASSES, "cell") for im in (image, odd))
    probe = _scene(4)[0][None]
    if kind is ColourPredictor:  # Otsu's threshold itself sees the whole image
        one, other = (kind.fit([(im, hidden)], CLASSES, "cell", blur_px=0.0) for im in (image, odd))
    np.testing.assert_array_equal(one.predict(probe)["labels"], other.predict(probe)["labels"])


def test_a_colour_never_seen_has_the_class_of_its_neighbours() -> None:
    image = np.zeros((8, 8, 3), np.uint8)
    image[:4] = 255
    labels = np.zeros((8, 8), np.uint8)
    labels[:4] = 1
    fitted = ColourPredictor.fit([(image, labels)], ("dark", "light"), "light", blur_px=0.0)
    probe = np.array([20, 235], np.uint8)[None, None, :, None].repeat(3, 3)
    assert fitted.predict(probe)["labels"].tolist() == [[[0, 1]]]


@pytest.mark.parametrize("kind", METHODS)
def test_fitting_refuses_by_name(kind: Any) -> None:
    with pytest.raises(SettingsError) as caught:
        kind.fit([_scene(0)], CLASSES, "tumour")
    assert str(caught.value) == (
        "the foreground 'tumour' is no class. Use one of: background, cell, dirt."
    )
    with pytest.raises(SettingsError) as caught:
        kind.fit([], CLASSES, "cell")
    assert str(caught.value) == (
        "there is no labelled pixel to fit on. Give at least one image with a mask."
    )
    image, labels = _scene(0)
    with pytest.raises(SettingsError):
        kind.fit([(image, np.full_like(labels, 255))], CLASSES, "cell")
    with pytest.raises(ImageError) as refused:
        kind.fit([(image.astype(np.uint16), labels)], CLASSES, "cell")
    assert str(refused.value) == (
        "the image is uint16 with 3 channels. This method takes uint8 with 1 or 3 channels."
    )
    with pytest.raises(ImageError) as refused:
        kind.fit([(image, labels), (image[..., :1], labels)], CLASSES, "cell")
    assert str(refused.value) == (
        "the image is uint8 with 1 channels. This method takes uint8 with 3 channels."
    )


def test_predicting_refuses_what_does_not_fit(control: Control) -> None:
    image, _ = _scene(0)
    with pytest.raises(ImageError, match="1 channels"):
        control.predict(image[None, :, :, :1])
    with pytest.raises(ImageError, match="uint16"):
        control.predict(image[None].astype(np.uint16))
    with pytest.raises(SettingsError):
        control.predict(image[None], ())


def _binary(seed: int) -> tuple[np.ndarray, np.ndarray]:
    image, labels = _scene(seed)
    return image, np.minimum(labels, 1) * (labels != 2)


def test_grabcut_cuts_out_one_of_two_classes() -> None:
    fitted = GrabCutPredictor.fit([_binary(seed) for seed in range(3)], ("rest", "cell"), "cell")
    image, labels = _binary(9)
    first = fitted.predict(image[None], OUTPUTS)
    assert (first["labels"][0] == labels).mean() > 0.97
    again = fitted.predict(image[None], OUTPUTS)
    for name in OUTPUTS:  # its clusters are seeded
        np.testing.assert_array_equal(first[name], again[name])
    with pytest.raises(SettingsError, match="two classes apart, not 3"):
        GrabCutPredictor.fit([_scene(0)], CLASSES, "cell")
    with pytest.raises(SettingsError, match="needs colour"):
        GrabCutPredictor.fit([(_binary(0)[0][..., :1], _binary(0)[1])], ("rest", "cell"), "cell")


def test_grabcut_without_anything_to_cut_out() -> None:
    fitted = GrabCutPredictor.fit([_binary(0)], ("rest", "cell"), "cell")
    plain = np.full((1, 20, 24, 3), 200, np.uint8)
    assert not fitted.predict(plain)["labels"].any()


def test_multi_otsu_tells_as_many_bands_as_there_are() -> None:
    labels = np.repeat(np.arange(3, dtype=np.uint8), 16)[:, None].repeat(40, 1)
    rng = np.random.default_rng(0)
    image = (np.array([30, 120, 210])[labels] + rng.integers(-9, 10, labels.shape))[..., None]
    fitted = MultiOtsuPredictor.fit([(image.astype(np.uint8), labels)], ("a", "b", "c"), "b")
    assert fitted.band_classes == (0, 1, 2)
    shifted = (image + 20).astype(np.uint8)  # thresholds are found anew
    assert (fitted.predict(shifted[None])["labels"][0] == labels).mean() > 0.99


@pytest.mark.parametrize("values", [(7,), (7, 200), (7, 90, 200)])
def test_multi_otsu_on_an_image_of_few_values(values: tuple[int, ...]) -> None:
    fitted = MultiOtsuPredictor.fit([_scene(seed) for seed in range(3)], CLASSES, "cell")
    image = np.resize(np.array(values, np.uint8), (1, 12, 10, 1)).repeat(3, 3)
    found = fitted.predict(image)["labels"][0]
    assert len(np.unique(found)) <= len(values)
    darkest = found[image[0, :, :, 0] == min(values)]
    assert (darkest == fitted.band_classes[0]).all()


def test_the_watershed_moves_a_border_to_the_edge_of_the_image() -> None:
    """A soft shadow around the cell fools the threshold; the steepest place is the true edge."""
    labels = np.zeros((60, 60), np.uint8)
    labels[15:45, 15:45] = 1
    outside = cv2.distanceTransform(1 - labels, cv2.DIST_L2, 5)
    light = np.where(labels == 1, 40.0, 200 - 110 * np.clip(1 - outside / 8, 0, 1))
    image = np.repeat(light[..., None], 3, 2).astype(np.uint8)
    fitted = WatershedPredictor.fit([(image, labels)], ("rest", "cell"), "cell")
    plain = OtsuPredictor.fit([(image, labels)], ("rest", "cell"), "cell")
    wrong = [
        int((one.predict(image[None])["labels"][0] != labels).sum()) for one in (plain, fitted)
    ]
    assert wrong[1] < 0.5 * wrong[0]
    found = fitted.predict(image[None], ("probabilities",))["probabilities"]
    assert set(np.unique(found)) == {0, 255}


def test_a_forest_tells_texture_that_colour_does_not() -> None:
    rng = np.random.default_rng(0)
    labels = np.zeros((64, 64), np.uint8)
    labels[:, 32:] = 1
    rough = 128 + np.where(labels == 1, 1, 0) * rng.choice((-60, 60), labels.shape)
    image = rough[..., None].astype(np.uint8)
    forest = ForestPredictor.fit([(image, labels)], ("smooth", "rough"), "rough")
    again = ForestPredictor.fit([(image, labels)], ("smooth", "rough"), "rough")
    found = forest.predict(image[None])["labels"][0]
    assert (found == labels).mean() > 0.95
    np.testing.assert_array_equal(found, again.predict(image[None])["labels"][0])


def test_a_forest_without_a_class_never_says_it() -> None:
    image, labels = _scene(0)
    forest = ForestPredictor.fit([(image, np.where(labels == 2, 255, labels))], CLASSES, "cell")
    assert forest.columns == (0, 1)
    found = forest.predict(image[None], ("probabilities",))["probabilities"]
    assert not found[:, 2].any()


def test_features_of_a_slope_and_of_a_ridge() -> None:
    """The gradient of a slope is the same everywhere; a ridge has one strong curvature."""
    slope = np.tile(np.arange(64, dtype=np.uint8) * 2, (64, 1))[..., None]
    found = np.stack(list(features(slope)), axis=2)
    assert found.shape == (64, 64, 16)
    inner = found[16:48, 16:48]
    assert np.ptp(inner[:, :, 1]) < 0.02 * inner[:, :, 1].max()
    assert np.abs(inner[:, :, 2:4]).max() < 0.05 * inner[:, :, 1].max()
    ridge = np.zeros((64, 64, 1), np.uint8)
    ridge[:, 31:33] = 255
    middle = [plane[32, 32] for plane in features(ridge)]
    assert middle[7] < -5 * abs(middle[6])  # bright: the lower eigenvalue is far below 0
