"""Shapes that people drew -> labels. The shapes' own conventions are with each format.

What is said here holds for labelme, CVAT and Label Studio alike.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64
from pycocotools import mask as coco

from delineate.data.dataset import DatasetInfo
from delineate.data.formats.canvas import Canvas
from delineate.data.formats.naming import fill_id, id_of, ids_by_name, means_background
from delineate.data.formats.settings import Overlap
from delineate.data.formats.source import Labels
from delineate.data.rle import unpack_counts
from delineate.errors import MaskError

FARTHEST_PX = 100_000
"""How far outside of its image a shape may reach; drawing farther takes memory without end."""

LONGEST_OUTLINE_PX = 5_000_000
"""The longest outline of one polygon; pycocotools takes some 100 bytes for each pixel of it."""


@dataclass(frozen=True)
class Patch:
    """Pixels of one shape.

    Attributes:
        mask: (h, w), cropped; it may reach over the border of the image.
        top_left: row and column of its first pixel in the image.
    """

    mask: Bool[np.ndarray, "h w"]
    top_left: tuple[int, int]


@dataclass(frozen=True)
class Region:
    """One shape with its label.

    Attributes:
        where: the file and the place in it, for messages.
        group: shapes of one label and one group are one object; None is a group of its own.
        level: shapes of a higher level cover those of lower ones, whatever the overlap order.
    """

    label: str
    patch: Patch
    where: str
    group: Hashable | None = None
    level: int = 0


def cropped(mask: Bool[np.ndarray, "h w"]) -> Patch:
    """The smallest patch that holds all pixels of a mask of the whole image."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return Patch(np.zeros((0, 0), bool), (0, 0))
    top, left = int(rows[0]), int(columns[0])
    return Patch(mask[top : rows[-1] + 1, left : columns[-1] + 1].copy(), (top, left))


def checked_points(
    points: Sequence[tuple[float, float]],
    hw: tuple[int, int],
    where: str,
    *,
    reach_px: float = 0.0,
) -> Float64[np.ndarray, "n 2"]:
    """(x, y) of each point in pixels, all finite and near the image.

    Args:
        reach_px: how far around its points the shape reaches.

    Raises:
        MaskError: a number is NaN or infinite, or lies :data:`FARTHEST_PX` outside; or the shape
            lies beside the image, so that nothing of it is covered.
    """
    array = np.asarray(points, np.float64).reshape(-1, 2)
    if not np.isfinite(array).all():
        bad = int(np.flatnonzero(~np.isfinite(array).all(axis=1))[0])
        x, y = array[bad].tolist()
        raise MaskError(
            f"point {bad + 1} of {len(array)} is ({x:g}, {y:g})",
            where=where,
            mend="Draw the shape again, or delete it.",
        )
    if not len(array):
        return array
    height, width = hw
    size = np.array([width, height])
    low, high = array.min(axis=0) - reach_px, array.max(axis=0) + reach_px
    far = (low < -FARTHEST_PX) | (high > size + FARTHEST_PX)
    if far.any() or (high < 0).any() or (low > size).any():
        raise MaskError(
            f"reaches from ({low[0]:g}, {low[1]:g}) to ({high[0]:g}, {high[1]:g}), "
            f"{'far ' if far.any() else ''}outside of the image of {width} x {height} px",
            where=where,
            mend="Check that the annotations belong to this image; move the shape, or delete it.",
        )
    return array


def coco_polygon(points: Float64[np.ndarray, "n 2"], hw: tuple[int, int], where: str) -> Patch:
    """The pixels that pycocotools gives a polygon (rleFrPoly of maskApi.c).

    A polygon that crosses itself is filled by the even-odd rule: what it goes around twice is
    outside.

    Args:
        points: (x, y) in pixels, checked; (0, 0) is the corner of the first pixel.

    Raises:
        MaskError: there are fewer than three points, or the outline is longer than
            :data:`LONGEST_OUTLINE_PX`.
    """
    if len(points) < 3:
        raise MaskError(
            f"is a polygon of {len(points)} point{'' if len(points) == 1 else 's'}, and an area "
            "has at least 3",
            where=where,
            mend="Draw the shape again, or delete it.",
        )
    outline = float(np.abs(points - np.roll(points, 1, axis=0)).sum())
    if outline > LONGEST_OUTLINE_PX:
        raise MaskError(
            f"has an outline of {outline:.0f} px, and {LONGEST_OUTLINE_PX} are the most that is "
            "drawn",
            where=where,
            mend="Draw the shape again, or delete it.",
        )
    (rle,) = coco.frPyObjects([points.reshape(-1).tolist()], *hw)
    return _runs_patch(unpack_counts([rle["counts"]])[0], hw[0])


def paint_regions(
    regions: Sequence[Region],
    hw: tuple[int, int],
    info: DatasetInfo,
    overlap: Overlap,
    where: str,
) -> Labels:
    """Paint shapes in the stated order. Background and ignored areas are no objects.

    Args:
        regions: in the order of the file.
        hw: height and width of the image in pixels.
        where: the image, for messages.

    Raises:
        MaskError: a label is no class; no class is the background; more objects than 16 bits hold.
    """
    ids = ids_by_name(info)
    fill = fill_id(info)
    canvas = Canvas(hw, info, where)
    numbers: dict[Hashable, int] = {}
    for index, region in _ordered(regions, overlap):
        class_id = _class_id(region, ids, fill)
        number = 0
        if class_id not in (fill, info.ignore_index):
            key = _object_of(index, region)
            if key not in numbers:
                numbers[key] = canvas.new_instance()
            number = numbers[key]
        canvas.paint(region.patch.mask, class_id, instance=number, top_left=region.patch.top_left)
    return canvas.labels()


def _runs_patch(counts: Int64[np.ndarray, " c"], height: int) -> Patch:
    """The pixels of alternating runs outside and inside, counted down columns of ``height``.

    Only the columns that have some are made: pycocotools' masks of the whole image for each shape
    are slow, and its decode warns under numpy 2.
    """
    bounds = np.cumsum(counts)
    starts = bounds[0 : len(bounds) - 1 : 2]
    lengths = counts[1::2]
    starts, lengths = starts[lengths > 0], lengths[lengths > 0]
    if not len(starts):
        return Patch(np.zeros((0, 0), bool), (0, 0))
    left, right = int(starts[0]) // height, int(starts[-1] + lengths[-1] - 1) // height
    # +1 where a run begins and -1 where it ends
    edges = np.zeros((right - left + 1) * height + 1, np.int8)
    edges[starts - left * height] += 1
    np.subtract.at(edges, starts + lengths - left * height, 1)
    columns = np.cumsum(edges[:-1], dtype=np.int8).astype(bool).reshape(-1, height)
    rows = np.flatnonzero(columns.any(axis=0))
    top, bottom = int(rows[0]), int(rows[-1])
    return Patch(np.ascontiguousarray(columns[:, top : bottom + 1].T), (top, left))


def _ordered(regions: Sequence[Region], overlap: Overlap) -> Iterable[tuple[int, Region]]:
    """Regions with their place in the file, the lowest first."""
    numbered = enumerate(regions)
    match overlap:
        case "later":
            return sorted(numbered, key=lambda pair: (pair[1].level, pair[0]))
        case "earlier":
            return sorted(numbered, key=lambda pair: (pair[1].level, -pair[0]))
        case "smaller":
            areas: dict[Hashable, int] = {}
            for index, region in enumerate(regions):
                key = _object_of(index, region)
                areas[key] = areas.get(key, 0) + int(region.patch.mask.sum())
            return sorted(
                numbered, key=lambda pair: (pair[1].level, -areas[_object_of(*pair)], pair[0])
            )


def _object_of(index: int, region: Region) -> Hashable:
    return index if region.group is None else (region.label, region.group)


def _class_id(region: Region, ids: Mapping[str, int], fill: int | None) -> int:
    if fill is not None and region.label not in ids and means_background(region.label):
        return fill
    return id_of(region.label, ids, region.where)
