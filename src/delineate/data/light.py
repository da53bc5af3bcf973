"""Brightness, contrast and hue of images of any dtype."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np

from delineate.types import Image


def value_range(image: Image) -> float:
    """What a share of range refers to; 0 where the image holds no finite range."""
    if image.dtype == np.uint8:
        return 255.0
    low, high = np.percentile(image[::4, ::4], (1, 99))  # a sixteenth of the pixels will do
    return float(high - low) if np.isfinite(high - low) else 0.0


def recolour(image: Image, shift: float, factor: float, turn: float) -> Image:
    """Contrast about the mean, brightness, and a turn of the hue, in one pass.

    Args:
        image: (H, W, C).
        shift: brightness, share of range.
        factor: contrast; 1 leaves it.
        turn: hue, share of a circle, for RGB; a rotation about the grey axis of the RGB cube,
            which keeps R + G + B.
    """
    if (shift, factor, turn) == (0.0, 1.0, 0.0):
        return image
    mean = float(image.mean(dtype=np.float64))
    if not math.isfinite(mean):
        return image
    offset = mean * (1 - factor) + shift * value_range(image)
    if turn != 0.0:
        cos, sin = math.cos(2 * math.pi * turn), math.sin(2 * math.pi * turn)
        cross = np.array([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]])
        rotation = cos * np.eye(3) + (1 - cos) / 3 * np.ones((3, 3)) + sin / math.sqrt(3) * cross
        turned: Image = cv2.transform(
            image, np.column_stack([factor * rotation, np.full(3, offset)])
        )
        return turned
    if image.dtype == np.uint8:
        table = as_dtype(np.arange(256, dtype=np.float32) * factor + offset, image.dtype)
        flat = np.ascontiguousarray(image).reshape(len(image), -1)
        looked_up: Image = cv2.LUT(flat, table).reshape(image.shape)
        return looked_up
    changed = image.astype(np.float32) * np.float32(factor) + np.float32(offset)
    return as_dtype(changed, image.dtype)


def as_dtype(values: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    """Float values as ``dtype``: rounded and kept in range for integers."""
    if not np.issubdtype(dtype, np.integer):
        return values.astype(dtype, copy=False)
    rounded: np.ndarray = np.clip(np.rint(values), 0, np.iinfo(dtype).max).astype(dtype)
    return rounded
