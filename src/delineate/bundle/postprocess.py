"""Post-processing of a finished label map, the only implementation of what a manifest describes."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool

from delineate.config import PostprocessingSettings
from delineate.types import LabelMap

_CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.uint8)  # a pixel and its four neighbours


def postprocess(labels: LabelMap, settings: PostprocessingSettings) -> LabelMap:
    """Remove small objects, then fill small holes; the input is left as it is.

    An object is an 8-connected region of one class other than 0, a hole a 4-connected region of
    class 0 that does not touch the border and whose direct neighbours are of a single class.
    """
    if settings.smallest_object_px > 1:
        labels = _without_small_objects(labels, settings.smallest_object_px)
    if settings.largest_hole_px > 0:
        labels = _with_holes_filled(labels, settings.largest_hole_px)
    return labels


def _without_small_objects(labels: LabelMap, smallest_px: int) -> LabelMap:
    result = labels.copy()
    for class_id in np.unique(labels):
        if class_id == 0:
            continue
        of_class = (labels == class_id).astype(np.uint8)
        _, components, stats, _ = cv2.connectedComponentsWithStats(of_class, connectivity=8)
        small = stats[:, cv2.CC_STAT_AREA] < smallest_px
        small[0] = False  # component 0 is everything else
        result[small[components]] = 0
    return result


def _with_holes_filled(labels: LabelMap, largest_px: int) -> LabelMap:
    result = labels.copy()
    empty = (labels == 0).astype(np.uint8)
    count, components, stats, _ = cv2.connectedComponentsWithStats(empty, connectivity=4)
    height, width = labels.shape
    for component in range(1, count):
        x, y, w, h, area = (int(value) for value in stats[component])
        touches_border = x == 0 or y == 0 or x + w == width or y + h == height
        if area > largest_px or touches_border:
            continue
        window = np.s_[y - 1 : y + h + 1, x - 1 : x + w + 1]
        hole: Bool[np.ndarray, "h w"] = components[window] == component
        grown = cv2.dilate(hole.astype(np.uint8), _CROSS).astype(bool)
        around = np.unique(labels[window][grown & ~hole])
        if len(around) == 1:
            result[window][hole] = around[0]
    return result
