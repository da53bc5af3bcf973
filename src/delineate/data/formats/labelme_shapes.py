"""labelme's shapes -> pixels, exactly as ``labelme.utils.shape_to_mask`` draws them.

It draws with Pillow: polygons with their outline (wider than pycocotools' by about half a pixel
all round), rectangles with both corners, circles through their second point, lines 10 pixels wide,
points as discs of radius 5. A polygon that crosses itself is filled by the even-odd rule. ``mask``
shapes are PNG files whose values other than 0 are inside, laid with their first pixel on the first
point. labelme itself cannot export ``points``; they are discs here.
"""

from __future__ import annotations

import math

import msgspec
import numpy as np
from jaxtyping import Float64
from PIL import Image, ImageDraw

from delineate.data.formats.drawing import Patch, checked_points
from delineate.data.masks import decode_mask
from delineate.errors import MaskError

_LINE_PX = 10
_POINT_RADIUS_PX = 5.0
_POINTS = {  # least and most points of each type of shape
    "polygon": (3, None),
    "oriented_rectangle": (4, 4),
    "rectangle": (2, 2),
    "circle": (2, 2),
    "line": (2, 2),
    "linestrip": (2, None),
    "point": (1, 1),
    "points": (1, None),
    "mask": (2, 2),
}


class Shape(msgspec.Struct):
    """A shape as the file has it; ``points`` are (x, y) in pixels, ``mask`` is a PNG file."""

    label: str
    points: list[tuple[float, float]]
    shape_type: str | None = None
    group_id: int | str | None = None
    mask: bytes | None = None  # msgspec decodes the base64


def draw_shape(shape: Shape, hw: tuple[int, int], where: str) -> Patch:
    """The pixels of one shape in an image of height and width ``hw``.

    Raises:
        MaskError: its type is not known, it has too few or too many points, one is NaN or far
            outside, or its mask is damaged or of another size than its box.
    """
    kind = shape.shape_type or "polygon"
    if kind not in _POINTS:
        raise MaskError(
            f"is of the type {kind!r}, which is none of {', '.join(_POINTS)}",
            where=where,
            mend="Draw it as a polygon, or delete it.",
        )
    least, most = _POINTS[kind]
    count = len(shape.points)
    if count < least or (most is not None and count > most):
        raise MaskError(
            f"is a {kind} of {count} point{'' if count == 1 else 's'}, and it takes "
            f"{least}{' or more' if most is None else ''}",
            where=where,
            mend="Draw the shape again, or delete it.",
        )
    if kind == "mask":
        points = checked_points(shape.points, hw, where)
        return _mask_patch(shape, points, where)
    reach = 0.0
    match kind:
        case "circle":
            reach = math.dist(*shape.points)
        case "point" | "points":
            reach = _POINT_RADIUS_PX
        case "line" | "linestrip":
            reach = _LINE_PX / 2
    points = checked_points(shape.points, hw, where, reach_px=reach)
    picture = Image.new("L", (hw[1], hw[0]))
    _draw_points(ImageDraw.Draw(picture), kind, points)
    left, top, right, bottom = picture.getbbox() or (0, 0, 0, 0)
    return Patch(np.asarray(picture.crop((left, top, right, bottom))).astype(bool), (top, left))


def _draw_points(draw: ImageDraw.ImageDraw, kind: str, points: Float64[np.ndarray, "n 2"]) -> None:
    xy = [(x, y) for x, y in points.tolist()]
    match kind:
        case "rectangle":
            # labelme writes the corners in the order they were clicked, which Pillow refuses
            (left, top), (right, bottom) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
            draw.rectangle([(left, top), (right, bottom)], outline=1, fill=1)
        case "circle":
            _draw_disc(draw, xy[0], math.dist(*xy))
        case "line" | "linestrip":
            draw.line(xy, fill=1, width=_LINE_PX)
        case "point" | "points":
            for centre in xy:
                _draw_disc(draw, centre, _POINT_RADIUS_PX)
        case _:
            draw.polygon(xy, outline=1, fill=1)


def _draw_disc(draw: ImageDraw.ImageDraw, centre: tuple[float, float], radius: float) -> None:
    x, y = centre
    draw.ellipse([x - radius, y - radius, x + radius, y + radius], outline=1, fill=1)


def _mask_patch(shape: Shape, points: Float64[np.ndarray, "n 2"], where: str) -> Patch:
    (left, top), (right, bottom) = points.astype(int).tolist()
    if shape.mask is None:
        raise MaskError("is a mask without pixels", where=where, mend="Draw it again.")
    mask = decode_mask(shape.mask, where) > 0
    if mask.shape != (bottom - top + 1, right - left + 1):
        raise MaskError(
            f"is a mask of {mask.shape[1]} x {mask.shape[0]} px (width x height), and its box has "
            f"{right - left + 1} x {bottom - top + 1}",
            where=where,
            mend="Draw the shape again, or delete it.",
        )
    return Patch(mask, (top, left))
