"""Post-processing chosen on validation: what is smaller than true objects goes, where that helps.

nnU-Net (Isensee et al. 2021) removes all but the largest component where its cross-validation gains
by it. Here the sizes that are tried come from the truth, so that no size is tried that would remove
more than a twentieth of the true objects, and one is kept only where the 95 % interval of the gain
in mean IoU, paired over images, lies above 0.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from delineate.bundle.postprocess import postprocess
from delineate.config import PostprocessingSettings
from delineate.data.dataset import Sample
from delineate.data.palette import is_background
from delineate.evaluation.comparison import Difference, compare_models
from delineate.evaluation.confusion import confusion_of
from delineate.evaluation.evaluate import Predict, Read
from delineate.evaluation.intervals import ImageCounts, ImageCountsTally
from delineate.evaluation.scores import Json, Scores, compute_scores
from delineate.types import LabelMap

IMAGES = 64  # looked at, at most, evenly spread
LIMIT_S = 15.0
SIZES_PX = (4, 16, 64, 256, 1024, 4096)
REMOVED = 0.05  # of the true objects, at most, are smaller than a size that is tried


@dataclass(frozen=True)
class Tried:
    """Settings, and mean IoU without and with them."""

    settings: PostprocessingSettings
    mean_iou: Difference


@dataclass(frozen=True)
class Chosen:
    """What was chosen, and all that was tried for it.

    Attributes:
        settings: that are kept; the default, which does nothing, where none helped.
        tried: in order; holes were tried beside the objects that were kept.
    """

    settings: PostprocessingSettings
    tried: tuple[Tried, ...]

    def note(self) -> list[Json]:
        """For the provenance of a bundle."""
        return [{**one.settings.model_dump(), **one.mean_iou.to_dict()} for one in self.tried]


def choose_postprocessing(
    samples: Sequence[Sample],
    read: Read,
    predict: Predict,
    *,
    classes: Sequence[str],
    ignore_index: int | None,
    limit_s: float = LIMIT_S,
) -> Chosen:
    """Choose the smallest object and the largest hole for labels that nothing was done to.

    Nothing is tried where class 0 is no background (:func:`worth_trying`), nor where fewer than two
    images have something to score.

    Args:
        samples: labelled ones that the network was not trained on.
        read: gives image and mask of a sample.
        predict: image to labels without post-processing.
        classes: names by id.
        ignore_index: id of pixels that count nowhere, or None.
        limit_s: no further size is tried later.
    """
    nothing = PostprocessingSettings()
    if not worth_trying(classes, ignore_index) or len(samples) < 2:
        return Chosen(nothing, ())
    ends = time.monotonic() + limit_s
    some = np.linspace(0, len(samples) - 1, min(IMAGES, len(samples))).round().astype(int)
    seen = [_Seen.of(samples[i], read, predict) for i in some]
    objects = _sizes(a for one in seen for a in object_areas(one.truth.unpacked(), ignore_index))
    # a hole of exactly the size is filled too
    holes = _sizes(a - 1 for one in seen for a in hole_areas(one.truth.unpacked()))

    def counted(settings: PostprocessingSettings) -> tuple[Scores, ImageCounts]:
        return _counted(seen, settings, classes, ignore_index)

    found = _tried(nothing, [{"smallest_object_px": size} for size in objects], counted, ends)
    kept = _best(found, nothing)
    # without true holes, one is as small as the smallest objects
    sizes = [{"largest_hole_px": size} for size in holes or objects]
    found_holes = _tried(kept, sizes, counted, ends)
    return Chosen(_best(found_holes, kept), (*found, *found_holes))


def worth_trying(classes: Sequence[str], ignore_index: int | None) -> bool:
    """Whether class 0, which small objects become, is a background that counts."""
    return is_background(classes[0]) and ignore_index != 0


def object_areas(labels: LabelMap, ignore_index: int | None = None) -> list[int]:
    """Pixels of each 8-connected region of one class but 0, as post-processing has them."""
    areas: list[int] = []
    for class_id in set(np.unique(labels).tolist()) - {0, ignore_index}:
        of_class = (labels == class_id).astype(np.uint8)
        _, _, stats, _ = cv2.connectedComponentsWithStats(of_class, connectivity=8)
        areas += stats[1:, cv2.CC_STAT_AREA].tolist()
    return areas


def hole_areas(labels: LabelMap) -> list[int]:
    """Pixels of each 4-connected region of class 0 that touches no border."""
    empty = (labels == 0).astype(np.uint8)
    _, _, stats, _ = cv2.connectedComponentsWithStats(empty, connectivity=4)
    x, y, w, h, areas = stats[1:].T
    height, width = labels.shape
    inside = (x > 0) & (y > 0) & (x + w < width) & (y + h < height)
    found: list[int] = areas[inside].tolist()
    return found


@dataclass(frozen=True)
class _Packed:
    """A label map, which is mostly runs."""

    content: bytes
    dtype: np.dtype[np.generic]
    hw: tuple[int, int]

    @classmethod
    def of(cls, labels: LabelMap) -> _Packed:
        hw = (labels.shape[0], labels.shape[1])
        return cls(zlib.compress(labels.tobytes(), 1), labels.dtype, hw)

    def unpacked(self) -> LabelMap:
        return np.frombuffer(zlib.decompress(self.content), self.dtype).reshape(self.hw)


@dataclass(frozen=True)
class _Seen:
    """An image's truth and its raw labels."""

    sample: Sample
    truth: _Packed
    labels: _Packed

    @classmethod
    def of(cls, sample: Sample, read: Read, predict: Predict) -> _Seen:
        image, truth = read(sample)
        return cls(sample, _Packed.of(truth), _Packed.of(predict(image)))


def _sizes(areas: Iterator[int]) -> list[int]:
    found = np.fromiter(areas, np.int64)
    if not len(found):
        return []
    return [size for size in SIZES_PX if np.mean(found < size) <= REMOVED]


def _counted(
    seen: Sequence[_Seen],
    settings: PostprocessingSettings,
    classes: Sequence[str],
    ignore_index: int | None,
) -> tuple[Scores, ImageCounts]:
    tally = ImageCountsTally(classes, ignore_index)
    total = None
    for one in seen:
        labels = postprocess(one.labels.unpacked(), settings)
        confusion = confusion_of(one.truth.unpacked(), labels, classes, ignore_index)
        tally.update(one.sample.name, one.sample.group, confusion)
        if total is None:
            total = confusion
        else:
            total.merge(confusion)
    if total is None:
        raise ValueError("there are no images")
    return compute_scores(total), tally.result()


def _tried(
    before: PostprocessingSettings,
    changes: Sequence[dict[str, int]],
    counted: Callable[[PostprocessingSettings], tuple[Scores, ImageCounts]],
    ends: float,
) -> list[Tried]:
    """Each change of ``before``, beside it, as long as there is time."""
    if not changes:
        return []
    scores, images = counted(before)
    if len(images.units()) < 2:
        return []
    found = []
    for change in changes:
        if time.monotonic() > ends:
            break
        settings = before.model_copy(update=change)
        others, other_images = counted(settings)
        compared = compare_models(("raw", "cleaned"), (scores, others), (images, other_images))
        found.append(Tried(settings, compared.mean_iou))
    return found


def _best(tried: Sequence[Tried], before: PostprocessingSettings) -> PostprocessingSettings:
    clear = [one for one in tried if one.mean_iou.interval[0] > 0]
    return max(clear, key=lambda one: one.mean_iou.value).settings if clear else before
