"""Scores of single objects: panoptic quality, and average precision as DSB-2018 counts it.

A predicted object is an 8-connected region of one class of the label map, because that is all a
label map tells. A true object is an id of the dataset's object ids; its class is the one that
most of its pixels have. A true and a predicted object of one class match where their IoU is above
the threshold; from 0.5 on, none can match two.

==========  ===================================================================================
score       definition, with tp, fp, fn the matched, left over predicted and left over true
            objects
==========  ===================================================================================
SQ          mean IoU of the matched objects
RQ          tp / (tp + fp / 2 + fn / 2)
PQ          SQ * RQ, all three at IoU > 0.5 over all images: Kirillov et al. 2019,
            *Panoptic Segmentation* (arXiv:1801.00868)
AP 0.5      tp / (tp + fp + fn) of an image at IoU > 0.5, averaged over the images
AP 0.5:0.95 the same, averaged over the thresholds 0.5, 0.55, ..., 0.95 as well: the measure of
            the 2018 Data Science Bowl (Caicedo et al. 2019, *Nature Methods* 16)
==========  ===================================================================================

This AP needs no confidence for an object and is not the AP of COCO, the area under a curve.

Ignored pixels are the paper's void: they are taken out of every object before it is matched, and
an unmatched predicted object that lies mostly on them is no mistake. The same holds for true pixels
of its class without an object id (a crowd). Scored are the classes that have a true object
somewhere; an image in which a class is neither true nor predicted leaves its AP alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Int32, Int64, UInt

from delineate.evaluation.scores import Json, mean_defined, none_if_nan, ratio
from delineate.types import InstanceMap

# In percent, so that IoU and threshold are compared in whole numbers.
THRESHOLDS_PERCENT = tuple(range(50, 100, 5))


@dataclass(frozen=True)
class Objects:
    """Objects of one image, numbered from 1.

    Attributes:
        ids: (H, W) int32 numbers; 0 is no object.
        class_of: (N + 1,) int64 class of each number; that of 0 is -1.
    """

    ids: Int32[np.ndarray, "h w"]
    class_of: Int64[np.ndarray, " n"]


def connected_objects(labels: UInt[np.ndarray, "h w"]) -> Objects:
    """The 8-connected regions of every class of a label map."""
    ids = np.zeros(labels.shape, np.int32)
    class_of = [-1]
    for class_id in np.unique(labels):
        of_class = (labels == class_id).view(np.uint8)
        count, components = cv2.connectedComponents(of_class, connectivity=8)
        inside = components > 0
        ids[inside] = components[inside] + (len(class_of) - 1)
        class_of += [int(class_id)] * (count - 1)
    return Objects(ids, np.array(class_of, np.int64))


def true_objects(
    truth: UInt[np.ndarray, "h w"],
    instances: InstanceMap,
    counted: Bool[np.ndarray, "h w"],
    classes: int,
) -> Objects:
    """The true objects on counted pixels, each of the class that most of its pixels have."""
    inside = (instances > 0) & counted
    found, numbers = np.unique(instances[inside], return_inverse=True)
    ids = np.zeros(truth.shape, np.int32)
    ids[inside] = numbers + 1
    votes = np.bincount(numbers * classes + truth[inside], minlength=len(found) * classes)
    majority = votes.reshape(len(found), classes).argmax(axis=1) if len(found) else []
    return Objects(ids, np.array([-1, *majority], np.int64))


@dataclass(frozen=True)
class Matching:
    """Which objects of an image may match, at an IoU above 0.5.

    Attributes:
        true, predicted: (M,) int64 numbers of the pairs, of one class each.
        shared, union: (M,) int64 pixels; IoU is their quotient.
        excused: (P + 1,) predicted objects that are no mistake where they match nothing.
    """

    true: Int64[np.ndarray, " m"]
    predicted: Int64[np.ndarray, " m"]
    shared: Int64[np.ndarray, " m"]
    union: Int64[np.ndarray, " m"]
    excused: Bool[np.ndarray, " p"]


def match(
    truth: UInt[np.ndarray, "h w"],
    true: Objects,
    predicted: Objects,
    counted: Bool[np.ndarray, "h w"],
) -> Matching:
    """Match the objects of an image."""
    n_true, n_predicted = len(true.class_of), len(predicted.class_of)
    seen = np.where(counted, predicted.ids, 0)
    crowd = counted & (true.ids == 0) & (predicted.class_of[predicted.ids] == truth)
    whole = np.bincount(predicted.ids.ravel(), minlength=n_predicted)
    area_true = np.bincount(true.ids.ravel(), minlength=n_true)
    area_seen = np.bincount(seen.ravel(), minlength=n_predicted)
    beside = np.bincount(predicted.ids[~counted | crowd], minlength=n_predicted)
    both = (true.ids > 0) & (seen > 0)
    code, shared = np.unique(
        true.ids[both].astype(np.int64) * n_predicted + seen[both], return_counts=True
    )
    t, p = np.divmod(code, n_predicted)
    union = area_true[t] + area_seen[p] - shared
    pairs = (true.class_of[t] == predicted.class_of[p]) & (2 * shared > union)
    return Matching(t[pairs], p[pairs], shared[pairs], union[pairs], 2 * beside > whole)


@dataclass(frozen=True)
class InstanceScores:
    """Scores of single objects. Those of a class without a true object are NaN.

    Attributes:
        classes: class names by id; the tuples below follow it.
        pq, sq, rq: panoptic, segmentation and recognition quality, 0 to 1.
        ap50, ap: average precision of DSB-2018 at IoU 0.5 and over 0.5 to 0.95, 0 to 1.
        true_objects, predicted_objects: how many; excused predictions are left out.
        images: images that have object ids.
    """

    classes: tuple[str, ...]
    pq: tuple[float, ...]
    sq: tuple[float, ...]
    rq: tuple[float, ...]
    ap50: tuple[float, ...]
    ap: tuple[float, ...]
    true_objects: tuple[int, ...]
    predicted_objects: tuple[int, ...]
    images: int

    @property
    def scored(self) -> tuple[int, ...]:
        """Ids of the classes that have a true object."""
        return tuple(i for i, count in enumerate(self.true_objects) if count > 0)

    def mean(self, values: Sequence[float]) -> float:
        """Mean of one of the scores over the classes that have it, or NaN."""
        return mean_defined(np.array(values, np.float64))

    def to_dict(self) -> Json:
        columns = {"pq": self.pq, "sq": self.sq, "rq": self.rq, "ap50": self.ap50, "ap": self.ap}
        return {
            "definition": "objects are 8-connected regions; ap as in the 2018 Data Science Bowl",
            "images": self.images,
            **{f"mean_{name}": none_if_nan(self.mean(v)) for name, v in columns.items()},
            "classes": [
                {
                    "id": i,
                    "name": self.classes[i],
                    **{name: none_if_nan(values[i]) for name, values in columns.items()},
                    "true_objects": self.true_objects[i],
                    "predicted_objects": self.predicted_objects[i],
                }
                for i in self.scored
            ],
        }


class InstanceTally:
    """Adds up the objects of images that have object ids."""

    def __init__(self, classes: Sequence[str], ignore_index: int | None) -> None:
        self.classes, self.ignore_index = tuple(classes), ignore_index
        k, thresholds = len(classes), len(THRESHOLDS_PERCENT)
        self._images = 0
        self._iou = np.zeros(k)
        # pixels do not count here: objects do. Rows: matched at IoU > 0.5, wrong, true
        self._matched, self._wrong, self._true = (np.zeros(k, np.int64) for _ in range(3))
        self._precision, self._seen = np.zeros((thresholds, k)), np.zeros(k, np.int64)

    def update(
        self,
        truth: UInt[np.ndarray, "h w"],
        instances: InstanceMap,
        labels: UInt[np.ndarray, "h w"],
    ) -> None:
        """Count one image.

        Args:
            truth: (H, W) true class ids or the ignore index.
            instances: (H, W) object ids, 0 for none.
            labels: (H, W) predicted class ids.
        """
        k = len(self.classes)
        counted = np.ones(truth.shape, bool)
        if self.ignore_index is not None:
            counted = truth != self.ignore_index
        true, predicted = true_objects(truth, instances, counted, k), connected_objects(labels)
        found = match(truth, true, predicted, counted)
        of_true = np.bincount(true.class_of[1:], minlength=k)
        matched, wrong = self._at(50, found, predicted)
        self._images += 1
        self._iou += np.bincount(true.class_of[found.true], found.shared / found.union, k)
        self._matched += matched
        self._wrong += wrong
        self._true += of_true
        for row, percent in enumerate(THRESHOLDS_PERCENT):
            matched, wrong = self._at(percent, found, predicted)
            # tp + fn is the number of true objects
            self._precision[row] += np.nan_to_num(ratio(matched, of_true + wrong))
        in_image = np.bincount(predicted.class_of[1:][~found.excused[1:]], minlength=k) > 0
        self._seen += (of_true > 0) | in_image

    def _at(
        self, percent: int, found: Matching, predicted: Objects
    ) -> tuple[Int64[np.ndarray, " k"], Int64[np.ndarray, " k"]]:
        """Objects of each class that match above a threshold, and predicted ones left over."""
        k = len(self.classes)
        close = found.predicted[100 * found.shared > percent * found.union]
        left = ~found.excused
        left[close] = left[0] = False
        of_class = predicted.class_of
        return np.bincount(of_class[close], minlength=k), np.bincount(of_class[left], minlength=k)

    def scores(self) -> InstanceScores | None:
        """None when no image had object ids, or there is no object in them."""
        if not self._true.any():
            return None
        missed = self._true - self._matched
        sq = ratio(self._iou, self._matched)
        rq = ratio(2.0 * self._matched, 2.0 * self._matched + self._wrong + missed)
        pq = np.where(self._matched > 0, np.nan_to_num(sq) * rq, 0.0)
        ap = ratio(self._precision, np.broadcast_to(self._seen, self._precision.shape))
        is_thing = self._true > 0

        def column(values: np.ndarray) -> tuple[float, ...]:
            return tuple(
                float(v) if thing else math.nan for v, thing in zip(values, is_thing, strict=True)
            )

        return InstanceScores(
            classes=self.classes,
            pq=column(pq),
            sq=column(sq),
            rq=column(rq),
            ap50=column(ap[0]),
            ap=column(ap.mean(axis=0)),
            true_objects=tuple(int(v) for v in self._true),
            predicted_objects=tuple(int(v) for v in self._matched + self._wrong),
            images=self._images,
        )
