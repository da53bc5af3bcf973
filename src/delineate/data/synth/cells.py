"""Cells under a microscope: ``delineate data synth cells``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np
from jaxtyping import Bool, Float64, Int32

from delineate.data.synth.dataset import Scene, SynthSettings, generator
from delineate.data.synth.microscope import CellField, photograph_cells
from delineate.types import InstanceMap

CLASSES = ("background", "cell")
_STREAM = 2  # so that one seed gives unrelated numbers for each kind of dataset
_CORNERS = 32
_SHIFT = 4  # outlines have 1/16 px
_RADIUS_PX = (6.0, 24.0)
_MOST_CELLS = 60_000  # 16-bit ids number 65535
_THROWS = 4  # for each cell that is wanted
_LEAST_FREE = 0.88  # share of a cell that no other covers


class CellsSettings(SynthSettings):
    """What decides the pixels of a generated dataset of cells.

    A cell counts as its nucleus, as in the 2018 Data Science Bowl (Caicedo and others, 2019),
    whose pictures these are modelled on: three in four show fluorescence, the others bright
    field. Cells in a cluster touch and have ids of their own. Debris, threads and haze are
    background.
    """

    kind: ClassVar[str] = "cells"
    classes: ClassVar[tuple[str, ...]] = CLASSES

    def sample(self, index: int) -> Scene:
        """Image number ``index``, whatever ``n`` is, with object ids if they are asked for."""
        rng = generator(self.seed, index, _STREAM)
        radius = min(math.exp(rng.uniform(*np.log(_RADIUS_PX))), self.size / 6)
        wanted = rng.uniform(0.05, 0.35) * self.size**2 / (math.pi * radius**2)
        count = min(max(round(wanted), 2), _MOST_CELLS)
        cells = _Throws.draw(rng, self.size, radius, count * _THROWS)
        ids = np.zeros((self.size, self.size), np.uint16)
        placed = _place(ids, cells, count)
        field = CellField(ids, radius, np.append(1.0, np.sqrt(cells.long * cells.short)[placed]))
        image = photograph_cells(rng, field)
        labels = (ids > 0).astype(np.uint8)
        return Scene(image, labels, ids if self.instances else None)


@dataclass(frozen=True)
class _Throws:
    """Cells that are tried one after the other; arrays have one entry, or row, for each.

    Attributes:
        xy: centre of one that lies alone, pixels.
        joins: whether it is put beside a cell that is there already.
        towards: which of those, as a share of their number, and in which direction, radians.
        gap: distance of the centres over the distance at which the outlines touch.
        long, short: half of the axes, pixels.
        angle: direction of the long axis, radians.
        outline: closed lines (x, y) round the centre, pixels.
    """

    xy: Float64[np.ndarray, "n 2"]
    joins: Bool[np.ndarray, " n"]
    towards: Float64[np.ndarray, "n 2"]
    gap: Float64[np.ndarray, " n"]
    long: Float64[np.ndarray, " n"]
    short: Float64[np.ndarray, " n"]
    angle: Float64[np.ndarray, " n"]
    outline: Float64[np.ndarray, "n corners 2"]

    @staticmethod
    def draw(rng: np.random.Generator, size: int, radius: float, n: int) -> _Throws:
        """Cells of one culture: alike in size and shape, and how much so differs by culture."""
        radii = radius * np.exp(rng.normal(0, rng.uniform(0.05, 0.22), n))
        spindle = rng.random() < 0.25
        longest = rng.uniform(2.0, 3.0) if spindle else rng.uniform(1.2, 1.6)
        stretch = np.sqrt(rng.uniform(1.0 + 0.5 * spindle, longest, n))
        turn = rng.uniform(0, np.pi)
        angle = turn + rng.normal(0, 0.25 if spindle else 2.0, n)
        long, short = radii * stretch, radii / stretch
        return _Throws(
            xy=rng.uniform(0, size - 1, (n, 2)),
            joins=rng.random(n) < rng.choice([0.05, 0.3, 0.7]),
            towards=rng.uniform(0, (1, 2 * np.pi), (n, 2)),
            gap=rng.uniform(0.9, 1.04, n),
            long=long,
            short=short,
            angle=angle,
            outline=_outlines(rng, long, short, angle),
        )

    def reach(self, index: int, direction: float) -> float:
        """From the centre to the outline, pixels."""
        long, short = float(self.long[index]), float(self.short[index])
        across = direction - float(self.angle[index])
        return long * short / math.hypot(short * math.cos(across), long * math.sin(across))

    def centre(
        self, index: int, placed: list[int], centres: list[Float64[np.ndarray, " 2"]]
    ) -> Float64[np.ndarray, " 2"]:
        """Where it is tried, (x, y) pixels."""
        if not placed or not self.joins[index]:
            return np.asarray(self.xy[index])
        share, direction = self.towards[index].tolist()
        other = int(share * len(placed))
        reach = self.reach(placed[other], direction) + self.reach(index, direction + math.pi)
        step = np.array([math.cos(direction), math.sin(direction)])
        return np.asarray(centres[other] + float(self.gap[index]) * reach * step)


def _outlines(
    rng: np.random.Generator,
    long: Float64[np.ndarray, " n"],
    short: Float64[np.ndarray, " n"],
    angle: Float64[np.ndarray, " n"],
) -> Float64[np.ndarray, "n corners 2"]:
    """Ellipses with dents and bulges."""
    around = np.arange(_CORNERS) * (2 * np.pi / _CORNERS)
    swing = rng.uniform(0.02, 0.09)
    shape = np.ones((len(long), _CORNERS))
    for wave in (2, 3, 4, 5):
        phase = rng.uniform(0, 2 * np.pi, (len(long), 1))
        size = swing * rng.uniform(0, 2 / wave, (len(long), 1))
        shape += size * np.cos(wave * around + phase)
    along, across = shape * np.cos(around) * long[:, None], shape * np.sin(around) * short[:, None]
    cosine, sine = np.cos(angle)[:, None], np.sin(angle)[:, None]
    return np.stack([along * cosine - across * sine, along * sine + across * cosine], axis=-1)


def _place(ids: InstanceMap, cells: _Throws, count: int) -> list[int]:
    """Draw up to ``count`` cells into ``ids``; those thrown, in the order of their ids."""
    placed: list[int] = []
    centres: list[Float64[np.ndarray, " 2"]] = []
    for index in range(len(cells.long)):
        centre = cells.centre(index, placed, centres)
        if not (centre.min() >= 0 and centre.max() <= ids.shape[0] - 1):
            continue
        corners = np.rint((centre + cells.outline[index]) * (1 << _SHIFT)).astype(np.int32)
        if not _draw(ids, corners, len(placed) + 1):
            continue
        placed.append(index)
        centres.append(centre)
        if len(placed) == count:
            break
    return placed


def _draw(ids: InstanceMap, corners: Int32[np.ndarray, "corners 2"], number: int) -> bool:
    """Give the pixels of one cell to ``number``, unless others have too many of them."""
    first = np.maximum((corners.min(0) >> _SHIFT) - 1, 0)
    last = (corners.max(0) >> _SHIFT) + 3
    window = ids[first[1] : last[1], first[0] : last[0]]
    stamp = np.zeros(window.shape, np.uint8)
    cv2.fillPoly(stamp, [corners - (first << _SHIFT)], 1, cv2.LINE_8, _SHIFT)
    area = cv2.countNonZero(stamp)
    stamp[window > 0] = 0
    free = cv2.countNonZero(stamp)
    if free < _LEAST_FREE * area:
        return False
    if free < area and cv2.connectedComponents(stamp, connectivity=4)[0] > 2:
        return False  # a cell in two pieces
    window[stamp > 0] = number
    return True
