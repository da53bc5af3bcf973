"""Pictures of cells: what shines or absorbs, the lens, the lamp and the camera.

Everything is computed from the map of object ids at its own resolution.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float32, Float64, UInt8

from delineate.data.synth.fields import Plane, enlarge, fibres, smooth_field
from delineate.types import InstanceMap

_BRIGHT_FIELD = 0.25  # share of the images


@dataclass(frozen=True)
class CellField:
    """Where cells lie.

    Attributes:
        ids: (H, W) object ids from 1.
        radius: typical radius, pixels.
        radii: radius of each cell by id, pixels; that of id 0 is not used.
    """

    ids: InstanceMap
    radius: float
    radii: Float64[np.ndarray, " k"]

    @property
    def hw(self) -> tuple[int, int]:
        return self.ids.shape[0], self.ids.shape[1]


def photograph_cells(rng: np.random.Generator, cells: CellField) -> UInt8[np.ndarray, "h w 3"]:
    """The picture, (H, W, 3) uint8 RGB: in fluorescence or, less often, in bright field."""
    if rng.random() < _BRIGHT_FIELD:
        return _bright_field(rng, cells)
    return _fluorescence(rng, cells)


def _fluorescence(rng: np.random.Generator, cells: CellField) -> UInt8[np.ndarray, "h w 3"]:
    """Bright nuclei on a dark ground; light adds up. A tenth is in the blue of the dye."""
    light = _in_and_out_of_focus(rng, cells, _nuclei(rng, cells, rim=0.0))
    haze = _soft(light, 1.5 * cells.radius)
    light += haze * float(rng.uniform(0.02, 0.2))
    light += _debris(rng, cells) * float(rng.uniform(0.3, 1.6))
    light += _threads(rng, cells) * float(rng.uniform(0.02, 0.1))
    light *= _lamp(rng, cells.hw, 0.6)
    brightest = math.exp(rng.uniform(math.log(32), math.log(190)))  # grey values of one nucleus
    light *= brightest
    light += float(rng.uniform(2, 14)) * _lamp(rng, cells.hw, 0.4)
    gain, read = float(rng.uniform(0.02, 0.3)), float(rng.uniform(0.3, 1.2))
    # Shot noise: the variance of a count is its mean
    light += rng.standard_normal(cells.hw, np.float32) * np.sqrt(gain * light + read**2)
    grey = np.rint(np.clip(light, 0, 255)).astype(np.uint8)
    if rng.random() < 0.9:
        return np.repeat(grey[:, :, None], 3, axis=2)
    return np.stack([grey // 8, grey // 4, grey], axis=-1)


def _bright_field(rng: np.random.Generator, cells: CellField) -> UInt8[np.ndarray, "h w 3"]:
    """Dark nuclei on a pale ground; light that passes is ``exp(-density)`` (Beer-Lambert)."""
    stain, ground = _stains(rng)
    nuclear = _in_and_out_of_focus(rng, cells, _nuclei(rng, cells, rim=0.35))
    nuclear += _debris(rng, cells) * float(rng.uniform(0.5, 1.5))
    inside = (cells.ids > 0).astype(np.float32)
    plasma = _soft(inside, 0.5 * cells.radius) * float(rng.uniform(0.0, 0.5))
    matrix = float(rng.uniform(0.05, 0.4)) + plasma
    matrix += _strands(rng, cells.hw) * float(rng.uniform(0.01, 0.07))
    matrix += smooth_field(rng, cells.hw, 40.0) * float(rng.uniform(0.0, 0.05))
    density = nuclear[..., None] * stain + np.maximum(matrix, 0)[..., None] * ground
    lamp = (rng.uniform(225, 245) * rng.uniform(0.95, 1.0, 3)).astype(np.float32)
    light = np.exp(-density) * lamp * _lamp(rng, cells.hw, 0.16)[..., None]
    noise = float(rng.uniform(1.0, 4.0))
    light += rng.standard_normal(light.shape, np.float32) * noise
    return np.asarray(np.rint(np.clip(light, 0, 255)), np.uint8)


def _stains(
    rng: np.random.Generator,
) -> tuple[Float32[np.ndarray, " 3"], Float32[np.ndarray, " 3"]]:
    """Optical density in red, green and blue of nuclei and of what lies between them."""
    if rng.random() < 0.2:  # a grey camera, or a dye without colour
        grey = np.full(3, rng.uniform(0.5, 0.9), np.float32)
        return grey, grey * np.float32(0.4)
    nuclei = rng.uniform((0.55, 0.8, 0.15), (0.9, 1.15, 0.4))
    between = rng.uniform((0.05, 0.35, 0.05), (0.4, 0.7, 0.2))
    return nuclei.astype(np.float32), between.astype(np.float32)


def _nuclei(rng: np.random.Generator, cells: CellField, *, rim: float) -> Plane:
    """How much of the dye each pixel holds, about 1 inside of nuclei and 0 outside.

    Args:
        rim: how much more there is at the envelope, which a stain shows and fluorescence not.
    """
    depth = _depth(cells.ids)
    radii = cells.radii.astype(np.float32)[cells.ids]
    # A nucleus is thin at its edge
    dome = np.sqrt(np.minimum((depth + 0.3) / (0.33 * radii), 1.0)).astype(np.float32)
    coarse = smooth_field(rng, cells.hw, max(0.7 * cells.radius, 4.0))
    fine = smooth_field(rng, cells.hw, max(0.22 * cells.radius, 2.5))
    spots, grain = float(rng.uniform(0.0, 0.45)), float(rng.uniform(0.02, 0.13))
    texture = 1 + spots * np.clip(fine - 0.8, 0, 1.5) + grain * (fine + coarse)
    nucleoli = float(rng.uniform(0.0, 0.7))
    texture -= nucleoli * np.clip(coarse + fine - 1.6, 0, 0.8)
    dye = _dye(rng, len(cells.radii))[cells.ids] * dome * texture
    dye += rim * np.exp(-depth) * (cells.ids > 0)
    return np.asarray(np.maximum(dye, 0), np.float32)


def _dye(rng: np.random.Generator, k: int) -> Float32[np.ndarray, " k"]:
    """How much each cell holds, by id: alike, but for a few that are condensed or faint."""
    dye = np.exp(rng.normal(0, rng.uniform(0.05, 0.3), k))
    odd = rng.random(k)
    dye[odd < 0.03] *= 1.8
    dye[odd > 0.96] *= 0.6
    dye[0] = 0
    return np.asarray(np.maximum(dye, 0.35 * (np.arange(k) > 0)), np.float32)


def _depth(ids: InstanceMap) -> Plane:
    """Distance of each pixel from the border of its own cell, pixels; 0 outside."""
    inside = (ids > 0).astype(np.uint8)
    for axis in (0, 1):
        differs = np.diff(ids.astype(np.int32), axis=axis) != 0
        before = inside[:-1] if axis == 0 else inside[:, :-1]
        after = inside[1:] if axis == 0 else inside[:, 1:]
        before[differs] = 0
        after[differs] = 0
    return np.asarray(cv2.distanceTransform(inside, cv2.DIST_L2, 5), np.float32)


def _in_and_out_of_focus(rng: np.random.Generator, cells: CellField, plane: Plane) -> Plane:
    """``plane`` through a lens in which some cells lie above or below the focus."""
    above = rng.random(len(cells.radii)) < rng.choice([0.0, 0.1, 0.3])
    sharp = float(rng.uniform(0.6, 1.3))
    if rng.random() < 0.1:  # nobody turned the knob
        sharp = 0.18 * cells.radius + 0.6
    blurred = sharp + 0.2 * cells.radius
    far = plane * above[cells.ids]
    light = cv2.GaussianBlur(plane - far, (0, 0), sharp)
    return np.asarray(light + cv2.GaussianBlur(far, (0, 0), blurred), np.float32)


def _soft(plane: Plane, sigma: float) -> Plane:
    """A wide blur, made at a quarter of the size."""
    hw = (plane.shape[0], plane.shape[1])
    small = cv2.resize(plane, (-(-hw[1] // 4), -(-hw[0] // 4)), interpolation=cv2.INTER_AREA)
    wide = np.asarray(cv2.GaussianBlur(small, (0, 0), sigma / 4), np.float32)
    return np.asarray(np.maximum(enlarge(wide, hw), 0), np.float32)


def _lamp(rng: np.random.Generator, hw: tuple[int, int], strength: float) -> Plane:
    """Uneven light, about 1: a slope, darker corners."""
    y, x = (np.linspace(-1, 1, side, dtype=np.float32) for side in hw)
    across, down, corner = (rng.uniform(-1, 1, 3) * strength).tolist()
    slope = across * x[None, :] + down * y[:, None]
    lamp = 1 + 0.5 * slope - 0.5 * abs(corner) * (x[None, :] ** 2 + y[:, None] ** 2)
    return np.asarray(np.maximum(lamp, 0.3), np.float32)


def _debris(rng: np.random.Generator, cells: CellField) -> Plane:
    """Specks that are no cells, 0 to 1: much smaller than a nucleus."""
    height, width = cells.hw
    count = int(rng.poisson(float(rng.choice([0.5, 6.0])) * height * width / 256**2))
    specks = np.zeros(cells.hw, np.uint8)
    radii = rng.uniform(0.4, max(0.16 * cells.radius, 1.3), (count, 2))
    centres = rng.uniform(0, (width, height), (count, 2))
    shades = rng.uniform(60, 255, count)
    for centre, axes, shade in zip(centres, radii, shades.tolist(), strict=True):
        middle, half = np.rint(centre * 16).astype(int), np.rint(axes * 16).astype(int)
        cv2.ellipse(
            specks, middle.tolist(), half.tolist(), shade, 0, 360, shade, -1, cv2.LINE_AA, 4
        )
    soft = cv2.GaussianBlur(specks, (0, 0), float(rng.uniform(0.6, 1.2)))
    return np.asarray(soft, np.float32) / 255


def _threads(rng: np.random.Generator, cells: CellField) -> Plane:
    """Faint curved fibres, 0 to 1."""
    height, width = cells.hw
    count = int(rng.poisson(float(rng.choice([0.0, 3.0])) * height * width / 256**2))
    threads = np.zeros(cells.hw, np.uint8)
    steps = np.linspace(0, 1, 24)[:, None]
    for _ in range(count):
        start, bend = rng.uniform(0, (width, height), 2), rng.normal(0, 25, 2)
        end = start + rng.normal(0, 60, 2)
        line = start + steps * (end - start) + steps * (1 - steps) * 4 * bend
        cv2.polylines(threads, [np.rint(line * 16).astype(np.int32)], False, 255, 1, cv2.LINE_AA, 4)
    return np.asarray(cv2.GaussianBlur(threads, (0, 0), 0.8), np.float32) / 255


def _strands(rng: np.random.Generator, hw: tuple[int, int]) -> Plane:
    """Fibres of the tissue in one wavy direction, mean about 0 and variance about 1."""
    angle = float(rng.uniform(0, np.pi)) + 0.5 * smooth_field(rng, hw, 90.0)
    return fibres(rng, np.cos(angle), np.sin(angle))
