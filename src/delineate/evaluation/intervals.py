"""How far the scores would move with other images: bootstrap intervals (Efron 1979).

Images, or groups of images where the dataset has groups (the images of one patient are not
independent), are drawn with replacement as often as there are of them, 2,000 times, and the scores
are computed again from the sums of what was drawn. The middle 95 % of them are the interval
(percentile bootstrap). It tells how much the score owes to the choice of test images; it knows
nothing of the luck of a training.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Float64, Int64

from delineate.evaluation.confusion import Confusion
from delineate.evaluation.scores import Json, none_if_nan, predicted_pixels, ratio, true_pixels

LEVEL = 0.95
RESAMPLES = 2000
_CHUNK = 1 << 22  # weights drawn at once: 32 MiB

Interval: TypeAlias = tuple[float, float]  # NaN where the score is undefined
Unit: TypeAlias = Literal["images", "groups"]


@dataclass(frozen=True)
class ImageCounts:
    """What each image gave to the confusion matrix, as far as IoU and Dice need it.

    Attributes:
        classes: class names by id, K of them.
        ignore_index: the id in the truth that is not counted, or None.
        names: of the images.
        groups: of the images, or None for each where there are none.
        counts: (N, 3, K) int64 pixels of each class: found, true, predicted. 24 K bytes an image.
    """

    classes: tuple[str, ...]
    ignore_index: int | None
    names: tuple[str, ...]
    groups: tuple[str | None, ...]
    counts: Int64[np.ndarray, "n 3 k"]

    @property
    def unit(self) -> Unit:
        """What is independent of each other and therefore drawn."""
        return "images" if all(group is None for group in self.groups) else "groups"

    def units(self) -> Int64[np.ndarray, "u 3 k"]:
        """Counts of each image or group; those without a counted pixel are left out."""
        counts = self.counts
        if self.unit == "groups":
            _, group_of = np.unique([str(group) for group in self.groups], return_inverse=True)
            counts = np.zeros((group_of.max() + 1, *self.counts.shape[1:]), np.int64)
            np.add.at(counts, group_of, self.counts)
        kept: np.ndarray = counts[counts[:, 1].any(axis=1)]
        return kept


class ImageCountsTally:
    """Collects :class:`ImageCounts` image by image."""

    def __init__(self, classes: Sequence[str], ignore_index: int | None) -> None:
        self.classes, self.ignore_index = tuple(classes), ignore_index
        self._rows: list[tuple[str, str | None, np.ndarray]] = []

    def update(self, name: str, group: str | None, confusion: Confusion) -> None:
        counts = confusion.counts
        row = np.stack([np.diagonal(counts), true_pixels(counts), predicted_pixels(counts)])
        self._rows.append((name, group, row))

    def result(self) -> ImageCounts:
        names, groups, rows = zip(*self._rows, strict=True)
        return ImageCounts(self.classes, self.ignore_index, names, groups, np.stack(rows))


@dataclass(frozen=True)
class Resampled:
    """Scores of R draws, NaN where undefined.

    Attributes:
        iou: (R, K) float64.
        mean_iou, mean_dice: (R,) float64, over the classes that are defined in a draw.
    """

    iou: Float64[np.ndarray, "r k"]
    mean_iou: Float64[np.ndarray, " r"]
    mean_dice: Float64[np.ndarray, " r"]


def resample(
    units: Int64[np.ndarray, "u 3 k"], ignore_index: int | None, resamples: int, seed: int
) -> Resampled:
    """Scores of ``resamples`` draws with replacement. The same seed and number of units give the
    same draws, so that two models are compared on the same images."""
    rng = np.random.default_rng(seed)
    count, _, k = units.shape
    flat = units.reshape(count, 3 * k).astype(np.float64)  # sums below 2**53 are exact
    sums = np.empty((resamples, 3 * k))
    step = max(1, _CHUNK // count)
    for start in range(0, resamples, step):
        stop = min(start + step, resamples)
        weights = rng.multinomial(count, np.full(count, 1 / count), stop - start)
        sums[start:stop] = weights.astype(np.float64) @ flat
    found, true, predicted = sums.reshape(resamples, 3, k).transpose(1, 0, 2)
    iou = ratio(found, true + predicted - found)
    dice = ratio(2 * found, true + predicted)
    if ignore_index is not None and ignore_index < k:
        iou[:, ignore_index] = dice[:, ignore_index] = math.nan
    return Resampled(iou, _mean_of_rows(iou), _mean_of_rows(dice))


def _mean_of_rows(values: np.ndarray) -> np.ndarray:
    defined = ~np.isnan(values)
    return ratio(np.where(defined, values, 0.0).sum(axis=1), defined.sum(axis=1))


def interval_of(draws: Float64[np.ndarray, " r"], level: float = LEVEL) -> Interval:
    """The middle ``level`` of the draws in which the score is defined."""
    defined = draws[~np.isnan(draws)]
    if defined.size == 0:
        return math.nan, math.nan
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


@dataclass(frozen=True)
class Intervals:
    """Bootstrap intervals of the scores.

    Attributes:
        mean_iou, mean_dice: (low, high), 0 to 1 or NaN.
        iou: one for each class.
        unit: what was drawn.
        units: how many of them there are.
        resamples: how often they were drawn.
        level: share of the draws inside an interval.
    """

    mean_iou: Interval
    mean_dice: Interval
    iou: tuple[Interval, ...]
    unit: Unit
    units: int
    resamples: int
    level: float = LEVEL

    def to_dict(self) -> Json:
        return {
            "mean_iou": as_json(self.mean_iou),
            "mean_dice": as_json(self.mean_dice),
            "iou": [as_json(interval) for interval in self.iou],
            "level": self.level,
            "resamples": self.resamples,
            "unit": self.unit,
            "units": self.units,
        }


def as_json(interval: Interval) -> list[float] | None:
    """``[low, high]``, or None where the score is undefined."""
    low, high = none_if_nan(interval[0]), none_if_nan(interval[1])
    return None if low is None or high is None else [low, high]


def bootstrap(
    images: ImageCounts, *, resamples: int = RESAMPLES, seed: int = 0
) -> Intervals | None:
    """Intervals of mean IoU, mean Dice and each class's IoU; None with fewer than two units."""
    units = images.units()
    if len(units) < 2:
        return None
    draws = resample(units, images.ignore_index, resamples, seed)
    return Intervals(
        mean_iou=interval_of(draws.mean_iou),
        mean_dice=interval_of(draws.mean_dice),
        iou=tuple(interval_of(column) for column in draws.iou.T),
        unit=images.unit,
        units=len(units),
        resamples=resamples,
    )
