"""Calibration: are the pixels that the network is 90 % sure of right in 90 % of cases?

The expected calibration error (Naeini et al. 2015, as Guo et al. 2017, arXiv:1706.04599, use it
for networks) puts the pixels into 15 bins by the confidence of their label, ((m - 1) / 15, m / 15],
and averages the distance between mean confidence and share of right labels, each bin weighing as
many pixels as it holds. Confidence comes in 8 bits, so that a table of 256 values holds all there
is to know and the error is exact for what was shipped.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64, UInt, UInt8

from delineate.evaluation.scores import Json, none_if_nan, ratio

BINS = 15
_LEVELS = 256


@dataclass(frozen=True)
class CalibrationScores:
    """The expected calibration error and the bins it is made of.

    Attributes:
        error: expected calibration error, 0 (best) to 1; NaN when no pixel was counted.
        confidence: mean confidence of each bin, 0 to 1, NaN where it is empty.
        accuracy: share of right labels in each bin, 0 to 1, NaN where it is empty.
        share: share of all counted pixels in each bin.
    """

    error: float
    confidence: tuple[float, ...]
    accuracy: tuple[float, ...]
    share: tuple[float, ...]

    def to_dict(self) -> Json:
        rows = zip(self.confidence, self.accuracy, self.share, strict=True)
        return {
            "expected_calibration_error": none_if_nan(self.error),
            "bins": [
                {"confidence": none_if_nan(c), "accuracy": none_if_nan(a), "share": none_if_nan(s)}
                for c, a, s in rows
            ],
        }


class CalibrationTally:
    """Pixels by 8-bit confidence: ``counts[0]`` those whose label is wrong, ``counts[1]`` right."""

    def __init__(self, ignore_index: int | None) -> None:
        self.ignore_index = ignore_index
        self.counts: Int64[np.ndarray, "2 256"] = np.zeros((2, _LEVELS), np.int64)

    def update(
        self,
        truth: UInt[np.ndarray, "h w"],
        labels: UInt[np.ndarray, "h w"],
        confidence: UInt8[np.ndarray, "h w"],
    ) -> None:
        """Count one image; ignored pixels count nowhere."""
        right = truth == labels
        if self.ignore_index is None:
            every = np.bincount(confidence.ravel(), minlength=_LEVELS)
        else:
            counted = truth != self.ignore_index
            right &= counted
            every = np.bincount(confidence[counted], minlength=_LEVELS)
        of_right = np.bincount(confidence[right], minlength=_LEVELS)
        self.counts[1] += of_right
        self.counts[0] += every - of_right

    def scores(self, bins: int = BINS) -> CalibrationScores:
        """The error in ``bins`` bins of equal width."""
        levels = np.arange(_LEVELS)
        bin_of = np.maximum(-(-levels * bins // 255) - 1, 0)  # in whole numbers: no rounding
        pixels = np.bincount(bin_of, self.counts.sum(axis=0), bins)
        right = np.bincount(bin_of, self.counts[1], bins)
        sure = np.bincount(bin_of, self.counts.sum(axis=0) * (levels / 255), bins)
        confidence, accuracy = ratio(sure, pixels), ratio(right, pixels)
        share = ratio(pixels, np.full(bins, pixels.sum()))
        error = ratio(np.abs(sure - right).sum(keepdims=True), pixels.sum(keepdims=True))
        return CalibrationScores(
            error=float(error[0]),
            confidence=tuple(float(v) for v in confidence),
            accuracy=tuple(float(v) for v in accuracy),
            share=tuple(float(v) for v in share),
        )
