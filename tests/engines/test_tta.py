"""Mirrored and turned views of an image, averaged."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from delineate.engines.check import check_batch
from delineate.engines.tta import TtaPredictor
from delineate.errors import SettingsError
from delineate.types import OUTPUTS, Prediction, Predictor, PredictorSpec


class Lopsided:
    """Says what each pixel's neighbour to the left and above is, so that direction matters."""

    def __init__(self, classes=3, fixed_hw=None):
        names = tuple(f"c{i}" for i in range(classes))
        self.spec = PredictorSpec(names, "multiclass", 3, "uint8", fixed_hw=fixed_hw)
        self.shapes = []

    def predict(self, images, outputs=("labels",)):
        check_batch(images, outputs, self.spec)
        assert images.flags.c_contiguous
        self.shapes.append(images.shape)
        seen = np.roll(images.astype(np.int64), (1, 1), axis=(1, 2)) * 2 + images + 1
        planes = np.moveaxis(seen, -1, 1) / seen.sum(axis=-1)[:, None]
        assert tuple(outputs) == ("probabilities",)
        return Prediction(probabilities=np.rint(planes * 255).astype(np.uint8))


def _images(seed, count=2, height=5, width=7):
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3)).astype(np.uint8)


def _raw(images):
    return Lopsided().predict(images, ("probabilities",))["probabilities"].astype(int)


def test_flips_are_the_mean_of_two():
    images = _images(0)
    found = TtaPredictor(Lopsided(), "flips").predict(images, OUTPUTS)
    sums = _raw(images) + _raw(np.ascontiguousarray(images[:, :, ::-1]))[..., ::-1]
    np.testing.assert_array_equal(found["probabilities"], (sums + 1) // 2)
    np.testing.assert_array_equal(found["labels"], sums.argmax(axis=1))
    np.testing.assert_array_equal(found["confidence"], (sums.max(axis=1) + 1) // 2)
    shares = [(found["labels"] == k).mean(axis=(1, 2)) for k in range(3)]
    np.testing.assert_allclose(found["summary"][:, :3], np.stack(shares, 1), rtol=1e-6)
    planes = sums / sums.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(
        found["summary"][:, 3], planes.max(axis=1).mean(axis=(1, 2)), rtol=1e-5
    )
    entropy = -(planes * np.log(planes)).sum(axis=1).mean(axis=(1, 2))
    np.testing.assert_allclose(found["summary"][:, 4], entropy, rtol=1e-5)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.integers(0, 3), st.booleans())
def test_dihedral_turns_with_the_image(seed, turns, mirrored):
    predictor = TtaPredictor(Lopsided(), "dihedral")
    images = _images(seed)
    turned = np.rot90(images, turns, axes=(1, 2))
    turned = turned[:, :, ::-1] if mirrored else turned
    plain, found = predictor.predict(images, OUTPUTS), predictor.predict(turned.copy(), OUTPUTS)
    for name in ("labels", "confidence", "probabilities"):
        expected = np.rot90(plain[name], turns, axes=(-2, -1))
        expected = expected[..., ::-1] if mirrored else expected
        if name != "labels":  # a tie goes to the first class either way, but sums are the same
            np.testing.assert_array_equal(found[name], expected)
    np.testing.assert_array_equal(
        found["labels"],
        (np.rot90(plain["labels"], turns, axes=(1, 2))[..., :: -1 if mirrored else 1]),
    )


def test_every_view_once():
    inner = Lopsided()
    TtaPredictor(inner, "dihedral").predict(_images(0))
    assert sorted(inner.shapes) == [(2, 5, 7, 3)] * 4 + [(2, 7, 5, 3)] * 4
    inner = Lopsided()
    TtaPredictor(inner, "flips").predict(_images(0))
    assert inner.shapes == [(2, 5, 7, 3)] * 2


@pytest.mark.parametrize("views", ["flips", "dihedral"])
@pytest.mark.parametrize("outputs", [("labels",), ("summary", "confidence"), OUTPUTS])
def test_it_is_a_predictor(views, outputs):
    predictor = TtaPredictor(Lopsided(), views)
    assert isinstance(predictor, Predictor)
    assert predictor.spec == Lopsided().spec
    assert set(predictor.predict(_images(1), outputs)) == set(outputs)


def test_what_every_view_agrees_on_stays():
    images = np.full((1, 4, 6, 3), 9, np.uint8)
    images[..., 1] = 200
    found = TtaPredictor(Lopsided(), "dihedral").predict(images, ("labels", "probabilities"))
    np.testing.assert_array_equal(found["probabilities"], _raw(images))
    assert (found["labels"] == 1).all()


def test_unknown_views():
    with pytest.raises(SettingsError) as caught:
        TtaPredictor(Lopsided(), "rotations")
    assert str(caught.value) == (
        "--tta: 'rotations' is no test-time augmentation. Choose from flips, dihedral."
    )


def test_a_network_of_one_size():
    square = TtaPredictor(Lopsided(fixed_hw=(8, 8)), "dihedral")
    assert square.predict(_images(0, 1, 8, 8))["labels"].shape == (1, 8, 8)
    assert TtaPredictor(Lopsided(fixed_hw=(6, 8)), "flips").spec.fixed_hw == (6, 8)
    with pytest.raises(SettingsError) as caught:
        TtaPredictor(Lopsided(fixed_hw=(6, 8)), "dihedral")
    assert str(caught.value) == (
        "--tta: the network takes images of 8 x 6 px (width x height) only, and turned ones do "
        "not fit. Use --tta flips."
    )
