"""Two models on the same images: which is better, and could that be the choice of images?

A paired bootstrap: each draw of images or groups scores both models, so that what makes an image
hard for both cancels out. See :mod:`delineate.evaluation.intervals` for the draws.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from delineate.errors import SettingsError
from delineate.evaluation.intervals import (
    LEVEL,
    RESAMPLES,
    ImageCounts,
    Interval,
    Unit,
    as_json,
    interval_of,
    resample,
)
from delineate.evaluation.scores import Json, Scores, none_if_nan


@dataclass(frozen=True)
class Difference:
    """One score of two models.

    Attributes:
        a, b: the scores, 0 to 1 or NaN.
        interval: of ``b - a``, 95 %; NaN where it is undefined.
        share_better: share of the draws in which b scores higher, 0 to 1 or NaN.
    """

    a: float
    b: float
    interval: Interval
    share_better: float

    @property
    def value(self) -> float:
        """``b - a``."""
        return self.b - self.a

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out 0."""
        low, high = self.interval
        return low > 0 or high < 0

    def to_dict(self) -> Json:
        return {
            "a": none_if_nan(self.a),
            "b": none_if_nan(self.b),
            "difference": none_if_nan(self.value),
            "interval": as_json(self.interval),
            "share_of_draws_b_better": none_if_nan(self.share_better),
        }


@dataclass(frozen=True)
class Comparison:
    """How b does against a on the same images.

    Attributes:
        a, b: names of the two.
        scores: of b; those of a are the Evaluation's own.
        mean_iou, mean_dice: the means.
        iou: of each class.
        unit, units, resamples: what was drawn, how many there are, how often.
    """

    a: str
    b: str
    scores: Scores
    mean_iou: Difference
    mean_dice: Difference
    iou: tuple[Difference, ...]
    unit: Unit
    units: int
    resamples: int

    def verdict(self) -> str:
        """One line: who is better in mean IoU, by how much, and whether that is clear."""
        found = self.mean_iou
        if math.isnan(found.value):
            return f"{self.a} and {self.b} cannot be compared: a score is undefined"
        if found.value == 0:
            return f"{self.a} and {self.b} have the same mean IoU"
        better, sign = (self.b, 1) if found.value > 0 else (self.a, -1)
        low, high = sorted(100 * sign * bound for bound in found.interval)
        text = (
            f"{better} is better by {100 * abs(found.value):.1f} points of mean IoU, "
            f"95 % interval {low:.1f} to {high:.1f}"
        )
        return text if found.clear else f"{text}: these {self.unit} do not show which is better"

    def to_dict(self) -> Json:
        return {
            "a": self.a,
            "b": self.b,
            "verdict": self.verdict(),
            "scores_b": self.scores.to_dict(),
            "mean_iou": self.mean_iou.to_dict(),
            "mean_dice": self.mean_dice.to_dict(),
            "iou": [difference.to_dict() for difference in self.iou],
            "level": LEVEL,
            "resamples": self.resamples,
            "unit": self.unit,
            "units": self.units,
        }


def compare_models(
    names: tuple[str, str],
    scores: tuple[Scores, Scores],
    images: tuple[ImageCounts, ImageCounts],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Comparison:
    """Compare two models, a and b, by what each did on every image.

    Raises:
        SettingsError: they were not scored on the same truth, or there are fewer than two images
            or groups with a score.
    """
    a, b = images
    same = a.classes == b.classes and a.names == b.names
    if not same or not np.array_equal(a.counts[:, 1], b.counts[:, 1]):
        raise SettingsError(
            f"{names[0]} and {names[1]} were not scored on the same truth",
            mend="Evaluate both on the same split, with the same classes and the same --map.",
        )
    units = a.units()
    if len(units) < 2:
        raise SettingsError(
            f"there are {len(units)} {a.unit} with a score, and a comparison needs 2",
            mend="Name a split with more images, or more groups.",
        )
    draws = [resample(each.units(), each.ignore_index, resamples, seed) for each in images]
    return Comparison(
        a=names[0],
        b=names[1],
        scores=scores[1],
        mean_iou=_difference(
            scores[0].mean_iou, scores[1].mean_iou, draws[1].mean_iou - draws[0].mean_iou
        ),
        mean_dice=_difference(
            scores[0].mean_dice, scores[1].mean_dice, draws[1].mean_dice - draws[0].mean_dice
        ),
        iou=tuple(
            _difference(one, other, column)
            for one, other, column in zip(
                scores[0].iou, scores[1].iou, (draws[1].iou - draws[0].iou).T, strict=True
            )
        ),
        unit=a.unit,
        units=len(units),
        resamples=resamples,
    )


def _difference(a: float, b: float, draws: np.ndarray) -> Difference:
    defined = draws[~np.isnan(draws)]
    share = float((defined > 0).mean()) if defined.size else math.nan
    return Difference(a, b, interval_of(draws), share)
