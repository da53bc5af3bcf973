"""A crop laid around a pixel shows that pixel, whatever is done to it."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from delineate.config import AugmentationSettings
from delineate.data.augment import Augmentation
from delineate.data.elastic import control_places, smooth_field, spline_basis

IGNORE = 255
SIDE = 32


def spec(**fields: object) -> AugmentationSettings:
    still = {"scale": (1.0, 1.0), "rotation": 0, "elastic": 0, "colour": 0, "blur": 0, "noise": 0}
    return AugmentationSettings.model_validate(still | fields)


def marked(height: int, width: int, anchor: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """A mask in which only the anchor is 1, and an image that tells each pixel's place."""
    mask = np.zeros((height, width), np.uint8)
    mask[anchor] = 1
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns], axis=2).astype(np.float32), mask


@given(data=st.data(), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=100, deadline=None)
def test_the_anchor_is_in_the_crop(data: st.DataObject, seed: int) -> None:
    height, width = data.draw(st.integers(1, 90)), data.draw(st.integers(1, 90))
    anchor = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    changes = spec(
        scale=data.draw(st.tuples(st.floats(0.2, 3.0), st.floats(0.2, 3.0))),
        horizontal_flip=0.5,
        vertical_flip=0.5,
        rotation=data.draw(st.sampled_from([0, 1])),
        rotation_degrees=data.draw(st.floats(0, 180)),
    )
    ignore = data.draw(st.sampled_from([None, IGNORE]))
    image, mask = marked(height, width, anchor)
    shown = Augmentation(changes, SIDE, ignore)(
        image=image, mask=mask, rng=np.random.default_rng(seed), anchor=anchor
    )
    places = shown["image"][shown["mask"] == 1]
    assert len(places)
    # the nearest neighbour of one of these pixels is the anchor exactly
    assert np.abs(places - anchor).max(axis=1).min() < 0.04


@pytest.mark.parametrize("anchor", list(product((0, 17, 59), (0, 40, 79))))
def test_an_anchored_crop_stays_in_the_image_and_lies_anywhere(anchor: tuple[int, int]) -> None:
    image, mask = marked(60, 80, anchor)
    augment = Augmentation(spec(), SIDE, IGNORE)
    corners = set()
    for seed in range(400):
        rng = np.random.default_rng(seed)
        shown = augment(image=image, mask=mask, rng=rng, anchor=anchor)
        assert (shown["mask"] == IGNORE).sum() == 0
        corners.add((shown["image"][..., 0].min(), shown["image"][..., 1].min()))
    for axis, size in enumerate((60, 80)):
        low = max(0, anchor[axis] - SIDE + 1)
        high = min(anchor[axis], size - SIDE)
        assert {corner[axis] for corner in corners} == set(range(low, high + 1))


def test_a_zoomed_anchored_crop_stays_in_the_image() -> None:
    rng = np.random.default_rng(0)
    for _ in range(150):
        anchor = int(rng.integers(60)), int(rng.integers(80))
        image, mask = marked(60, 80, anchor)
        augment = Augmentation(spec(scale=(0.6, 2.0)), SIDE, IGNORE)
        shown = augment(image=image, mask=mask, rng=rng, anchor=anchor)
        # half a pixel of the crop may stick out, so that the anchor lies on a whole one
        outside = shown["mask"] == IGNORE
        assert not outside[1:-1, 1:-1].any()


def test_without_an_anchor_nothing_is_drawn_differently() -> None:
    image, mask = marked(60, 80, (3, 4))
    augment = Augmentation(AugmentationSettings(), SIDE, IGNORE)
    free, told = np.random.default_rng(1), np.random.default_rng(1)
    augment(image=image, mask=mask, rng=free)
    augment(image=image, mask=mask, rng=told, anchor=(30, 30))
    assert free.random() == told.random()


@given(size=st.integers(1, 300), spacing=st.integers(4, 80))
@settings(max_examples=30, deadline=None)
def test_control_points_on_a_straight_line_give_the_line(size: int, spacing: int) -> None:
    basis = spline_basis(size, spacing)
    places = control_places(basis.shape[1], spacing)
    slope = (3 * places + 2 * places[:, None] + 5).astype(np.float32)
    line = np.arange(size)
    expected = 3 * line + 2 * line[:, None] + 5
    np.testing.assert_allclose(smooth_field(basis, slope), expected, rtol=1e-5, atol=1e-3)
