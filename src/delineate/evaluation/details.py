"""What an evaluation measures beyond the confusion matrix, where it is asked to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt, UInt8

from delineate.data.dataset import Sample
from delineate.evaluation.boundary import BoundaryScores, BoundaryTally
from delineate.evaluation.calibration import CalibrationScores, CalibrationTally
from delineate.evaluation.confusion import Confusion
from delineate.evaluation.instances import InstanceScores, InstanceTally
from delineate.evaluation.intervals import (
    ImageCounts,
    ImageCountsTally,
    Intervals,
    bootstrap,
)
from delineate.evaluation.scores import Json
from delineate.types import InstanceMap, LabelMap


@dataclass(frozen=True)
class Predicted:
    """A prediction that says how sure it is.

    Attributes:
        labels: (H, W) class ids.
        confidence: (H, W) uint8, 255 is certain.
    """

    labels: LabelMap
    confidence: UInt8[np.ndarray, "h w"]


@dataclass(frozen=True)
class DetailSettings:
    """How details are measured.

    Attributes:
        read_instances: object ids (H, W) of a sample whose image is (height, width), or None for
            a sample that has none.
    """

    read_instances: Callable[[Sample, tuple[int, int]], InstanceMap | None] | None = None


@dataclass(frozen=True)
class Details:
    """What was measured beyond the confusion matrix; None is: not measured, or nothing to measure.

    Attributes:
        boundary: boundary IoU.
        calibration: where the predictions said how sure they are.
        intervals: of the scores, with two scored images or groups at least.
        instances: where samples have object ids.
        images: the counts of each image, from which models are compared.
    """

    boundary: BoundaryScores | None = None
    calibration: CalibrationScores | None = None
    intervals: Intervals | None = None
    instances: InstanceScores | None = None
    images: ImageCounts | None = None

    def to_dict(self) -> Json:
        """What was measured, but the counts of each image."""
        parts = {
            "boundary": self.boundary,
            "calibration": self.calibration,
            "intervals": self.intervals,
            "instances": self.instances,
        }
        return {name: part.to_dict() for name, part in parts.items() if part is not None}


class DetailTally:
    """Collects :class:`Details` image by image."""

    def __init__(
        self, settings: DetailSettings, classes: Sequence[str], ignore_index: int | None
    ) -> None:
        self._settings = settings
        self._boundary = BoundaryTally(classes, ignore_index)
        self._calibration = CalibrationTally(ignore_index)
        self._images = ImageCountsTally(classes, ignore_index)
        self._instances = InstanceTally(classes, ignore_index)
        self._sure = False

    def update(
        self,
        sample: Sample,
        truth: UInt[np.ndarray, "h w"],
        labels: UInt[np.ndarray, "h w"],
        confidence: UInt8[np.ndarray, "h w"] | None,
        confusion: Confusion,
    ) -> None:
        """Count one image, whose ids were checked when ``confusion`` was counted.

        Raises:
            MaskError: the object ids cannot be read or do not fit the image.
        """
        self._images.update(sample.name, sample.group, confusion)
        self._boundary.update(truth, labels)
        if confidence is not None:
            self._sure = True
            self._calibration.update(truth, labels, confidence)
        if self._settings.read_instances is not None:
            height, width = truth.shape
            instances = self._settings.read_instances(sample, (height, width))
            if instances is not None:
                self._instances.update(truth, instances, labels)

    def result(self) -> Details:
        images = self._images.result()
        return Details(
            boundary=self._boundary.scores(),
            calibration=self._calibration.scores() if self._sure else None,
            intervals=bootstrap(images),
            instances=self._instances.scores(),
            images=images,
        )
