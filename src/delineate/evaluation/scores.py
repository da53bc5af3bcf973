"""Scores as pure functions of a confusion matrix (K, K): rows truth, columns prediction.

With tp, fp and fn the pixels of a class that were found, falsely claimed and missed:

==================  ===========================  =========================================
score               definition                   undefined (NaN) when
==================  ===========================  =========================================
IoU (Jaccard)       tp / (tp + fp + fn)          the class is in neither truth nor prediction
Dice (F1)           2 tp / (2 tp + fp + fn)      the same
precision           tp / (tp + fp)               the class is never predicted
recall              tp / (tp + fn)               the class is not in the truth
pixel accuracy      sum of tp / all pixels       no pixel was counted
==================  ===========================  =========================================

Undefined scores are left out of means and are None in JSON: a class absent from both truth and
prediction counts neither for nor against, and one that is only predicted scores 0. A class that
is itself the ignore index has no scores; where it is predicted, the true class misses pixels.

Definitions: Everingham et al., *The PASCAL Visual Object Classes Challenge* (IJCV 2010) for IoU;
Long, Shelhamer, Darrell, *Fully Convolutional Networks for Semantic Segmentation* (CVPR 2015)
for the means.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Float64, Int64

from delineate.evaluation.confusion import Confusion

Counts: TypeAlias = Int64[np.ndarray, "k k"]
PerClass: TypeAlias = Float64[np.ndarray, " k"]
Json: TypeAlias = dict[str, object]


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Float64 quotient of two arrays of one shape; NaN where the denominator is 0."""
    out: np.ndarray = np.full(numerator.shape, np.nan)
    np.divide(numerator, denominator, out=out, where=denominator != 0)
    return out


def true_pixels(counts: Counts) -> Int64[np.ndarray, " k"]:
    """(K,) int64, pixels of each class in the truth: tp + fn."""
    pixels: np.ndarray = counts.sum(axis=1)
    return pixels


def predicted_pixels(counts: Counts) -> Int64[np.ndarray, " k"]:
    """(K,) int64, pixels of each class in the prediction: tp + fp."""
    pixels: np.ndarray = counts.sum(axis=0)
    return pixels


def iou(counts: Counts) -> PerClass:
    """(K,) intersection over union, 0 to 1 or NaN."""
    found = np.diagonal(counts)
    return ratio(found, true_pixels(counts) + predicted_pixels(counts) - found)


def dice(counts: Counts) -> PerClass:
    """(K,) Dice coefficient, 0 to 1 or NaN."""
    return ratio(2 * np.diagonal(counts), true_pixels(counts) + predicted_pixels(counts))


def precision(counts: Counts) -> PerClass:
    """(K,) share of the predicted pixels that are right, 0 to 1 or NaN."""
    return ratio(np.diagonal(counts), predicted_pixels(counts))


def recall(counts: Counts) -> PerClass:
    """(K,) share of the true pixels that were found, 0 to 1 or NaN."""
    return ratio(np.diagonal(counts), true_pixels(counts))


def pixel_accuracy(counts: Counts) -> float:
    """Share of all pixels that are right, 0 to 1 or NaN."""
    total = int(counts.sum())
    return math.nan if total == 0 else int(np.trace(counts)) / total


def frequency_weighted_iou(counts: Counts) -> float:
    """IoU of each class weighted by its share of the true pixels, 0 to 1 or NaN."""
    total = int(counts.sum())
    return math.nan if total == 0 else float(np.nansum(true_pixels(counts) * iou(counts)) / total)


def mean_defined(values: PerClass) -> float:
    """Mean of what is defined; NaN when nothing is."""
    defined = values[~np.isnan(values)]
    return math.nan if defined.size == 0 else float(defined.mean())


@dataclass(frozen=True)
class Scores:
    """All scores of a confusion matrix. What is undefined is NaN; see the top of the module.

    Attributes:
        classes: class names by id; the tuples below follow it.
        iou, dice, precision, recall: one for each class, 0 to 1 or NaN.
        true_share: share of the counted pixels that belong to each class, 0 to 1 or NaN.
        mean_iou, mean_dice: means over the classes that are defined.
        pixel_accuracy, frequency_weighted_iou: 0 to 1 or NaN.
        pixels: pixels counted.
    """

    classes: tuple[str, ...]
    iou: tuple[float, ...]
    dice: tuple[float, ...]
    precision: tuple[float, ...]
    recall: tuple[float, ...]
    true_share: tuple[float, ...]
    mean_iou: float
    mean_dice: float
    pixel_accuracy: float
    frequency_weighted_iou: float
    pixels: int

    @property
    def foreground_iou(self) -> float:
        """IoU of class 1 where there are two classes, else NaN."""
        return self.iou[1] if len(self.classes) == 2 else math.nan

    @property
    def foreground_dice(self) -> float:
        """Dice of class 1 where there are two classes, else NaN."""
        return self.dice[1] if len(self.classes) == 2 else math.nan

    def to_dict(self) -> Json:
        """For JSON: undefined scores are None, ``foreground`` is there with two classes only."""
        document: Json = {
            "mean_iou": none_if_nan(self.mean_iou),
            "mean_dice": none_if_nan(self.mean_dice),
            "pixel_accuracy": none_if_nan(self.pixel_accuracy),
            "frequency_weighted_iou": none_if_nan(self.frequency_weighted_iou),
            "pixels": self.pixels,
        }
        if len(self.classes) == 2:
            document["foreground"] = {
                "class": self.classes[1],
                "iou": none_if_nan(self.foreground_iou),
                "dice": none_if_nan(self.foreground_dice),
            }
        document["classes"] = [
            {
                "id": i,
                "name": name,
                "iou": none_if_nan(self.iou[i]),
                "dice": none_if_nan(self.dice[i]),
                "precision": none_if_nan(self.precision[i]),
                "recall": none_if_nan(self.recall[i]),
                "true_share": none_if_nan(self.true_share[i]),
            }
            for i, name in enumerate(self.classes)
        ]
        return document


def compute_scores(confusion: Confusion) -> Scores:
    """All scores of ``confusion``."""
    counts = confusion.counts
    per_class = {
        "iou": iou(counts),
        "dice": dice(counts),
        "precision": precision(counts),
        "recall": recall(counts),
        "true_share": ratio(true_pixels(counts), np.full(len(counts), counts.sum())),
    }
    ignored = confusion.ignore_index
    if ignored is not None and 0 <= ignored < len(confusion.classes):
        for values in per_class.values():
            values[ignored] = math.nan
    return Scores(
        classes=confusion.classes,
        mean_iou=mean_defined(per_class["iou"]),
        mean_dice=mean_defined(per_class["dice"]),
        pixel_accuracy=pixel_accuracy(counts),
        frequency_weighted_iou=frequency_weighted_iou(counts),
        pixels=int(counts.sum()),
        **{name: _floats(values) for name, values in per_class.items()},
    )


def _floats(values: PerClass) -> tuple[float, ...]:
    return tuple(float(v) for v in values)


def none_if_nan(value: float) -> float | None:
    """``value`` for JSON, which has no NaN."""
    return None if math.isnan(value) else value


def score_figures(scores: Scores) -> dict[str, float | None]:
    """The scores that travel in a bundle, by name, rounded; None where one is undefined."""
    figures = {
        "mean_iou": scores.mean_iou,
        "mean_dice": scores.mean_dice,
        "pixel_accuracy": scores.pixel_accuracy,
        **{f"iou/{name}": value for name, value in zip(scores.classes, scores.iou, strict=True)},
    }
    return {n: None if math.isnan(v) else round(float(v), 6) for n, v in figures.items()}
