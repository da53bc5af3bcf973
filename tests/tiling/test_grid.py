"""Where tiles lie, and that their weights are a partition of unity."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from delineate.tiling.grid import UNIT, blend_weights, tile_starts


@st.composite
def axes(draw):
    """(length, tile, overlap) as they may be."""
    tile = draw(st.integers(1, 70))
    return draw(st.integers(tile, 6 * tile + 50)), tile, draw(st.integers(0, tile // 2))


def _total(length, starts, tile, weights):
    total = np.zeros(length, np.int64)
    for start, weight in zip(starts, weights, strict=True):
        total[start : start + tile] += weight
    return total


@settings(max_examples=200, deadline=None)
@given(axes())
@example((97, 64, 32))  # three tiles over one pixel
@example((65, 64, 32))
@example((64, 64, 32))
@example((1, 1, 0))
def test_weights_are_a_partition_of_unity(axis):
    length, tile, overlap = axis
    starts = tile_starts(length, tile, overlap)
    weights = blend_weights(starts, tile, overlap)
    assert (_total(length, starts, tile, weights) == UNIT).all()
    for weight in weights:
        assert weight.dtype == np.uint32
        assert weight.max() <= UNIT  # an unsigned number below zero would be huge


@settings(max_examples=100, deadline=None)
@given(axes())
def test_tiles_cover_and_overlap(axis):
    length, tile, overlap = axis
    starts = np.array(tile_starts(length, tile, overlap))
    assert starts[0] == 0
    assert starts[-1] == length - tile
    steps = np.diff(starts)
    assert (steps > 0).all()
    assert (tile - steps >= overlap).all()
    if len(steps):
        assert steps.max() - steps.min() <= 1  # evenly spread
        # one tile fewer would not overlap enough
        fewer = len(starts) - 1
        assert tile + (fewer - 1) * (tile - overlap) < length


@pytest.mark.parametrize("length", [1, 31, 32])
def test_what_fits_is_one_tile(length):
    assert tile_starts(length, 32, 8) == (0,)


def test_three_tiles_may_share_a_pixel():
    starts = tile_starts(97, 64, 32)
    weights = blend_weights(starts, 64, 32)
    assert starts == (0, 16, 33)
    at = 45
    shares = [int(weight[at - start]) for start, weight in zip(starts, weights, strict=True)]
    assert all(share > 0 for share in shares)
    assert sum(shares) == UNIT


@settings(max_examples=50, deadline=None)
@given(axes())
def test_the_edge_of_a_tile_counts_least(axis):
    """A network sees least there: over an overlap the weight only rises, then only falls."""
    length, tile, overlap = axis
    starts = tile_starts(length, tile, overlap)
    for index, weight in enumerate(blend_weights(starts, tile, overlap)):
        change = np.diff(weight.astype(np.int64))
        peak = int(weight.argmax())
        # where three tiles meet, rounding to whole numbers moves a plateau by one
        assert (change[:peak] >= -1).all()
        assert (change[peak:] <= 1).all()
        if index == 0:
            assert weight[0] == UNIT
        if index == len(starts) - 1:
            assert weight[-1] == UNIT


@pytest.mark.parametrize("overlap", [1, 2, 7, 16])
def test_a_ramp_is_the_same_from_both_sides(overlap):
    first, second = blend_weights((0, 32 - overlap), 32, overlap)
    np.testing.assert_array_equal(first, second[::-1])
    assert first[32 - overlap - 1] == UNIT
    assert first[31] <= UNIT // 2
