"""Smooth random displacements from few control points."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, Float64


def spline_basis(size_px: int, spacing_px: int) -> Float32[np.ndarray, "size points"]:
    """Uniform cubic B-spline weights of control points for each pixel of a line.

    The weights of a pixel are from 0 to 1 and sum to 1, so that a curve never leaves the range
    of its control points (bicubic resizing overshoots).

    Args:
        size_px: length of the line, pixels.
        spacing_px: distance of control points, pixels.

    Returns:
        one row for each pixel; the control points are at :func:`control_places`.
    """
    knot, t = np.divmod(np.arange(size_px) / spacing_px, 1.0)
    weights = (
        (1 - t) ** 3 / 6,
        (3 * t**3 - 6 * t**2 + 4) / 6,
        (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6,
        t**3 / 6,
    )
    first = knot.astype(np.intp)
    basis = np.zeros((size_px, int(first[-1]) + 4), np.float32)
    for number, weight in enumerate(weights):
        basis[np.arange(size_px), first + number] = weight
    return basis


def control_places(points: int, spacing_px: int) -> Float64[np.ndarray, " points"]:
    """Where control points lie along the line, pixels; from one before it to one after it.

    A curve whose control points lie on a straight line is that line.
    """
    return (np.arange(points) - 1.0) * spacing_px


def smooth_field(
    basis: Float32[np.ndarray, "size points"], control: Float32[np.ndarray, "points points"]
) -> Float32[np.ndarray, "size size"]:
    """The surface over a square that ``control`` spans; within the range of its values."""
    field: Float32[np.ndarray, "size size"] = basis @ control @ basis.T
    return field
