"""Where the classes are: pixels of each class, counted by sample and by strip of rows.

Positions are not kept, only counts: a pixel is drawn by its number among those of its class, and
looked for in the one strip that holds it. So the index is small whatever the size of the masks,
every pixel is as likely as any other, and a mask of 10,000 x 10,000 pixels costs no more at crop
time than one of a megapixel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from delineate.data.dataset import Sample
from delineate.types import LabelMap

STRIP_PX = 2**20


@dataclass(frozen=True)
class MaskCounts:
    """Pixels of the classes of one mask.

    Attributes:
        strip_rows: rows of a strip; the last may have fewer.
        classes: ids of the classes that are there, ascending.
        pixels: of each strip and each of ``classes``.
    """

    strip_rows: int
    classes: tuple[int, ...]
    pixels: Int64[np.ndarray, "strips present"]


def count_classes(mask: LabelMap, classes: int, ignore_index: int | None) -> MaskCounts:
    """Count the pixels of each class, except those of ``ignore_index``.

    Args:
        mask: (H, W) ids below ``classes``, or ``ignore_index``.
        classes: how many there are.
        ignore_index: id of pixels that count nowhere, or None.
    """
    rows = max(1, STRIP_PX // max(mask.shape[1], 1))
    counts = np.array(
        [
            np.bincount(mask[top : top + rows].reshape(-1), minlength=classes)[:classes]
            for top in range(0, len(mask), rows)
        ]
    )
    if ignore_index is not None and ignore_index < classes:
        counts[:, ignore_index] = 0
    present = np.flatnonzero(counts.any(axis=0))
    return MaskCounts(rows, tuple(present.tolist()), counts[:, present])


class ClassIndex:
    """The samples of each class.

    Args:
        classes: names by id.
        counts: of each sample.
        ignore_index: as given to :func:`count_classes`.

    Attributes:
        shares: of the labelled pixels, by class id, 0 to 1.
        present: ids of the classes that have a pixel, ascending.
        empty: names of the classes that have none.
    """

    def __init__(
        self,
        classes: Sequence[str],
        counts: Mapping[Sample, MaskCounts],
        ignore_index: int | None = None,
    ) -> None:
        self._counts = counts
        self._holders: dict[int, list[Sample]] = {}
        pixels = [0] * len(classes)
        for sample, found in counts.items():
            for class_id, number in zip(found.classes, found.pixels.sum(axis=0), strict=True):
                self._holders.setdefault(class_id, []).append(sample)
                pixels[class_id] += int(number)
        total = max(sum(pixels), 1)
        self.shares = tuple(number / total for number in pixels)
        self.present = tuple(sorted(self._holders))
        self.empty = tuple(
            name
            for class_id, name in enumerate(classes)
            if class_id not in self._holders and class_id != ignore_index
        )

    def draw(self, rng: np.random.Generator) -> tuple[Sample, int]:
        """A class, evenly among those present, and a sample, evenly among those that hold it."""
        class_id = self.present[int(rng.integers(len(self.present)))]
        holders = self._holders[class_id]
        return holders[int(rng.integers(len(holders)))], class_id

    def pixel(
        self, sample: Sample, mask: LabelMap, class_id: int, rng: np.random.Generator
    ) -> tuple[int, int]:
        """The place (y, x) of a pixel of a class, each as likely as any other.

        Args:
            sample: one that holds the class.
            mask: of the sample, as it was counted.
            class_id: of the pixel.
            rng: draws it.
        """
        found = self._counts[sample]
        ends = found.pixels[:, found.classes.index(class_id)].cumsum()
        number = int(rng.integers(ends[-1]))
        strip = int(np.searchsorted(ends, number, side="right"))
        before = int(ends[strip - 1]) if strip else 0
        top = strip * found.strip_rows
        places = np.flatnonzero(mask[top : top + found.strip_rows] == class_id)
        y, x = divmod(int(places[number - before]), mask.shape[1])
        return top + y, x
