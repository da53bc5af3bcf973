"""Decoded samples kept in memory, so that later epochs need not decode them again."""

from __future__ import annotations

import os
from collections.abc import Callable

from delineate.data.dataset import Sample
from delineate.types import Image, LabelMap

SHARE_OF_MEMORY = 0.25  # of the machine's memory, at most, holds decoded samples


class SampleCache:
    """A reader that remembers samples until it is full; later ones are read every time.

    Arrays that were handed out must not be written to.

    Args:
        read: gives image and mask of a sample.
        limit_bytes: decoded bytes kept at most; a quarter of the machine's memory when left out.
    """

    def __init__(
        self, read: Callable[[Sample], tuple[Image, LabelMap]], limit_bytes: int | None = None
    ) -> None:
        self._read = read
        self._left = _memory_share() if limit_bytes is None else limit_bytes
        self._kept: dict[Sample, tuple[Image, LabelMap]] = {}

    def __call__(self, sample: Sample) -> tuple[Image, LabelMap]:
        if sample in self._kept:
            return self._kept[sample]
        image, mask = self._read(sample)
        size = image.nbytes + mask.nbytes
        if size <= self._left:
            self._left -= size
            image.flags.writeable = mask.flags.writeable = False
            self._kept[sample] = image, mask
        return image, mask


def _memory_share() -> int:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return int(memory * SHARE_OF_MEMORY)
