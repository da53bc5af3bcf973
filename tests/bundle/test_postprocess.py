"""Small objects and holes, on pictures drawn by hand and against scikit-image."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage import measure

from delineate.bundle.postprocess import postprocess
from delineate.config import PostprocessingSettings

MAPS = hnp.arrays(
    st.sampled_from([np.uint8, np.uint16]),
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12),
    elements=st.sampled_from([0, 0, 1, 2, 200]),
)


def _map(text):
    return np.array([[int(value) for value in row] for row in text.split()], np.uint8)


def _done(text, **wanted):
    return postprocess(_map(text), PostprocessingSettings(**wanted))


def test_small_objects_become_background():
    before = "1100002 0000020 0030000 0330011 0000011"
    after = "0000000 0000000 0030000 0330011 0000011"
    np.testing.assert_array_equal(_done(before, smallest_object_px=3), _map(after))


def test_corners_join_an_object():
    diagonal = "100 010 001"
    np.testing.assert_array_equal(_done(diagonal, smallest_object_px=3), _map(diagonal))
    assert not _done(diagonal, smallest_object_px=4).any()


def test_objects_that_touch_are_not_one():
    """Two pixels of class 1 beside three of class 2."""
    np.testing.assert_array_equal(_done("11222", smallest_object_px=3), _map("00222"))


def test_holes_take_the_class_around_them():
    before = "22222 20022 22222"
    np.testing.assert_array_equal(_done(before, largest_hole_px=2), np.full((3, 5), 2))
    np.testing.assert_array_equal(_done(before, largest_hole_px=1), _map(before))


@pytest.mark.parametrize("text", ["222 202 202", "0111 1111", "2222 2012 2222", "222 203 222"])
def test_what_is_no_hole_stays(text):
    """Open to the border, or more than one class around it."""
    expected = _map(text)
    np.testing.assert_array_equal(_done(text, largest_hole_px=9), expected)


def test_a_hole_ends_at_corners():
    """Two holes that meet at a corner are two, of one pixel each."""
    before = "1111 1011 1101 1111"
    np.testing.assert_array_equal(_done(before, largest_hole_px=1), np.ones((4, 4)))


def test_objects_go_first_then_holes():
    """A speck in a hole goes, then the hole that it leaves is filled."""
    before = "11111 10001 10201 10001 11111"
    found = _done(before, smallest_object_px=2, largest_hole_px=9)
    np.testing.assert_array_equal(found, np.ones((5, 5)))


@settings(max_examples=20, deadline=None)
@given(MAPS)
def test_nothing_asked_changes_nothing(labels):
    assert postprocess(labels, PostprocessingSettings()) is labels


@settings(max_examples=60, deadline=None)
@given(MAPS, st.integers(0, 8), st.integers(0, 8))
def test_against_scikit_image(labels, smallest, largest):
    wanted = PostprocessingSettings(smallest_object_px=smallest, largest_hole_px=largest)
    before = labels.copy()
    found = postprocess(labels, wanted)
    np.testing.assert_array_equal(labels, before)
    assert found.dtype == labels.dtype
    np.testing.assert_array_equal(found, _reference(labels, smallest, largest))


def _reference(labels, smallest, largest):
    result = labels.copy()
    for class_id in np.unique(labels[labels > 0]):
        objects = measure.label(labels == class_id, connectivity=2)
        for region in measure.regionprops(objects):
            if region.area < smallest:
                result[objects == region.label] = 0
    holes = measure.label(result == 0, connectivity=1)
    filled = result.copy()
    padded = np.pad(result.astype(int), 1, constant_values=-1)
    for region in measure.regionprops(holes):
        inside = np.pad(holes == region.label, 1)
        grown = [np.roll(inside, shift, axis) for axis in (0, 1) for shift in (-1, 1)]
        near = set(padded[np.logical_or.reduce(grown) & ~inside].tolist())
        if region.area <= largest and len(near) == 1 and near != {-1}:
            filled[holes == region.label] = near.pop()
    return filled
