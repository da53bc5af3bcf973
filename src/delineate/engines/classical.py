"""Classical methods behind the predictor's protocol: controls that a network has to beat.

Both are fitted on a few labelled images and look at one pixel's colour (after a small blur) at a
time. Where they do well, the task needs no network.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8

from delineate.engines.check import check_batch
from delineate.errors import ImageError, SettingsError
from delineate.types import (
    Image,
    Images,
    LabelMap,
    Output,
    Prediction,
    PredictorSpec,
    Task,
)

GreyPlane: TypeAlias = UInt8[np.ndarray, "h w"]

CHANNELS = ("grey", "red", "green", "blue", "saturation")
BINS = 16  # steps of each channel in the colour table


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
        wanted = _class_id(classes, foreground)
        hits: dict[tuple[str, bool, float], Int64[np.ndarray, " 3"]] = {}
        pixels = np.zeros(len(classes), np.int64)
        channels = 0
        for image, labels in images:
            channels = _checked_channels(image, channels)
            counted = labels < len(classes)
            truth = labels[counted] == wanted
            pixels += np.bincount(labels[counted], minlength=len(classes))
            for channel in CHANNELS if channels == 3 else CHANNELS[:1]:
                for blur_px in blurs_px:
                    above = _above_otsu(image, channel, blur_px)[counted]
                    for bright in (False, True):
                        found = above == bright
                        counts = np.array(
                            [(found & truth).sum(), found.sum(), truth.sum()], np.int64
                        )
                        key = (channel, bright, blur_px)
                        hits[key] = hits.get(key, np.zeros(3, np.int64)) + counts
        if not pixels.sum():
            raise _nothing_to_fit()
        channel, bright, blur_px = max(
            hits, key=lambda key: 2 * hits[key][0] / max(int(hits[key][1:].sum()), 1)
        )
        pixels[wanted] = -1
        spec = _spec(classes, channels)
        return cls(spec, channel, bright, blur_px, wanted, int(pixels.argmax()))

    def predict(self, images: Images, outputs: Sequence[Output] = ("labels",)) -> Prediction:
        """As :class:`~delineate.types.Predictor`; probabilities are 0 or 255.

        Raises:
            ImageError: the batch does not fit ``spec``.
            SettingsError: an output is unknown, or none is asked for.
        """
        check_batch(images, outputs, self.spec)
        above = np.stack([_above_otsu(image, self.channel, self.blur_px) for image in images])
        probabilities = np.zeros(
            (len(images), len(self.spec.classes), *images.shape[1:3]), np.float32
        )
        found = above == self.bright
        probabilities[:, self.foreground] = found
        probabilities[:, self.other] = ~found
        return _finish(probabilities, self.spec, outputs)


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
        _class_id(classes, foreground)
        count = len(classes)
        histogram = np.zeros(0, np.int64)
        channels = 0
        for image, labels in images:
            channels = _checked_channels(image, channels)
            if not len(histogram):
                histogram = np.zeros(BINS**channels * count, np.int64)
            counted = labels < count
            key = _colour_index(image, blur_px)[counted] * count + labels[counted]
            histogram += np.bincount(key, minlength=len(histogram))
        if not histogram.sum():
            raise _nothing_to_fit()
        return cls(_spec(classes, channels), blur_px, _shares(histogram, channels, count))

    def predict(self, images: Images, outputs: Sequence[Output] = ("labels",)) -> Prediction:
        """As :class:`~delineate.types.Predictor`; probabilities are the shares in training.

        Raises:
            ImageError: the batch does not fit ``spec``.
            SettingsError: an output is unknown, or none is asked for.
        """
        check_batch(images, outputs, self.spec)
        index = np.stack([_colour_index(image, self.blur_px) for image in images])
        probabilities = np.ascontiguousarray(np.moveaxis(self.table[index], -1, 1))
        return _finish(probabilities, self.spec, outputs)


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


def _class_id(classes: Sequence[str], name: str) -> int:
    if name not in classes:
        raise SettingsError(
            f"the foreground '{name}' is no class", mend=f"Use one of: {', '.join(classes)}."
        )
    return list(classes).index(name)


def _nothing_to_fit() -> SettingsError:
    return SettingsError(
        "there is no labelled pixel to fit on", mend="Give at least one image with a mask."
    )


def _spec(classes: Sequence[str], channels: int) -> PredictorSpec:
    task: Task = "binary" if len(classes) == 2 else "multiclass"
    return PredictorSpec(tuple(classes), task, channels, "uint8", calls_in_flight=2)


def _checked_channels(image: Image, before: int) -> int:
    """The number of channels, which has to be that of the images ``before`` (0: none yet)."""
    channels = image.shape[2]
    if image.dtype != np.uint8 or channels not in (1, 3) or before not in (0, channels):
        wanted = f"{before}" if before else "1 or 3"
        raise ImageError(
            f"the image is {image.dtype} with {channels} channels",
            mend=f"This method takes uint8 with {wanted} channels.",
        )
    return int(channels)


def _blurred(image: Image, blur_px: float) -> Image:
    if blur_px <= 0:
        return image
    return np.asarray(cv2.GaussianBlur(image, (0, 0), blur_px)).reshape(image.shape)


def _plane(image: Image, channel: str) -> GreyPlane:
    if image.shape[2] == 1:
        return np.ascontiguousarray(image[:, :, 0])
    match channel:
        case "red" | "green" | "blue":
            return np.ascontiguousarray(image[:, :, ("red", "green", "blue").index(channel)])
        case "saturation":
            return np.ascontiguousarray(cv2.cvtColor(image, cv2.COLOR_RGB2HSV)[:, :, 1])
        case _:
            return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))


def _above_otsu(image: Image, channel: str, blur_px: float) -> Bool[np.ndarray, "h w"]:
    plane = _plane(_blurred(np.ascontiguousarray(image), blur_px), channel)
    threshold, _ = cv2.threshold(plane, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    return np.asarray(plane > threshold)


def _colour_index(image: Image, blur_px: float) -> Int64[np.ndarray, "h w"]:
    steps = _blurred(np.ascontiguousarray(image), blur_px) // (256 // BINS)
    weights = BINS ** np.arange(image.shape[2])[::-1]
    return np.asarray((steps.astype(np.int64) * weights).sum(2))


def _finish(
    probabilities: Float32[np.ndarray, "n k h w"], spec: PredictorSpec, outputs: Sequence[Output]
) -> Prediction:
    """The outputs that were asked for; only they are computed."""
    result: Prediction = {}
    labels = np.empty(0, np.uint8)
    largest = np.empty(0, np.float32)
    if "labels" in outputs or "summary" in outputs:
        kind = np.uint8 if len(spec.classes) <= 256 else np.uint16
        labels = probabilities.argmax(1).astype(kind)
    if "confidence" in outputs or "summary" in outputs:
        largest = probabilities.max(1)
    if "labels" in outputs:
        result["labels"] = labels
    if "confidence" in outputs:
        result["confidence"] = np.rint(largest * 255).astype(np.uint8)
    if "probabilities" in outputs:
        result["probabilities"] = np.rint(probabilities * 255).astype(np.uint8)
    if "summary" in outputs:
        # Natural logarithm, with the floor that the exported graph has
        entropy = -(probabilities * np.log(np.maximum(probabilities, 1e-12))).sum(1)
        shares = [(labels == k).mean((1, 2)) for k in range(len(spec.classes))]
        columns = [*shares, largest.mean((1, 2)), entropy.mean((1, 2))]
        result["summary"] = np.stack(columns, 1).astype(np.float32)
    return result
