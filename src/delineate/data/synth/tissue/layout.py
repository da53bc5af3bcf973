"""Where things are: bare glass, tumour, glands, and the direction of the stroma between them."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float64, UInt, UInt8

from delineate.data.synth.fields import Plane, enlarge, smooth_field
from delineate.types import InstanceMap

BACKGROUND, STROMA, GLAND, TUMOUR = range(4)
CELL_PX = 8  # the layout is made on a map this much smaller
SMALLEST_REGION_PX = 100 * 100
GLAND_RADIUS_PX = (40.0, 72.0)
CORNERS = 64


@dataclass(frozen=True)
class Gland:
    """One gland: a ring of epithelium round a lumen, as radii at :data:`CORNERS` angles."""

    centre: tuple[float, float]
    outer: Float64[np.ndarray, " corners"]
    lumen: Float64[np.ndarray, " corners"]

    def at(self, radii: Float64[np.ndarray, " corners"]) -> Float64[np.ndarray, "corners 2"]:
        """The closed line (x, y), pixels, at ``radii`` from the centre."""
        angle = np.arange(CORNERS) * (2 * np.pi / CORNERS)
        return np.stack(
            [self.centre[0] + radii * np.cos(angle), self.centre[1] + radii * np.sin(angle)], 1
        )


@dataclass(frozen=True)
class Layout:
    """The plan of a scene, (H, W) each; the direction is that of the fibres."""

    labels: UInt8[np.ndarray, "h w"]
    glands: tuple[Gland, ...]
    cosine: Plane
    sine: Plane

    def instances(self) -> InstanceMap:
        """Object ids: the glands in the order they were placed, then the tumour nests.

        A nest is a region of tumour whose pixels touch side to side. Glands touch neither each
        other nor tumour. Stroma and glass are no objects.
        """
        _, nests = cv2.connectedComponents((self.labels == TUMOUR).astype(np.uint8), connectivity=4)
        ids = np.where(nests > 0, nests + len(self.glands), 0).astype(np.uint16)
        for number, gland in enumerate(self.glands, start=1):
            fill(ids, gland.at(gland.outer), number)
        return ids


def lay_out(rng: np.random.Generator, hw: tuple[int, int]) -> Layout:
    """Draw the plan of a scene of (H, W) pixels."""
    small_hw = (-(-hw[0] // CELL_PX), -(-hw[1] // CELL_PX))
    # A small field may show no tumour or no glass; a large one shows both, in larger regions
    large = hw[0] * hw[1] > 1500**2
    wider = min(max((hw[0] * hw[1]) ** 0.25 / 32, 1.0), 2.0)
    tumour_share = float(rng.uniform(0.2, 0.7)) * (rng.random() > 0.1 or large)
    glass_share = float(rng.uniform(0.05, 0.3)) * (rng.random() > 0.6 or large)
    tumour = _region(rng, small_hw, 300.0 * wider, tumour_share)
    glass = _region(rng, small_hw, 500.0 * wider, glass_share)

    labels = np.full(hw, STROMA, np.uint8)
    labels[enlarge(tumour, hw) > 0] = TUMOUR
    labels[enlarge(glass, hw) > 0] = BACKGROUND
    taken = np.maximum(tumour, glass) > 0
    glands = _place_glands(rng, taken)
    for gland in glands:
        fill(labels, gland.at(gland.outer), GLAND)
    cosine, sine = _direction(rng, hw, labels)
    return Layout(labels, glands, cosine, sine)


def fill(plane: UInt[np.ndarray, "h w"], line: Float64[np.ndarray, "n 2"], value: int) -> None:
    """Fill the inside of a closed line (x, y) with ``value``, with hard edges."""
    cv2.fillPoly(plane, [np.rint(line * 16).astype(np.int32)], value, cv2.LINE_8, 4)


def _region(
    rng: np.random.Generator, small_hw: tuple[int, int], scale_px: float, share: float
) -> Plane:
    """A small map that is positive in large regions with smooth borders covering ``share``."""
    field = smooth_field(rng, small_hw, scale_px / CELL_PX)
    if share == 0:
        return np.full(small_hw, -1, np.float32)
    inside = (field > np.quantile(field, 1 - share)).astype(np.uint8)
    soft = np.empty(0, np.float32)
    for _ in range(2):  # once more for the thin necks that the first blur leaves
        _remove_specks(inside)
        soft = cv2.GaussianBlur(inside.astype(np.float32), (0, 0), 20.0 / CELL_PX) - 0.5
        inside = (soft > 0).astype(np.uint8)
    return soft


def _remove_specks(inside: UInt8[np.ndarray, "h w"]) -> None:
    """Turn over the small parts and holes of a map of 0 and 1: they would be all border."""
    for value in (1, 0):
        _, parts, stats, _ = cv2.connectedComponentsWithStats(
            (inside == value).astype(np.uint8), connectivity=4
        )
        # Pictures of the size of a region or two keep smaller ones
        smallest = min(SMALLEST_REGION_PX / CELL_PX**2, 0.04 * inside.size)
        small = stats[:, cv2.CC_STAT_AREA] < smallest
        small[0] = False  # what is not part of any
        inside[small[parts]] = 1 - value


def _place_glands(rng: np.random.Generator, taken: Bool[np.ndarray, "h w"]) -> tuple[Gland, ...]:
    """Glands that touch neither each other nor the taken places, thrown in large ones first."""
    height, width = taken.shape
    free = np.pad((~taken).astype(np.uint8), 1, constant_values=1)
    # With nothing taken the distance is the largest float
    room = np.minimum(cv2.distanceTransform(free, cv2.DIST_L2, 5)[1:-1, 1:-1], 1e6) * CELL_PX
    throws = max(8, height * width * CELL_PX**2 // 700)
    radii = np.sort(rng.uniform(*GLAND_RADIUS_PX, size=throws))[::-1]
    xy = rng.uniform(0, (width, height), size=(throws, 2))
    # Glands lie in lobules, with stroma alone between them
    lobule = smooth_field(rng, (height, width), 400 / CELL_PX)
    cells = xy.astype(np.int64)
    fits = room[cells[:, 1], cells[:, 0]] > radii + 12
    fits &= lobule[cells[:, 1], cells[:, 0]] > -0.5
    placed: list[Gland] = []
    centres, sizes = np.empty((0, 2)), np.empty(0)
    for radius, centre in zip(radii[fits], xy[fits] * CELL_PX, strict=True):
        gap = np.hypot(*(centres - centre).T) - sizes - radius
        if len(gap) and gap.min() < 12:
            continue
        placed.append(_gland(rng, centre, float(radius)))
        centres, sizes = np.vstack([centres, centre]), np.append(sizes, radius)
    return tuple(placed)


def _gland(rng: np.random.Generator, centre: Float64[np.ndarray, " 2"], radius: float) -> Gland:
    angle = np.arange(CORNERS) * (2 * np.pi / CORNERS)
    squeeze, turn = rng.uniform(0.68, 1.0), rng.uniform(0, np.pi)
    across = angle - turn
    outer = radius * squeeze / np.sqrt((squeeze * np.cos(across)) ** 2 + np.sin(across) ** 2)
    for wave in (3, 4, 5):
        outer *= 1 + rng.uniform(0, 0.05) * (np.cos(wave * angle + rng.uniform(0, 2 * np.pi)) - 1)
    thick = rng.uniform(20, 26)
    lumen = np.maximum(outer - thick, 6) * (1 + 0.06 * np.cos(9 * angle + rng.uniform(0, 6)))
    return Gland((float(centre[0]), float(centre[1])), outer, lumen)


def _direction(
    rng: np.random.Generator, hw: tuple[int, int], labels: UInt8[np.ndarray, "h w"]
) -> tuple[Plane, Plane]:
    """Cosine and sine of the fibres' angle: smooth, wavy, and along the border of what they meet.

    Angles are doubled while they are mixed, since a fibre has no front end.
    """
    cell = 4
    small_hw = (-(-hw[0] // cell), -(-hw[1] // cell))
    double = smooth_field(rng, small_hw, 260 / cell) * 2.2 + rng.uniform(0, 2 * np.pi)
    double += 0.55 * smooth_field(rng, small_hw, 36 / cell)
    c2, s2 = np.cos(double), np.sin(double)
    solid = cv2.resize(
        (labels != STROMA).astype(np.uint8), small_hw[::-1], interpolation=cv2.INTER_NEAREST
    )
    far = cv2.distanceTransform(1 - solid, cv2.DIST_L2, 5)
    smooth = cv2.GaussianBlur(np.minimum(far, 40), (0, 0), 3)
    gx, gy = cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1)
    steep = gx**2 + gy**2 + 1e-6
    near = 1.6 * np.exp(-far * (cell / 25.0))
    # The border runs across the gradient: its doubled angle is the gradient's plus a half turn
    c2 += near * (gy**2 - gx**2) / steep
    s2 += near * (-2 * gx * gy) / steep
    c2, s2 = (enlarge(np.asarray(plane, np.float32), hw) for plane in (c2, s2))
    length = np.sqrt(c2**2 + s2**2) + np.float32(1e-6)
    cosine = np.sqrt(np.clip((1 + c2 / length) / 2, 0, 1))
    sine = np.sqrt(np.clip((1 - c2 / length) / 2, 0, 1))
    return cosine, np.copysign(sine, s2)
