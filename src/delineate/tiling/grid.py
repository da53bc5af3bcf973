"""Where tiles lie and how their overlap is merged.

Along one axis the tiles are spread evenly, and the blend weights of all tiles that cover a pixel
sum to exactly ``UNIT``: integers, so that sums of weighted 8-bit probabilities are exact and do
not depend on the order in which tiles arrive.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt32

UNIT = 256  # weights along one axis sum to this; UNIT**2 * 255 stays below 2**32


def tile_starts(length_px: int, tile_px: int, overlap_px: int) -> tuple[int, ...]:
    """First pixel of every tile along an axis of ``length_px`` pixels.

    As few tiles as the overlap allows, evenly spread, so neighbours overlap by ``overlap_px`` or
    more. ``length_px`` is at least ``tile_px``, ``overlap_px`` at most half of ``tile_px``.
    """
    if length_px <= tile_px:
        return (0,)
    steps = -(-(length_px - tile_px) // (tile_px - overlap_px))
    return tuple((length_px - tile_px) * step // steps for step in range(steps + 1))


def blend_weights(
    starts: tuple[int, ...], tile_px: int, overlap_px: int
) -> list[UInt32[np.ndarray, " tile"]]:
    """Weights of each tile along one axis, a partition of unity times ``UNIT``.

    Between neighbours the weight goes over linearly within ``overlap_px`` pixels in the middle of
    what they share; outside, one of the two counts alone, so pixels at a tile's very edge, where a
    network sees least context, count least.
    """
    weights = [np.full(tile_px, UNIT, np.uint32) for _ in starts]
    for left, right in zip(range(len(starts) - 1), range(1, len(starts)), strict=True):
        first, last = starts[right], starts[left] + tile_px  # the shared pixels are [first, last)
        ramp_px = min(overlap_px, last - first)
        begin = (first + last - ramp_px) // 2
        rise = _rise(ramp_px)
        in_left, in_right = begin - starts[left], begin - starts[right]
        weights[left][in_left : in_left + ramp_px] -= rise
        weights[left][in_left + ramp_px :] = 0
        weights[right][:in_right] = 0
        weights[right][in_right : in_right + ramp_px] = rise
    return weights


def _rise(ramp_px: int) -> UInt32[np.ndarray, " ramp"]:
    """A ramp between 0 and ``UNIT`` that is the same from both ends: w(i) + w(-1 - i) = UNIT."""
    rise = (np.arange(ramp_px, dtype=np.uint32) * 2 + 1) * UNIT // (2 * max(ramp_px, 1))
    half = ramp_px // 2
    rise[ramp_px - half :] = UNIT - rise[:half][::-1]  # where rounding down would be lopsided
    return np.asarray(rise, np.uint32)
