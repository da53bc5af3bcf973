"""Thresholds in colour space: a table of colours."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int64

from delineate.engines.check import check_batch
from delineate.engines.classical.shared import (
    blurred,
    checked_channels,
    class_id,
    finish,
    nothing_to_fit,
    spec_of,
)
from delineate.types import Image, Images, LabelMap, Output, Prediction, PredictorSpec

BINS = 16  # steps of each channel in the colour table


@dataclass(frozen=True)
class ColourPredictor:
    """Thresholds in colour space: every colour has the class that it had most often in training.

    Attributes:
        spec: what it takes and gives.
        blur_px: sigma of the blur before the look-up, pixels; 0 for none.
        table: share of each class in each of ``BINS ** C`` colours, (colours, K); rows sum to 1.
    """

    spec: PredictorSpec
    blur_px: float
    table: Float32[np.ndarray, "colours k"]

    @classmethod
    def fit(
        cls,
        images: Iterable[tuple[Image, LabelMap]],
        classes: Sequence[str],
        foreground: str,
        *,
        blur_px: float = 2.0,
    ) -> ColourPredictor:
        """Count the classes of each colour over ``images``.

        Args:
            images: pairs of an image (H, W, C) uint8, C 1 or 3 (RGB), and class ids (H, W); ids
                without a class (the ignore index) count nowhere. Gone through once.
            classes: class names by id.
            foreground: the class to find; its name is checked, all classes are counted alike.
            blur_px: sigma of the blur before the look-up, pixels; 0 for none.

        Raises:
            SettingsError: ``foreground`` is no class, or there is no image.
            ImageError: as :meth:`OtsuPredictor.fit`.
        """
        class_id(classes, foreground)
        count = len(classes)
        histogram = np.zeros(0, np.int64)
        channels = 0
        for image, labels in images:
            channels = checked_channels(image, channels)
            if not len(histogram):
                histogram = np.zeros(BINS**channels * count, np.int64)
            counted = labels < count
            key = _colour_index(image, blur_px)[counted] * count + labels[counted]
            histogram += np.bincount(key, minlength=len(histogram))
        if not histogram.sum():
            raise nothing_to_fit()
        return cls(spec_of(classes, channels), blur_px, _shares(histogram, channels, count))

    def predict(self, images: Images, outputs: Sequence[Output] = ("labels",)) -> Prediction:
        """As :class:`~delineate.types.Predictor`; probabilities are the shares in training.

        Raises:
            ImageError: the batch does not fit ``spec``.
            SettingsError: an output is unknown, or none is asked for.
        """
        check_batch(images, outputs, self.spec)
        index = np.stack([_colour_index(image, self.blur_px) for image in images])
        probabilities = np.ascontiguousarray(np.moveaxis(self.table[index], -1, 1))
        return finish(probabilities, self.spec, outputs)


def _shares(
    histogram: Int64[np.ndarray, " cells"], channels: int, count: int
) -> Float32[np.ndarray, "colours k"]:
    """Shares of the classes in each colour, from counts smoothed over neighbouring colours.

    The smoothing gives a colour that was never seen the classes of those beside it.
    """
    counts = histogram.reshape(*(BINS,) * channels, count).astype(np.float64)
    total = counts.reshape(-1, count).sum(0)
    wide = counts
    for axis in range(channels):
        padded = np.pad(wide, [(1, 1) if a == axis else (0, 0) for a in range(channels + 1)])
        first, last = (np.take(padded, np.arange(s, s + BINS), axis) for s in (0, 2))
        wide = 0.25 * first + 0.5 * wide + 0.25 * last
    # The classes' overall shares decide where even the neighbours are empty
    table = (counts + 0.1 * wide).reshape(-1, count) + 0.01 * total / total.sum()
    table /= table.sum(1, keepdims=True)
    return np.asarray(table, np.float32)


def _colour_index(image: Image, blur_px: float) -> Int64[np.ndarray, "h w"]:
    steps = blurred(np.ascontiguousarray(image), blur_px) // (256 // BINS)
    weights = BINS ** np.arange(image.shape[2])[::-1]
    return np.asarray((steps.astype(np.int64) * weights).sum(2))
