"""Nuclei: where they lie in each kind of tissue, their outlines, and how they are drawn."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float64, Int32, UInt8

from delineate.data.synth.tissue.layout import CORNERS, STROMA, TUMOUR, Layout

CORNERS_OF_NUCLEUS = 16
SHIFT = 4  # outlines have 1/16 px


@dataclass(frozen=True)
class Nuclei:
    """A population of nuclei; arrays have one entry, or row, for each.

    Attributes:
        xy: centres, pixels.
        long: half of the long axis, pixels.
        short: half of the short axis, pixels.
        angle: direction of the long axis, radians.
        wobble: how irregular the outline is, share of the radius.
        shade: concentration of haematoxylin, 1 to 255.
    """

    xy: Float64[np.ndarray, "n 2"]
    long: Float64[np.ndarray, " n"]
    short: Float64[np.ndarray, " n"]
    angle: Float64[np.ndarray, " n"]
    wobble: Float64[np.ndarray, " n"]
    shade: Float64[np.ndarray, " n"]

    def outlines(self, rng: np.random.Generator) -> Int32[np.ndarray, "n corners 2"]:
        """Closed lines (x, y) in 1/16 px."""
        around = np.arange(CORNERS_OF_NUCLEUS) * (2 * np.pi / CORNERS_OF_NUCLEUS)
        radius = np.ones((len(self.xy), CORNERS_OF_NUCLEUS))
        for wave in (2, 3, 4):
            phase = rng.uniform(0, 2 * np.pi, (len(self.xy), 1))
            size = self.wobble * rng.uniform(0.3, 1.0, len(self.xy))
            radius += size[:, None] * np.cos(wave * around + phase)
        along = radius * np.cos(around) * self.long[:, None]
        across = radius * np.sin(around) * self.short[:, None]
        cosine, sine = np.cos(self.angle)[:, None], np.sin(self.angle)[:, None]
        x = self.xy[:, :1] + along * cosine - across * sine
        y = self.xy[:, 1:] + along * sine + across * cosine
        corners: Int32[np.ndarray, "n corners 2"]
        corners = np.rint(np.stack([x, y], axis=-1) * (1 << SHIFT)).astype(np.int32)
        return corners


def draw(plane: UInt8[np.ndarray, "h w"], nuclei: Nuclei, rng: np.random.Generator) -> None:
    """Draw ``nuclei`` into a plane of haematoxylin, with smooth edges."""
    lines = nuclei.outlines(rng)
    for line, shade in zip(lines, nuclei.shade.tolist(), strict=True):
        cv2.fillPoly(plane, [line], shade, cv2.LINE_AA, SHIFT)


def scattered(
    rng: np.random.Generator, hw: tuple[int, int], spacing_px: float, jitter: float
) -> Float64[np.ndarray, "n 2"]:
    """Centres (x, y) on a shaken hexagonal grid, pixels."""
    rows = int(hw[0] / (spacing_px * 0.866)) + 2
    columns = int(hw[1] / spacing_px) + 2
    row, column = np.mgrid[0:rows, 0:columns].astype(np.float64)
    x = (column + 0.5 * (row % 2)) * spacing_px
    y = row * spacing_px * 0.866
    xy = np.stack([x.ravel(), y.ravel()], 1)
    xy += rng.uniform(-jitter, jitter, xy.shape) * spacing_px
    inside = (xy >= 0).all(1) & (xy[:, 0] < hw[1]) & (xy[:, 1] < hw[0])
    return xy[inside]


def of_stroma(rng: np.random.Generator, layout: Layout) -> Nuclei:
    """Thin nuclei along the fibres, and a few small round ones (lymphocytes) among them."""
    labels = layout.labels
    xy = scattered(rng, labels.shape, 19.0, 0.45)
    xy = xy[_label_at(labels, xy) == STROMA]
    xy = xy[rng.random(len(xy)) < 0.8]
    n = len(xy)
    column, row = xy.astype(np.int64).T
    angle = np.arctan2(layout.sine[row, column], layout.cosine[row, column]).astype(np.float64)
    angle += rng.normal(0, 0.12, n)
    round_one = rng.random(n) < 0.12
    long = np.where(round_one, rng.uniform(4.2, 5.2, n), rng.uniform(8.5, 14.0, n))
    short = np.where(round_one, long * rng.uniform(0.9, 1.0, n), rng.uniform(2.3, 3.6, n))
    return Nuclei(xy, long, short, angle, np.full(n, 0.05), rng.uniform(150, 235, n))


def of_glands(rng: np.random.Generator, layout: Layout) -> Nuclei:
    """One ring in each gland: alike, evenly spaced, at the foot of cells that face the lumen."""
    parts: list[Float64[np.ndarray, "n 4"]] = []
    for gland in layout.glands:
        foot = gland.outer - 8.5
        count = max(6, int(2 * np.pi * foot.mean() / 9.0))
        angle = (np.arange(count) + rng.uniform(-0.18, 0.18, count)) * (2 * np.pi / count)
        radius = np.interp(
            angle,
            np.arange(CORNERS + 1) * (2 * np.pi / CORNERS),
            np.append(foot, foot[0]),
            period=2 * np.pi,
        )
        radius = radius + rng.normal(0, 0.9, count)
        x = gland.centre[0] + radius * np.cos(angle)
        y = gland.centre[1] + radius * np.sin(angle)
        parts.append(np.stack([x, y, angle, np.full(count, foot.mean())], 1))
    rows = np.concatenate(parts) if parts else np.empty((0, 4))
    n = len(rows)
    return Nuclei(
        rows[:, :2].copy(),
        rng.uniform(6.0, 7.2, n),
        rng.uniform(3.5, 4.1, n),
        rows[:, 2] + rng.normal(0, 0.08, n),
        np.full(n, 0.03),
        rng.uniform(165, 225, n),
    )


def of_tumour(rng: np.random.Generator, layout: Layout) -> Nuclei:
    """Crowded, large and unlike each other, irregular, in no order, a few very dark."""
    labels = layout.labels
    xy = scattered(rng, labels.shape, 18.5, 0.36)
    xy = xy[_label_at(labels, xy) == TUMOUR]
    xy = xy[rng.random(len(xy)) < 0.88]
    n = len(xy)
    size = np.clip(np.exp(rng.normal(np.log(7.2), 0.24, n)), 4.5, 13.0)
    shape = rng.uniform(0.62, 1.0, n)
    shade = np.where(rng.random(n) < 0.08, rng.uniform(225, 250, n), rng.uniform(130, 220, n))
    return Nuclei(
        xy,
        size / np.sqrt(shape),
        size * np.sqrt(shape),
        rng.uniform(0, np.pi, n),
        rng.uniform(0.05, 0.16, n),
        shade,
    )


def nucleoli(rng: np.random.Generator, nuclei: Nuclei) -> Nuclei:
    """One to two dark spots inside each nucleus."""
    owner = np.repeat(np.arange(len(nuclei.xy)), rng.integers(1, 3, len(nuclei.xy)))
    n = len(owner)
    angle, reach = rng.uniform(0, 2 * np.pi, n), rng.uniform(0.1, 0.45, n) * nuclei.short[owner]
    offset = np.stack([np.cos(angle), np.sin(angle)], 1) * reach[:, None]
    size = rng.uniform(1.3, 2.2, n)
    return Nuclei(nuclei.xy[owner] + offset, size, size, angle, np.zeros(n), np.full(n, 255.0))


def _label_at(
    labels: UInt8[np.ndarray, "h w"], xy: Float64[np.ndarray, "n 2"]
) -> UInt8[np.ndarray, " n"]:
    column, row = xy.astype(np.int64).T
    found: UInt8[np.ndarray, " n"] = labels[row, column]
    return found
