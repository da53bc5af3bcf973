"""The figures of one image and its mask."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import cv2
import numpy as np
from jaxtyping import Bool, Float32, UInt8

from delineate.data.label_ids import count_ids
from delineate.data.statistics.intensity import Values
from delineate.types import InstanceMap, LabelMap

THICKNESS_STEP_PX = 0.25

# Twice the size takes about 50 bytes for a pixel of a class's bounding box
_DOUBLED_PX = 1 << 22
_REACH = 4.0  # radii: twice the thickness
_KEY = 1 << 16  # class ids are below


@dataclass
class Objects:
    """Objects of one class in one image.

    Attributes:
        areas_px: one for each.
        at_edge: how many of them touch the edge of the image.
    """

    areas_px: list[int] = field(default_factory=list)
    at_edge: int = 0


@dataclass(frozen=True)
class MeasuredLabels:
    """The figures of one mask.

    Attributes:
        pixels: by id, the ignore index among them.
        objects: by class id.
        objects_ignored: instances all of whose pixels are ignored.
        from_instances: whether objects are instances; else they are components.
        ridges: for each class how many pixels of its ridge have each thickness, in quarters of a
            pixel.
        borders: pairs of neighbouring pixels of two classes, by (lower id, higher id).
    """

    pixels: Mapping[int, int]
    objects: Mapping[int, Objects]
    objects_ignored: int
    from_instances: bool
    ridges: Mapping[int, Counter[int]]
    borders: Mapping[tuple[int, int], int]


@dataclass(frozen=True)
class Measured:
    """The figures of one image; no array is as large as it.

    Attributes:
        hw: height and width, pixels.
        channels: of the image.
        dtype: of the image.
        values: of all pixels.
        foreground: of the foreground, where there is any.
        labels: None for an image without a mask.
    """

    hw: tuple[int, int]
    channels: int
    dtype: str
    values: Values
    foreground: Values | None
    labels: MeasuredLabels | None


def measure_labels(
    labels: LabelMap,
    instances: InstanceMap | None,
    background: frozenset[int],
    ignore_index: int | None,
) -> MeasuredLabels:
    """Count pixels, objects, thicknesses and borders of a mask (H, W).

    Args:
        labels: class ids.
        instances: object ids of the same size; without them the 8-connected components of each
            class are its objects.
        background: ids of classes that have neither components nor a thickness.
        ignore_index: the id of pixels that count nowhere; for the others they are outside.
    """
    pixels = count_ids(labels)
    objects: dict[int, Objects] = {}
    ridges: dict[int, Counter[int]] = {}
    ignored = 0
    if instances is not None:
        objects, ignored = instance_objects(labels, instances, ignore_index)
    for class_id in pixels:
        if class_id == ignore_index or class_id in background:
            continue
        region = np.equal(labels, class_id).view(np.uint8)
        left, top, width, height = cv2.boundingRect(region)
        # a copy: OpenCV takes no view of some rows and columns without one
        region = region[top : top + height, left : left + width].copy()
        ridges[class_id] = ridge_thickness(region)
        if instances is None:
            objects[class_id] = _components(region, (top, left), (labels.shape[0], labels.shape[1]))
    return MeasuredLabels(
        pixels, objects, ignored, instances is not None, ridges, borders(labels, ignore_index)
    )


def ridge_thickness(region: UInt8[np.ndarray, "h w"]) -> Counter[int]:
    """How thick a region is along its ridge.

    The ridge are the pixels whose distance to the outside is not exceeded by any of their eight
    neighbours; the thickness there is that of the widest disc around the pixel. Distances are
    exact and Euclidean, of the region drawn at twice its size: a bar of any whole width has that
    thickness, a disc its diameter. Where a structure grows or shrinks steadily only its widest
    places count. Roughness of an outline does not: a pixel of the ridge is left out where a disc
    of twice its radius or more lies in the region within twice the thickness there. The edge of
    the image is an edge of the region: a structure is as thick as what is seen of it.

    Regions of more than 4 megapixels are measured at their own size, to half a pixel.

    Args:
        region: (H, W), 1 inside and 0 outside, cropped to the region.

    Returns:
        How many pixels of the ridge (of the doubled region) have each thickness, in quarters of
        a pixel.
    """
    doubled = region.size <= _DOUBLED_PX
    if doubled:
        region = cv2.resize(region, None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
    outlined = cv2.copyMakeBorder(region, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    distance = cv2.distanceTransform(outlined, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    highest = cv2.dilate(distance, np.ones((3, 3), np.uint8))
    on_ridge = (distance >= highest) & (distance > 0)
    ridge = distance[on_ridge & ~_rough(distance, on_ridge)].astype(np.float64)
    # a bar of w pixels: w at twice the size; else (w + 1) / 2 for odd w and w / 2 for even w
    thickness_px = ridge if doubled else 2.0 * ridge - 0.5
    steps, counts = np.unique(
        np.rint(thickness_px / THICKNESS_STEP_PX).astype(np.int64), return_counts=True
    )
    return Counter({int(step): int(count) for step, count in zip(steps, counts, strict=True)})


def _rough(
    distance: Float32[np.ndarray, "h w"], on_ridge: Bool[np.ndarray, "h w"]
) -> Bool[np.ndarray, "h w"]:
    """Pixels of the ridge near a disc of twice their radius or more, within twice their thickness.

    Such discs are looked for at radii of powers of two: where their centres may be, the distance
    is at least that radius.
    """
    rough = np.zeros_like(on_ridge)
    small = np.flatnonzero(on_ridge)
    own = distance.reshape(-1)[small]
    radius = 2.0
    largest = float(own.max())
    while radius <= largest:
        away = cv2.distanceTransform(np.less(distance, radius).view(np.uint8), cv2.DIST_L2, 5)
        reached = (2 * own <= radius) & (away.reshape(-1)[small] < radius + _REACH * own)
        rough.reshape(-1)[small[reached]] = True
        radius *= 2.0
    return rough


def borders(labels: LabelMap, ignore_index: int | None) -> dict[tuple[int, int], int]:
    """Pairs of pixels above or beside each other of two classes, by (lower id, higher id)."""
    found: Counter[tuple[int, int]] = Counter()
    across = (labels[:, :-1], labels[:, 1:])
    down = (labels[:-1], labels[1:])
    for one, other in (across, down):
        differ = one != other
        a, b = one[differ].astype(np.int64), other[differ].astype(np.int64)
        keys, counts = np.unique(np.minimum(a, b) * _KEY + np.maximum(a, b), return_counts=True)
        for key, count in zip(keys, counts, strict=True):
            pair = (int(key) // _KEY, int(key) % _KEY)
            if ignore_index not in pair:
                found[pair] += int(count)
    return dict(found)


def instance_objects(
    labels: LabelMap, instances: InstanceMap, ignore_index: int | None
) -> tuple[dict[int, Objects], int]:
    """Objects by class, and how many have nothing but ignored pixels.

    The class of an object is that of most of its pixels that are not ignored (of equal ones the
    lower id); all its pixels make its area.
    """
    inside = instances > 0
    ids = instances[inside].astype(np.int64)
    keys, counts = np.unique(ids * _KEY + labels[inside], return_counts=True)
    areas: Counter[int] = Counter()
    votes: dict[int, tuple[int, int]] = {}  # object: pixels and class of its largest part
    for key, count in zip(keys, counts, strict=True):
        object_id, class_id = int(key) // _KEY, int(key) % _KEY
        areas[object_id] += int(count)
        # ids come in ascending order, so that of equal parts the lower class stays
        if class_id != ignore_index and int(count) > votes.get(object_id, (0, 0))[0]:
            votes[object_id] = (int(count), class_id)
    edge = np.concatenate([instances[0], instances[-1], instances[:, 0], instances[:, -1]])
    at_edge = frozenset(int(i) for i in np.unique(edge))
    objects: dict[int, Objects] = {}
    for object_id, (_, class_id) in votes.items():
        found = objects.setdefault(class_id, Objects())
        found.areas_px.append(areas[object_id])
        found.at_edge += object_id in at_edge
    return objects, len(areas) - len(votes)


def foreground_of(
    labels: LabelMap, background: frozenset[int], ignore_index: int | None
) -> Bool[np.ndarray, "h w"]:
    """(H, W) bool: pixels that are neither ignored nor background."""
    outside = [*background, *(() if ignore_index is None else (ignore_index,))]
    return np.isin(labels, outside, invert=True)


def _components(
    region: UInt8[np.ndarray, "h w"], corner: tuple[int, int], image_hw: tuple[int, int]
) -> Objects:
    _, _, stats, _ = cv2.connectedComponentsWithStats(region, connectivity=8)
    boxes = stats[1:].astype(np.int64)  # the first is the outside
    left, top = boxes[:, 0] + corner[1], boxes[:, 1] + corner[0]
    right, bottom = left + boxes[:, 2], top + boxes[:, 3]
    touches = (left == 0) | (top == 0) | (right == image_hw[1]) | (bottom == image_hw[0])
    return Objects([int(area) for area in boxes[:, 4]], int(touches.sum()))
