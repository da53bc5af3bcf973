"""Boundary IoU: how well the outlines of the classes are met, after Cheng et al. 2021.

*Boundary IoU: Improving Object-Centric Image Segmentation Evaluation* (CVPR 2021,
arXiv:2103.16562) compares, instead of whole masks, the band of pixels of each mask that lie
within d pixels of its outline, d = 2 % of the image's diagonal. A class of large areas can have
an IoU of 0.95 with ragged outlines; its boundary IoU says so.

The band is that of the published code: what d erosions with a 3 x 3 square take away, where
everything beyond the image's edge is outside the mask. All classes are eroded at once: a pixel
survives if the smallest and the largest class id within d pixels of it are its own.

Ignored pixels belong to no band, and next to them no mask ends: the outline that the annotator
left open there is nobody's mistake.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Int64, UInt

from delineate.evaluation.scores import Json, mean_defined, none_if_nan, ratio

WIDTH_SHARE = 0.02  # of the image's diagonal


def boundary_width(height: int, width: int, share: float = WIDTH_SHARE) -> int:
    """Pixels of a band in an image of that size: ``share`` of its diagonal, at least 1."""
    return max(1, round(share * math.hypot(height, width)))


def boundary_band(
    labels: UInt[np.ndarray, "h w"], counted: Bool[np.ndarray, "h w"], width_px: int
) -> Bool[np.ndarray, "h w"]:
    """The counted pixels within ``width_px`` of a counted pixel of another class, or of the edge.

    Args:
        labels: (H, W) class ids, uint8 or uint16.
        counted: (H, W) false where the truth is ignored.
        width_px: as a Chebyshev distance.
    """
    kernel = np.ones((2 * width_px + 1, 2 * width_px + 1), np.uint8)  # separable, so fast
    largest = np.array(np.iinfo(labels.dtype).max, labels.dtype)
    lowest = cv2.erode(np.where(counted, labels, largest), kernel)
    highest = cv2.dilate(np.where(counted, labels, np.zeros_like(largest)), kernel)
    band: np.ndarray = (lowest != labels) | (highest != labels)
    band[:width_px] = band[-width_px:] = True
    band[:, :width_px] = band[:, -width_px:] = True
    band &= counted
    return band


@dataclass(frozen=True)
class BoundaryScores:
    """Boundary IoU over all images.

    Attributes:
        iou: of each class, 0 to 1, NaN where it is in neither truth nor prediction.
        mean_iou: over the classes that are defined.
        width_share: width of the bands, share of each image's diagonal.
    """

    iou: tuple[float, ...]
    mean_iou: float
    width_share: float

    def to_dict(self) -> Json:
        return {
            "mean_iou": none_if_nan(self.mean_iou),
            "iou": [none_if_nan(value) for value in self.iou],
            "width_share_of_diagonal": self.width_share,
        }


class BoundaryTally:
    """Streaming sums of the bands' pixels, class by class, over images of any size."""

    def __init__(
        self, classes: Sequence[str], ignore_index: int | None, share: float = WIDTH_SHARE
    ) -> None:
        self.classes = tuple(classes)
        self.ignore_index = ignore_index
        self.share = share
        self.counts: Int64[np.ndarray, "3 k"] = np.zeros((3, len(classes)), np.int64)

    def update(self, truth: UInt[np.ndarray, "h w"], labels: UInt[np.ndarray, "h w"]) -> None:
        """Count one image; ids are checked already, as ``Confusion.update`` does."""
        counted = np.ones(truth.shape, bool)
        if self.ignore_index is not None:
            counted = truth != self.ignore_index
        height, width = truth.shape
        width_px = boundary_width(height, width, self.share)
        true = boundary_band(truth, counted, width_px)
        predicted = boundary_band(labels, counted, width_px)
        found = true & predicted & (truth == labels)
        k = len(self.classes)
        self.counts[0] += np.bincount(truth[found], minlength=k)
        self.counts[1] += np.bincount(truth[true], minlength=k)
        self.counts[2] += np.bincount(labels[predicted], minlength=k)

    def scores(self) -> BoundaryScores:
        found, true, predicted = self.counts
        iou = ratio(found, true + predicted - found)
        if self.ignore_index is not None and self.ignore_index < len(self.classes):
            iou[self.ignore_index] = math.nan
        return BoundaryScores(tuple(float(v) for v in iou), mean_defined(iou), self.share)
