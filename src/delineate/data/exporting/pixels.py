"""8-bit PNG files without a palette."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

# runs and the difference from the row above: label maps are flat, so this is fast and small
_SETTINGS = (
    cv2.IMWRITE_PNG_COMPRESSION,
    1,
    cv2.IMWRITE_PNG_STRATEGY,
    cv2.IMWRITE_PNG_STRATEGY_RLE,
    cv2.IMWRITE_PNG_FILTER,
    cv2.IMWRITE_PNG_FILTER_UP,
)


def write_png(path: Path, pixels: UInt8[np.ndarray, "h w *rgb"]) -> None:
    """Write (H, W) grey or (H, W, 3) RGB values, 0 to 255."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = pixels if pixels.ndim == 2 else pixels[:, :, ::-1]
    _, data = cv2.imencode(".png", stored, _SETTINGS)
    path.write_bytes(data.tobytes())
