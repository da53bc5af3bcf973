"""How much of labels is left when a network sees them in cells of several pixels.

For each class the intersection over union that a network could reach at best if its finest map had
one cell for every s x s pixels: the labels themselves go down to such cells and up again (the
oracle of Long et al. 2015, arXiv:1411.4038, appendix A, with shares of area in place of nearest
pixels, as a network has them). A structure thinner than a cell is lost there, whatever is trained.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

import cv2
import numpy as np
from jaxtyping import Float32, Float64, Int64, UInt

from delineate.types import LabelMap

AnyMask: TypeAlias = UInt[np.ndarray, "_ _"]  # a mask, among others of other sizes

STRIDES = (1, 2, 4, 8, 16, 32)
CEILING_IMAGES = 60
CEILING_SIDE_PX = 1024  # of a mask at most: its middle


def stride_ceilings(
    masks: Iterable[AnyMask], classes: int, strides: Sequence[int] = STRIDES
) -> Float64[np.ndarray, "s k"]:
    """The IoU of each class when labels go to cells of s x s pixels and back.

    Args:
        masks: class ids (H, W); ids from ``classes`` on are ignored.
        classes: how many there are.
        strides: pixels a side of a cell.

    Returns:
        (strides, classes), counts pooled over masks; NaN for a class that is in none.
    """
    counts = np.zeros((len(strides), 3, classes), np.int64)
    for mask in masks:
        middle = _middle(mask)
        present = np.unique(middle[middle < classes]).astype(np.int64)
        if len(present) == 0:
            continue
        for row, stride in enumerate(strides):
            counts[row] += _counts(middle, _through_cells(middle, present, stride), classes)
    both, found, truth = counts[:, 0], counts[:, 1], counts[:, 2]
    union = found + truth - both
    with np.errstate(invalid="ignore"):
        return np.where(truth[:1] > 0, both / np.where(union > 0, union, np.nan), np.nan)


def _middle(mask: AnyMask) -> AnyMask:
    top, left = (max(0, (side - CEILING_SIDE_PX) // 2) for side in mask.shape)
    return mask[top : top + CEILING_SIDE_PX, left : left + CEILING_SIDE_PX]


def _through_cells(
    mask: LabelMap, present: Int64[np.ndarray, " p"], stride: int
) -> Int64[np.ndarray, "_ _"]:
    """The class with the largest share of area, shares interpolated between cells."""
    height, width = mask.shape
    rows, columns = -(-height // stride), -(-width // stride)
    padding = ((0, rows * stride - height), (0, columns * stride - width))
    padded = np.pad(mask, padding, mode="edge")
    best = np.full((height, width), -1.0, np.float32)
    label = np.zeros((height, width), np.int64)
    for class_id in present:
        plane = np.equal(padded, class_id).astype(np.float32)
        share = _up(plane.reshape(rows, stride, columns, stride).mean((1, 3)), stride)
        share = share[:height, :width]
        better = share > best
        label[better], best[better] = class_id, share[better]
    return label


def _up(plane: Float32[np.ndarray, "h w"], stride: int) -> Float32[np.ndarray, "h2 w2"]:
    if stride == 1:
        return plane
    size = (plane.shape[1] * stride, plane.shape[0] * stride)
    return np.asarray(cv2.resize(plane, size, interpolation=cv2.INTER_LINEAR))


def _counts(
    truth: LabelMap, found: Int64[np.ndarray, "h w"], classes: int
) -> Int64[np.ndarray, "3 k"]:
    """Pixels of each class in both, in ``found``, and in ``truth``; ignored ones nowhere."""
    counted = truth < classes
    a, b = truth[counted].astype(np.int64), found[counted]
    columns = [np.bincount(values, minlength=classes) for values in (a[a == b], b, a)]
    return np.stack(columns).astype(np.int64)
