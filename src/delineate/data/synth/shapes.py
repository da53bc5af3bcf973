"""Plain shapes in front of each other: ``delineate data synth shapes``."""

from __future__ import annotations

import math
from typing import ClassVar

import cv2
import numpy as np
from jaxtyping import Float32, UInt8
from pydantic import Field

from delineate.data.synth.dataset import Scene, SynthSettings, generator
from delineate.data.synth.fields import smooth_field
from delineate.types import InstanceMap

CLASSES = ("background", "circle", "square", "triangle", "ring", "bar")
BACKGROUND, CIRCLE, SQUARE, TRIANGLE, RING, BAR = range(6)
_STREAM = 3  # so that one seed gives unrelated numbers for each kind of dataset
_FEWEST, _MOST = 5, 10
_SMALLEST_RADIUS_PX = 4.0  # the hole of a ring is still open
_CORNERS = 64
_SHIFT = 4  # outlines have 1/16 px
_THIN_BARS = 0.3
_CONTRAST = 90.0  # distance of colours in RGB


class ShapesSettings(SynthSettings):
    """What decides the pixels of a generated dataset of plain shapes.

    Each image has 5 to 10 objects, one of each class among them, and those with larger ids lie
    in front; one that others hide wholly gets no id. What shows through the hole of a ring is not
    part of it. Some bars are one pixel wide.
    """

    kind: ClassVar[str] = "shapes"
    classes: ClassVar[tuple[str, ...]] = CLASSES

    n: int = Field(20, ge=1, le=100_000, description="images, all splits together")
    size: int = Field(128, ge=32, le=4096, description="side of the square images, pixels")

    def sample(self, index: int) -> Scene:
        """Image number ``index``, whatever ``n`` is, with object ids if they are asked for."""
        rng = generator(self.seed, index, _STREAM)
        ids, class_of = _lay_out(rng, self.size)
        image = _paint(rng, ids)
        return Scene(image, class_of[ids], ids if self.instances else None)


def _lay_out(rng: np.random.Generator, size: int) -> tuple[InstanceMap, UInt8[np.ndarray, " k"]]:
    """Object ids from 1, those behind first, and the class of each, id 0 included."""
    count = int(rng.integers(_FEWEST, _MOST + 1))
    kinds = np.concatenate([rng.permutation(5), rng.integers(0, 5, count - 5)]) + CIRCLE
    ids = np.zeros((size, size), np.uint16)
    for number, kind in enumerate(kinds.tolist(), start=1):
        _draw(rng, ids, kind, number)
    seen = np.bincount(ids.ravel(), minlength=count + 1) > 0  # some may be hidden
    seen[0] = True
    compact = (np.cumsum(seen) - 1).astype(np.uint16)
    class_of = np.concatenate([[BACKGROUND], kinds]).astype(np.uint8)
    return compact[ids], class_of[seen]


def _draw(rng: np.random.Generator, ids: InstanceMap, kind: int, number: int) -> None:
    size = ids.shape[0]
    radius = max(float(rng.uniform(0.07, 0.2)) * size, _SMALLEST_RADIUS_PX)
    centre = rng.uniform(0.08 * size, 0.92 * size, 2)
    turn = float(rng.uniform(0, 2 * math.pi))
    if kind == BAR and rng.random() < _THIN_BARS:
        along = 1.5 * radius * np.array([math.cos(turn), math.sin(turn)])
        first, last = (
            np.rint(end).astype(int).tolist() for end in (centre - along, centre + along)
        )
        cv2.line(ids, first, last, number, 1, cv2.LINE_8)
        return
    outer = _outline(rng, kind, radius, turn)
    lines = [outer, outer * rng.uniform(0.45, 0.7)] if kind == RING else [outer]
    corners = [np.rint((centre + line) * (1 << _SHIFT)).astype(np.int32) for line in lines]
    cv2.fillPoly(ids, corners, number, cv2.LINE_8, _SHIFT)


def _outline(
    rng: np.random.Generator, kind: int, radius: float, turn: float
) -> Float32[np.ndarray, "n 2"]:
    """Corners (x, y) of a shape round the origin, pixels."""
    corners = {SQUARE: 4, TRIANGLE: 3, BAR: 4}.get(kind, _CORNERS)
    angle = np.arange(corners) * (2 * np.pi / corners)
    if kind == BAR:
        slope = math.atan(float(rng.uniform(0.08, 0.25)))
        angle = np.array([slope, np.pi - slope, np.pi + slope, -slope])
        radius *= 1.5
    return (radius * np.stack([np.cos(angle + turn), np.sin(angle + turn)], 1)).astype(np.float32)


def _paint(rng: np.random.Generator, ids: InstanceMap) -> UInt8[np.ndarray, "h w 3"]:
    """A picture in which every object has hard edges and one colour with a little noise."""
    hw = (ids.shape[0], ids.shape[1])
    ground = rng.uniform(30, 225, 3)
    colours = np.empty((int(ids.max()) + 1, 3), np.float32)
    colours[0] = ground
    # Of eight draws the first that is far from the background; the chance of none is negligible,
    # and the farthest is taken then
    drawn = rng.uniform(0, 255, (len(colours) - 1, 8, 3))
    distance = np.minimum(np.linalg.norm(drawn - ground, axis=2), _CONTRAST)
    colours[1:] = drawn[np.arange(len(drawn)), distance.argmax(1)]
    picture = colours[ids]
    texture = smooth_field(rng, hw, max(hw[0] / 6, 8.0)) + 0.5 * smooth_field(rng, hw, 5.0)
    picture += (texture * np.where(ids == 0, 12.0, 3.0))[..., None] * rng.uniform(0.5, 1, 3)
    picture += rng.normal(0, 4, picture.shape)
    return np.asarray(np.rint(np.clip(picture, 0, 255)), np.uint8)
