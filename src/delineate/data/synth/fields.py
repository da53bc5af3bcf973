"""Random fields that the scene is made of: smooth ones, and fibres along a direction."""

from __future__ import annotations

import math
from typing import TypeAlias

import cv2
import numpy as np
from jaxtyping import Float32

Plane: TypeAlias = Float32[np.ndarray, "h w"]


def smooth_field(rng: np.random.Generator, hw: tuple[int, int], scale_px: float) -> Plane:
    """Gaussian noise of mean 0 and variance 1, (H, W), whose bumps are about ``scale_px`` wide."""
    cell = max(1.0, scale_px / 6)
    margin = 6  # cells beyond the edge, so that the blur sees noise there too
    rows, columns = (math.ceil(side / cell) + 2 * margin + 2 for side in hw)
    noise = rng.standard_normal((rows, columns), dtype=np.float32)
    sigma = scale_px / cell / 2.8
    noise = np.asarray(cv2.GaussianBlur(noise, (0, 0), sigma), np.float32)
    # White noise blurred by sigma has the standard deviation 1 / (2 sigma sqrt(pi))
    noise *= 2 * sigma * math.sqrt(math.pi)
    matrix = np.array([[1 / cell, 0, margin], [0, 1 / cell, margin]], np.float64)
    return np.asarray(
        cv2.warpAffine(noise, matrix, (hw[1], hw[0]), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    )


def enlarge(field: Plane, hw: tuple[int, int]) -> Float32[np.ndarray, "large_h large_w"]:
    """``field`` resized to (H, W) with smooth edges."""
    return np.asarray(cv2.resize(field, (hw[1], hw[0]), interpolation=cv2.INTER_CUBIC))


def fibres(rng: np.random.Generator, cosine: Plane, sine: Plane) -> Plane:
    """Noise drawn out into strands, (H, W), mean about 0 and variance about 1.

    This is line integral convolution (Cabral and Leedom, 1993), with steps that grow so that
    four passes make strands some 30 px long.

    Args:
        cosine: cosine of the strands' angle, (H, W); its sign does not matter.
        sine: sine of the strands' angle, (H, W).
    """
    hw = (cosine.shape[0], cosine.shape[1])
    strands = rng.standard_normal(hw, dtype=np.float32)
    strands += 1.2 * smooth_field(rng, hw, 7.0)
    x = np.arange(hw[1], dtype=np.float32)[None, :]
    y = np.arange(hw[0], dtype=np.float32)[:, None]
    for step_px in (1.5, 3.5, 8.0):
        ahead = _moved(strands, x + step_px * cosine, y + step_px * sine)
        behind = _moved(strands, x - step_px * cosine, y - step_px * sine)
        strands = (strands + ahead + behind) / 3
    strands -= strands.mean(dtype=np.float64)
    strands /= max(float(strands.std(dtype=np.float64)), 1e-6)
    return strands


def _moved(field: Plane, x: Plane, y: Plane) -> Plane:
    return np.asarray(cv2.remap(field, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101))
