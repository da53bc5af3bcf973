"""Otsu's threshold on one channel."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Int64

from delineate.engines.check import check_batch
from delineate.engines.classical.shared import (
    CHANNELS,
    blurred,
    checked_channels,
    class_id,
    nothing_to_fit,
    one_class,
    plane,
    spec_of,
)
from delineate.types import Image, Images, LabelMap, Output, Prediction, PredictorSpec


@dataclass(frozen=True)
class OtsuPredictor:
    """Otsu's threshold (1979) on one channel, found anew in each image.

    Attributes:
        spec: what it takes and gives.
        channel: one of :data:`CHANNELS`; images of one channel have only ``grey``.
        bright: whether the foreground is above the threshold.
        blur_px: sigma of the blur before the threshold, pixels; 0 for none.
        foreground: id of the class above, or below, the threshold.
        other: id of the class given to all other pixels.
    """

    spec: PredictorSpec
    channel: str
    bright: bool
    blur_px: float
    foreground: int
    other: int

    @classmethod
    def fit(
        cls,
        images: Iterable[tuple[Image, LabelMap]],
        classes: Sequence[str],
        foreground: str,
        *,
        blurs_px: Sequence[float] = (0.0, 2.0),
    ) -> OtsuPredictor:
        """Take the channel, side and blur with the best Dice of ``foreground`` over ``images``.

        Args:
            images: pairs of an image (H, W, C) uint8, C 1 or 3 (RGB), and class ids (H, W); ids
                without a class (the ignore index) count nowhere. Gone through once.
            classes: class names by id.
            foreground: the class to find.
            blurs_px: the sigmas to choose from, pixels.

        Raises:
            SettingsError: ``foreground`` is no class, or there is no image.
            ImageError: an image is not 8 bit, has neither 1 nor 3 channels, or has another
                number of channels than the first.
        """
        wanted = class_id(classes, foreground)
        hits: dict[tuple[str, bool, float], Int64[np.ndarray, " 3"]] = {}
        pixels = np.zeros(len(classes), np.int64)
        channels = 0
        for image, labels in images:
            channels = checked_channels(image, channels)
            counted = labels < len(classes)
            truth = labels[counted] == wanted
            pixels += np.bincount(labels[counted], minlength=len(classes))
            for channel in CHANNELS if channels == 3 else CHANNELS[:1]:
                for blur_px in blurs_px:
                    above = above_otsu(image, channel, blur_px)[counted]
                    for bright in (False, True):
                        found = above == bright
                        counts = np.array(
                            [(found & truth).sum(), found.sum(), truth.sum()], np.int64
                        )
                        key = (channel, bright, blur_px)
                        hits[key] = hits.get(key, np.zeros(3, np.int64)) + counts
        if not pixels.sum():
            raise nothing_to_fit()
        channel, bright, blur_px = max(
            hits, key=lambda key: 2 * hits[key][0] / max(int(hits[key][1:].sum()), 1)
        )
        pixels[wanted] = -1
        spec = spec_of(classes, channels)
        return cls(spec, channel, bright, blur_px, wanted, int(pixels.argmax()))

    def predict(self, images: Images, outputs: Sequence[Output] = ("labels",)) -> Prediction:
        """As :class:`~delineate.types.Predictor`; probabilities are 0 or 255.

        Raises:
            ImageError: the batch does not fit ``spec``.
            SettingsError: an output is unknown, or none is asked for.
        """
        check_batch(images, outputs, self.spec)
        above = np.stack([above_otsu(image, self.channel, self.blur_px) for image in images])
        found = np.equal(above, self.bright)
        return one_class(found, self.foreground, self.other, self.spec, outputs)


def above_otsu(image: Image, channel: str, blur_px: float) -> Bool[np.ndarray, "h w"]:
    grey = plane(blurred(np.ascontiguousarray(image), blur_px), channel)
    threshold, _ = cv2.threshold(grey, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    return np.asarray(grey > threshold)
