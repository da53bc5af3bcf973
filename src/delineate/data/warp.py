"""One warp for zoom, flips, rotation and elastic displacement, read from a window of the image."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import cv2
import numpy as np
from jaxtyping import Float32, Float64, Shaped, UInt

from delineate.data.elastic import smooth_field
from delineate.types import Image, LabelMap

_MOST_CHANNELS = 4  # of OpenCV's warps; further channels go in groups
_MARGIN_PX = 2  # neighbours that bilinear sampling reads, and rounding

Crop: TypeAlias = Shaped[np.ndarray, "side side c"]
CropMask: TypeAlias = UInt[np.ndarray, "side side"]


def source_of_pixel(
    side: int,
    zoom: float,
    angle: float,
    flips: tuple[bool, bool],
    pivot: tuple[float, float],
    at: tuple[float, float],
) -> Float64[np.ndarray, "2 3"]:
    """The matrix that takes a pixel (x, y, 1) of the crop to its place in the source.

    Args:
        side: of the crop, pixels.
        zoom: crop pixels for one source pixel.
        angle: degrees.
        flips: horizontal, vertical.
        pivot: the place (x, y) in the crop, before the flips, about which it is rotated.
        at: the place (x, y) in the source that lies there; centres of pixels are whole numbers.
    """
    cos, sin = math.cos(math.radians(angle)) / zoom, math.sin(math.radians(angle)) / zoom
    signs = np.where(flips, -1.0, 1.0)
    linear = np.array([[cos, -sin], [sin, cos]]) * signs
    flipped = np.where(flips, side - 1 - np.array(pivot), pivot)
    return np.column_stack([linear, np.array(at) - linear @ flipped])


def warp_affine(
    image: Image,
    mask: LabelMap,
    matrix: Float64[np.ndarray, "2 3"],
    side: int,
    ignore_index: int | None,
) -> tuple[Crop, CropMask]:
    """The crop of ``side`` pixels that ``matrix`` describes, of image and mask.

    Outside of the image it is reflected; the mask holds ``ignore_index`` there, or is reflected
    too where there is none.
    """
    image, mask, offset = _window(image, mask, matrix, side, np.zeros(2))
    inner = matrix - np.pad(offset[:, None], ((0, 0), (2, 0)))

    def warp(array: Any, interpolation: int, border: int, fill: int) -> Any:
        flags = interpolation | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(
            array, inner, (side, side), flags=flags, borderMode=border, borderValue=fill
        )

    return _both(image, mask, warp, ignore_index)


def warp_elastic(
    image: Image,
    mask: LabelMap,
    matrix: Float64[np.ndarray, "2 3"],
    basis: Float32[np.ndarray, "side p"],
    places: Float64[np.ndarray, " p"],
    shift: Float64[np.ndarray, "2 p p"],
    ignore_index: int | None,
) -> tuple[Crop, CropMask]:
    """As :func:`warp_affine`, with displaced control points.

    Args:
        image, mask, matrix, ignore_index: as there.
        basis: of :func:`~delineate.data.elastic.spline_basis`, for the side of the crop.
        places: of the control points along a side, pixels of the crop.
        shift: of each control point (x and y, row, column), in pixels of the crop.
    """
    side = len(basis)
    shift = np.einsum("ij,jyx->iyx", matrix[:, :2], shift)
    reach = np.abs(shift).max(axis=(1, 2))
    image, mask, offset = _window(image, mask, matrix, side, reach)
    # B-splines repeat straight lines: with the affine map in the control points, one surface is all
    x, y = places, places[:, None]
    map_x, map_y = (
        smooth_field(basis, (row[0] * x + row[1] * y + row[2] - first + moved).astype(np.float32))
        for row, first, moved in zip(matrix, offset, shift, strict=True)
    )

    def warp(array: Any, interpolation: int, border: int, fill: int) -> Any:
        return cv2.remap(array, map_x, map_y, interpolation, borderMode=border, borderValue=fill)

    return _both(image, mask, warp, ignore_index)


def in_groups(
    image: Image, change: Callable[[Any], Any]
) -> Shaped[np.ndarray, "changed_h changed_w c"]:
    """``change`` applied to at most four channels at once; (H, W, C) again."""
    channels = image.shape[2]
    if channels <= _MOST_CHANNELS:
        changed = change(image)
        single: np.ndarray = changed.reshape(*changed.shape[:2], channels)
        return single  # with the axis that OpenCV drops where it has one channel
    groups = [
        change(np.ascontiguousarray(image[:, :, first : first + _MOST_CHANNELS]))
        for first in range(0, channels, _MOST_CHANNELS)
    ]
    return np.concatenate([g.reshape(*g.shape[:2], -1) for g in groups], axis=2)


def _both(
    image: Shaped[np.ndarray, "window_h window_w c"],
    mask: UInt[np.ndarray, "window_h window_w"],
    warp: Callable[[Any, int, int, int], Any],  # array, interpolation, border, fill
    ignore_index: int | None,
) -> tuple[Crop, CropMask]:
    border, fill = cv2.BORDER_REFLECT_101, 0
    moved = in_groups(image, lambda part: warp(part, cv2.INTER_LINEAR, border, fill))
    if ignore_index is not None:
        border, fill = cv2.BORDER_CONSTANT, ignore_index
    return moved, warp(mask, cv2.INTER_NEAREST, border, fill)


def _window(
    image: Image,
    mask: LabelMap,
    matrix: Float64[np.ndarray, "2 3"],
    side: int,
    reach: Float64[np.ndarray, 2],
) -> tuple[
    Shaped[np.ndarray, "window_h window_w c"],
    UInt[np.ndarray, "window_h window_w"],
    Float64[np.ndarray, 2],
]:
    """The part that is read, so that coordinates stay below the 32767 of OpenCV's warps."""
    edge = side - 1.0
    corners = matrix @ np.array([[0, edge, 0, edge], [0, 0, edge, edge], [1, 1, 1, 1]])
    low, high = corners.min(axis=1) - reach, corners.max(axis=1) + reach
    x0, x1 = _span(low[0], high[0], mask.shape[1])
    y0, y1 = _span(low[1], high[1], mask.shape[0])
    return image[y0:y1, x0:x1], mask[y0:y1, x0:x1], np.array([x0, y0], np.float64)


def _span(low: float, high: float, size: int) -> tuple[int, int]:
    """First and end of what is read along an axis of ``size`` pixels, reflections included."""
    first, end = math.floor(low) - _MARGIN_PX, math.ceil(high) + _MARGIN_PX + 1
    before, after = max(0, -first), max(0, end - size)
    first = min(first, size - 1 - after)
    end = max(end, before + 1)
    return max(0, min(first, size - 1)), min(size, max(end, 1))
