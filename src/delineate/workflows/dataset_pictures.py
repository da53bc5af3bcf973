"""Sample pictures of a dataset's page: one or a few for each class, with its labels drawn in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import UInt, UInt8

from delineate.data.dataset import Dataset, Sample, read_instances, read_pair
from delineate.data.overlay import borders, displayable, overlay, thumbnail, thumbnail_labels
from delineate.data.statistics import Example, Statistics
from delineate.errors import DatasetError
from delineate.evaluation.page import Html, escape, join, picture, swatch

MOST_CLASSES = 24
"""Classes that get pictures; of more, the rarest."""

_SIDE_PX = 360
# A class with a smaller share of its image is shown by a detail around its largest object.
_SMALL_SHARE = 0.03
_LEAST_DETAIL_PX = 96
_DETAIL_FACTOR = 3

_Rgb = UInt8[np.ndarray, "_ _ 3"]


@dataclass(frozen=True)
class _Window:
    top: int
    left: int
    height: int
    width: int

    def of(self, array: np.ndarray) -> np.ndarray:
        cut: np.ndarray = array[
            self.top : self.top + self.height, self.left : self.left + self.width
        ]
        return cut


def pictured(statistics: Statistics) -> tuple[Example, ...]:
    """The images to show, by class: the rarest classes choose first, so that images differ."""
    share = {found.id: found.pixel_share for found in statistics.whole.classes}
    candidates: dict[int, list[Example]] = {}
    for example in statistics.examples:
        candidates.setdefault(example.class_id, []).append(example)
    rarest = sorted(candidates, key=lambda class_id: (share[class_id], class_id))[:MOST_CLASSES]
    each = 4 if len(rarest) == 1 else 2 if len(rarest) <= 3 else 1
    taken: set[tuple[str, str]] = set()
    chosen: list[Example] = []
    for class_id in rarest:
        fresh = sorted(candidates[class_id], key=lambda e: (e.split, e.sample) in taken)
        chosen += fresh[:each]
        taken.update((e.split, e.sample) for e in fresh[:each])
    return tuple(sorted(chosen, key=lambda e: e.class_id))


def gallery(data: Dataset, examples: Sequence[Example]) -> Html:
    """A card for each example: the image and, beside it, the class drawn over it.

    Raises:
        DatasetError: a sample is no longer there.
        ImageError: an image cannot be read.
        MaskError: a mask cannot be read.
    """
    return Html(f'<div class="gallery">{join(_card(data, example) for example in examples)}</div>')


def _card(data: Dataset, example: Example) -> Html:
    name = data.info.classes[example.class_id]
    image, drawn, detail = _draw(data, example)
    place = f"{example.split}/{example.sample}"
    share = f"{100 * example.pixel_share:.3g} % of this image"
    note = "" if detail is None else f"; a detail of {detail.width} x {detail.height} px"
    panels = join(
        [
            Html(f"<figure>{picture(image, f'{place}, the image')}</figure>"),
            Html(f"<figure>{picture(drawn, f'{place} with {name} marked')}</figure>"),
        ]
    )
    return Html(
        f'<article class="case"><header><h3>{swatch(data.colours[example.class_id])}'
        f"{escape(name)}</h3></header>"
        f'<div class="panels two">{panels}</div>'
        f'<p class="caption">{escape(place)}: {escape(share + note)}</p></article>'
    )


def _draw(data: Dataset, example: Example) -> tuple[_Rgb, _Rgb, _Window | None]:
    """The image and the same with the class drawn in, as thumbnails; and what was cut out."""
    sample = _find(data, example)
    image, labels = read_pair(sample, data.info)
    ids = read_instances(sample, (labels.shape[0], labels.shape[1]))
    rgb = displayable(image)
    detail = None
    if example.pixel_share < _SMALL_SHARE:
        detail = _detail(np.equal(labels, example.class_id).view(np.uint8))
        rgb, labels = np.ascontiguousarray(detail.of(rgb)), detail.of(labels)
        ids = None if ids is None else detail.of(ids)
        if detail.height * detail.width == image.shape[0] * image.shape[1]:
            detail = None
    small, small_labels = thumbnail(rgb, _SIDE_PX), thumbnail_labels(labels, _SIDE_PX)
    others = [i for i in range(len(data.info.classes)) if i != example.class_id]
    drawn = overlay(small, small_labels, data.colours, alpha=0.4, untinted=others)
    if ids is not None:
        outlines = borders(thumbnail_labels(ids, _SIDE_PX)) & (small_labels == example.class_id)
        drawn[outlines] = data.colours[example.class_id]
    return small, drawn, detail


def _find(data: Dataset, example: Example) -> Sample:
    for sample in data.split(example.split):
        if sample.name == example.sample:
            return sample
    raise DatasetError(
        f"has no image {example.sample!r} any more",
        where=data.path / example.split,
        mend="Measure the dataset again.",
    )


def _detail(region: UInt[np.ndarray, "h w"]) -> _Window:
    """A square around the largest component of ``region``, as far as the image goes."""
    _, _, stats, _ = cv2.connectedComponentsWithStats(region.astype(np.uint8), connectivity=8)
    left, top, width, height, _ = (int(v) for v in stats[1 + int(stats[1:, 4].argmax())])
    side = max(_LEAST_DETAIL_PX, _DETAIL_FACTOR * max(width, height))
    tall, wide = min(side, region.shape[0]), min(side, region.shape[1])
    return _Window(
        top=min(max(top + height // 2 - tall // 2, 0), region.shape[0] - tall),
        left=min(max(left + width // 2 - wide // 2, 0), region.shape[1] - wide),
        height=tall,
        width=wide,
    )
