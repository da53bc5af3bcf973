"""The fingerprint of a dataset: how much there is to learn from, and what has to be resolved.

Beside the figures of :mod:`delineate.data.statistics` it holds what a coarse network could reach on
the labels (:mod:`delineate.planning.ceilings`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64

from delineate.data.dataset import Dataset, Sample, read_pair
from delineate.data.statistics import ClassStatistics, Distribution, Statistics
from delineate.errors import DatasetError
from delineate.planning.ceilings import CEILING_IMAGES, STRIDES, stride_ceilings
from delineate.planning.look import FirstLook
from delineate.types import LabelMap


@dataclass(frozen=True)
class ClassFingerprint:
    """One class, in the images of train.

    Attributes:
        name: of the class.
        background: whether its name says that it is what nothing else is.
        share: of the labelled pixels, 0 to 1.
        images: that have it.
        objects_per_image: of those that have any.
        thickness_px: of its structures; None for background and absent classes.
        diameter_px: of its objects, of the disc of the same area.
        ceilings: the best IoU at each of ``STRIDES``, 0 to 1; NaN where it is absent.
    """

    name: str
    background: bool
    share: float
    images: int
    objects_per_image: float
    thickness_px: Distribution | None
    diameter_px: Distribution | None
    ceilings: tuple[float, ...]


@dataclass(frozen=True)
class Fingerprint:
    """What rules and choice go by.

    Attributes:
        look: at the training images.
        labelled_images: of train.
        validation_images: of val, labelled.
        groups: different groups (patients, videos) in train; None where they are not told.
        height_px, width_px: of the images of train.
        pixel_size_um: side of a pixel in micrometres, where known.
        ignored_share: of the pixels of all masks of train.
        classes: by id.
    """

    look: FirstLook
    labelled_images: int
    validation_images: int
    groups: int | None
    height_px: Distribution
    width_px: Distribution
    pixel_size_um: float | None
    ignored_share: float
    classes: tuple[ClassFingerprint, ...]

    def ceiling(self, stride: int) -> float:
        """The best mean IoU at a stride, over the classes that there are.

        Between two of ``STRIDES`` it is that of the coarser one.
        """
        index = next((i for i, known in enumerate(STRIDES) if known >= stride), len(STRIDES) - 1)
        values = [item.ceilings[index] for item in self.classes]
        return float(np.nanmean(values))

    @property
    def largest_object_px(self) -> float | None:
        """The diameter that 95 % of the objects of every class do not exceed."""
        found = [item.diameter_px.p95 for item in self.classes if item.diameter_px is not None]
        return max(found, default=None)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; what is not known is None."""
        return {
            **{name: _plain(value) for name, value in vars(self).items() if name != "look"},
            "look": {
                **{name: _plain(value) for name, value in vars(self.look).items()},
                "normalisation": self.look.normalisation.model_dump(mode="json"),
            },
            "strides": list(STRIDES),
        }


def _plain(value: Any) -> Any:
    match value:
        case ClassFingerprint() | Distribution():
            return {name: _plain(inner) for name, inner in vars(value).items()}
        case tuple():
            return [_plain(inner) for inner in value]
        case float():
            return None if math.isnan(value) else value
    return value


def fingerprint(data: Dataset, look: FirstLook, statistics: Statistics) -> Fingerprint:
    """The fingerprint of a dataset that was looked at and measured.

    Args:
        data: the dataset.
        look: at its training images.
        statistics: of train at least; a part of its images is enough.

    Raises:
        DatasetError: train has no labelled image.
        ImageError, MaskError: a file cannot be used.
    """
    labelled = [sample for sample in data.splits.get("train", ()) if sample.mask is not None]
    if not labelled:
        raise DatasetError(
            "there is no labelled image to learn from",
            where=data.path,
            mend="Label some, or make the splits with: delineate data import --split.",
        )
    train = next(split for split in statistics.splits if split.name == "train")
    groups = {data.info.group_of(sample.image) for sample in labelled}
    chosen = np.linspace(0, len(labelled) - 1, min(CEILING_IMAGES, len(labelled))).round()
    masks = (_mask(labelled[int(index)], data) for index in chosen)
    ceilings = stride_ceilings(masks, len(data.info.classes))
    return Fingerprint(
        look=look,
        labelled_images=len(labelled),
        validation_images=sum(s.mask is not None for s in data.splits.get("val", ())),
        groups=None if data.info.groups is None else len(groups),
        height_px=train.height_px,
        width_px=train.width_px,
        pixel_size_um=statistics.pixel_size_um,
        ignored_share=train.ignored_share,
        classes=tuple(
            _of_class(item, column) for item, column in zip(train.classes, ceilings.T, strict=True)
        ),
    )


def _mask(sample: Sample, data: Dataset) -> LabelMap:
    return read_pair(sample, data.info)[1]


def _of_class(item: ClassStatistics, ceilings: Float64[np.ndarray, " s"]) -> ClassFingerprint:
    objects = item.objects
    return ClassFingerprint(
        name=item.name,
        background=item.background,
        share=item.pixel_share,
        images=item.images,
        objects_per_image=0.0 if objects is None else objects.count / max(objects.images, 1),
        thickness_px=item.thickness_px,
        diameter_px=None if objects is None else objects.equivalent_diameter_px,
        ceilings=tuple(float(value) for value in ceilings),
    )
