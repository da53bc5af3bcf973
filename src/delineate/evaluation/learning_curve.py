"""How the error falls with the number of training images, and what more of them would bring.

The error 1 - mIoU is taken to follow a power law with an offset, ``a * n**-b + c`` (Viering and
Loog 2021, arXiv:2103.10948, find it the form that fits most learning curves). Three sizes cannot
settle three unknowns. So, as the same authors and Mahmood et al. 2022 (arXiv:2207.01725) warn that
extrapolations from few points are too sure of themselves, c is not fitted but bounded: every c from
0 to 0.98 of the least error is tried, a and b are fitted to each (least squares in logarithms, b
from 0 to 2), and each counts by how well its curve meets the points. All that is done for every
bootstrap draw of the validation images, to whose errors the luck of a training is added. What is
said is the median of all these curves, and the middle 95 % of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from delineate.errors import SettingsError
from delineate.evaluation.intervals import ImageCounts, resample
from delineate.evaluation.scores import Json

STEEPEST = 2.0
TRAINING_NOISE = 0.01  # of mIoU, standard deviation between seeds of one training, about
_OFFSETS = 25  # values of c
_LARGEST_OFFSET = 0.98  # of the least error
_DRAWS = 400
_LEAST_ERROR = 1e-4  # a logarithm is taken of it
_MIDDLE = (0.025, 0.5, 0.975)


@dataclass(frozen=True)
class Estimate:
    """A median and the middle 95 % around it."""

    value: float
    low: float
    high: float

    def to_dict(self) -> Json:
        return {"value": self.value, "low": self.low, "high": self.high}


@dataclass(frozen=True)
class LearningCurve:
    """Mean IoU over the number of training images.

    Attributes:
        images: of each training, ascending.
        measured: mean IoU of each, 0 to 1, its interval over validation images alone.
        sizes: numbers of images at which the curve is drawn, up to four times the last.
        curve: mean IoU at each of ``sizes``.
        doubled: mean IoU with twice the images of the last training.
        gain: of that over what was measured with the last, in mean IoU; never below 0.
    """

    images: tuple[int, ...]
    measured: tuple[Estimate, ...]
    sizes: tuple[int, ...]
    curve: tuple[Estimate, ...]
    doubled: Estimate
    gain: Estimate

    def to_dict(self) -> Json:
        return {
            "images": list(self.images),
            "measured": [each.to_dict() for each in self.measured],
            "sizes": list(self.sizes),
            "curve": [each.to_dict() for each in self.curve],
            "doubled": {"images": 2 * self.images[-1], **self.doubled.to_dict()},
            "gain": self.gain.to_dict(),
        }


def fit_learning_curve(
    images: Sequence[int], counts: Sequence[ImageCounts], *, seed: int = 0
) -> LearningCurve:
    """Fit the curve to trainings on subsets.

    Args:
        images: number of training images of each, ascending.
        counts: what each did on the same validation images.
        seed: of the draws.

    Raises:
        SettingsError: fewer than three trainings, or no validation image with a score.
    """
    if len(images) < 3 or any(not len(each.units()) for each in counts):
        raise SettingsError(
            f"a learning curve cannot be fitted to {len(images)} trainings and "
            f"{min(len(each.units()) for each in counts)} scored {counts[0].unit}",
            mend="Give 3 trainings and a val with labels.",
        )
    scores = np.array([miou(each) for each in counts])
    draws = np.stack([draw(each, _DRAWS, seed) for each in counts], axis=1)  # (R, 3)
    draws = draws[~np.isnan(draws).any(axis=1)]
    luck = np.random.default_rng(seed).normal(0, TRAINING_NOISE, draws.shape)
    sizes = np.unique(np.geomspace(images[0], 4 * images[-1], 24).round().astype(int))
    at = np.concatenate([sizes, [images[-1], 2 * images[-1]]])
    noise = np.sqrt(draws.var(axis=0) + TRAINING_NOISE**2)
    values, weights = _curves(np.array(images, float), 1 - draws - luck, noise, at.astype(float))
    gains = values[:, -2] - values[:, -1]
    # carried by what was measured, not by the fit, which need not go through it
    doubled = (draws[:, -1, None] + gains.reshape(len(draws), -1)).ravel()
    return LearningCurve(
        images=tuple(int(n) for n in images),
        measured=tuple(
            _around(float(score), column) for score, column in zip(scores, draws.T, strict=True)
        ),
        sizes=tuple(int(n) for n in sizes),
        curve=tuple(_estimate(1 - values[:, i], weights) for i in range(len(sizes))),
        doubled=_estimate(np.minimum(doubled, 1.0), weights),
        gain=_estimate(gains, weights),
    )


def miou(counts: ImageCounts) -> float:
    """Mean IoU over all images."""
    total = ImageCounts(
        counts.classes, counts.ignore_index, ("all",), (None,), counts.counts.sum(0, keepdims=True)
    )
    return float(resample(total.units(), counts.ignore_index, 1, 0).mean_iou[0])


def draw(counts: ImageCounts, resamples: int, seed: int) -> Float64[np.ndarray, " r"]:
    """Mean IoU of bootstrap draws; of one seed the same images are drawn for every model."""
    return resample(counts.units(), counts.ignore_index, resamples, seed).mean_iou


def difference(a: ImageCounts, b: ImageCounts, *, seed: int = 0) -> Estimate:
    """What b has over a in mean IoU, over draws of images and the luck of both trainings."""
    drawn = draw(b, _DRAWS, seed) - draw(a, _DRAWS, seed)
    luck = np.random.default_rng(seed).normal(0, 2**0.5 * TRAINING_NOISE, drawn.shape)
    return _around(miou(b) - miou(a), drawn + luck)


def _curves(
    n: Float64[np.ndarray, " sizes"],
    errors: Float64[np.ndarray, "r sizes"],
    noise: Float64[np.ndarray, " sizes"],
    at: Float64[np.ndarray, " places"],
) -> tuple[Float64[np.ndarray, "all places"], Float64[np.ndarray, " all"]]:
    """Errors at ``at`` of every curve, draw by draw and offset by offset, and their weights."""
    errors = np.maximum(errors, _LEAST_ERROR)
    shares = np.linspace(0, _LARGEST_OFFSET, _OFFSETS)
    c = (shares * errors.min(axis=1, keepdims=True))[:, :, None]  # (R, C, 1)
    logs = np.log(errors[:, None, :] - c)
    x = np.log(n)
    centred = x - x.mean()
    slope = -(logs * centred).sum(axis=2) / (centred**2).sum()
    b = np.clip(slope, 0.0, STEEPEST)[:, :, None]
    log_a = (logs + b * x).mean(axis=2, keepdims=True)
    misses = (np.exp(log_a - b * x) + c - errors[:, None, :]) / noise
    weights = np.exp(-0.5 * (misses**2).sum(axis=2))
    # each draw counts the same, whether one of its curves fits or none
    weights /= np.maximum(weights.sum(axis=1, keepdims=True), 1e-300)
    values = np.exp(log_a - b * np.log(at)) + c
    return values.reshape(-1, len(at)), weights.ravel()


def _estimate(
    values: Float64[np.ndarray, " all"], weights: Float64[np.ndarray, " all"]
) -> Estimate:
    """Weighted quantiles."""
    order = values.argsort()
    reached = weights[order].cumsum()
    places = np.searchsorted(reached, np.array(_MIDDLE) * reached[-1])
    low, middle, high = (float(values[order[min(i, len(order) - 1)]]) for i in places)
    return Estimate(middle, low, high)


def _around(value: float, draws: Float64[np.ndarray, " r"]) -> Estimate:
    low, high = np.quantile(draws[~np.isnan(draws)], [_MIDDLE[0], _MIDDLE[2]])
    return Estimate(value, float(low), float(high))
