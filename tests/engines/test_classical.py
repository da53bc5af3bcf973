"""Otsu and the colour table: what they find on images made for them, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from delineate.engines.classical import ColourPredictor, OtsuPredictor
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


@pytest.fixture(params=[OtsuPredictor, ColourPredictor])
def control(request: pytest.FixtureRequest) -> OtsuPredictor | ColourPredictor:
    fitted: OtsuPredictor | ColourPredictor = request.param.fit(
        (_scene(seed) for seed in range(4)), CLASSES, "cell"
    )
    return fitted


def test_a_control_finds_what_colour_tells(control: OtsuPredictor | ColourPredictor) -> None:
    image, labels = _scene(9)
    found = control.predict(image[None])["labels"][0]
    assert found.dtype == np.uint8
    assert ((found == 1) == (labels == 1)).mean() > 0.97


def test_the_colour_table_tells_all_classes() -> None:
    fitted = ColourPredictor.fit([_scene(0)], CLASSES, "cell", blur_px=0.0)
    image, labels = _scene(1)
    assert (fitted.predict(image[None])["labels"][0] == labels).all()


def test_a_control_is_a_predictor(control: OtsuPredictor | ColourPredictor) -> None:
    predictor: Predictor = control
    assert predictor.spec.classes == CLASSES
    assert predictor.spec.task == "multiclass"
    assert predictor.spec.channels == 3
    assert predictor.spec.dtype == "uint8"


def test_all_outputs_agree_with_each_other(control: OtsuPredictor | ColourPredictor) -> None:
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


@pytest.mark.parametrize("kind", [OtsuPredictor, ColourPredictor])
def test_grey_images_work(kind: type[OtsuPredictor] | type[ColourPredictor]) -> None:
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


@pytest.mark.parametrize("kind", [OtsuPredictor, ColourPredictor])
def test_fitting_refuses_by_name(kind: type[OtsuPredictor] | type[ColourPredictor]) -> None:
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


def test_predicting_refuses_what_does_not_fit(control: OtsuPredictor | ColourPredictor) -> None:
    image, _ = _scene(0)
    with pytest.raises(ImageError, match="1 channels"):
        control.predict(image[None, :, :, :1])
    with pytest.raises(ImageError, match="uint16"):
        control.predict(image[None].astype(np.uint16))
    with pytest.raises(SettingsError):
        control.predict(image[None], ())
