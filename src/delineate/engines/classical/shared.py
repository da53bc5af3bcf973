"""What classical methods share: channels of an image, checks, and the outputs of a predictor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import cv2
import numpy as np
from jaxtyping import Bool, Float32, UInt8

from delineate.errors import ImageError, SettingsError
from delineate.types import Image, Output, Prediction, PredictorSpec, Task

GreyPlane: TypeAlias = UInt8[np.ndarray, "h w"]

CHANNELS = ("grey", "red", "green", "blue", "saturation")


def class_id(classes: Sequence[str], name: str) -> int:
    if name not in classes:
        raise SettingsError(
            f"the foreground '{name}' is no class", mend=f"Use one of: {', '.join(classes)}."
        )
    return list(classes).index(name)


def nothing_to_fit() -> SettingsError:
    return SettingsError(
        "there is no labelled pixel to fit on", mend="Give at least one image with a mask."
    )


def spec_of(classes: Sequence[str], channels: int) -> PredictorSpec:
    task: Task = "binary" if len(classes) == 2 else "multiclass"
    return PredictorSpec(tuple(classes), task, channels, "uint8", calls_in_flight=2)


def checked_channels(image: Image, before: int) -> int:
    """The number of channels, which has to be that of the images ``before`` (0: none yet)."""
    channels = image.shape[2]
    if image.dtype != np.uint8 or channels not in (1, 3) or before not in (0, channels):
        wanted = f"{before}" if before else "1 or 3"
        raise ImageError(
            f"the image is {image.dtype} with {channels} channels",
            mend=f"This method takes uint8 with {wanted} channels.",
        )
    return int(channels)


def blurred(image: Image, blur_px: float) -> Image:
    if blur_px <= 0:
        return image
    return np.asarray(cv2.GaussianBlur(image, (0, 0), blur_px)).reshape(image.shape)


def plane(image: Image, channel: str) -> GreyPlane:
    if image.shape[2] == 1:
        return np.ascontiguousarray(image[:, :, 0])
    match channel:
        case "red" | "green" | "blue":
            return np.ascontiguousarray(image[:, :, ("red", "green", "blue").index(channel)])
        case "saturation":
            return np.ascontiguousarray(cv2.cvtColor(image, cv2.COLOR_RGB2HSV)[:, :, 1])
        case _:
            return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))


def one_class(
    found: Bool[np.ndarray, "n h w"],
    foreground: int,
    other: int,
    spec: PredictorSpec,
    outputs: Sequence[Output],
) -> Prediction:
    """The outputs of a method that only says yes or no; probabilities are 0 or 255."""
    probabilities = np.zeros((len(found), len(spec.classes), *found.shape[1:]), np.float32)
    probabilities[:, foreground] = found
    probabilities[:, other] = ~found
    return finish(probabilities, spec, outputs)


def finish(
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
