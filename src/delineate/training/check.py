"""Every sample read once before the first step: a bad file must not cost a run."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from delineate.data.class_index import ClassIndex, MaskCounts, count_classes
from delineate.data.dataset import Sample
from delineate.data.parallel import ordered_map
from delineate.evaluation.evaluate import Read
from delineate.training.cache import SampleCache

QUIET_S = 5.0  # a check that takes less says nothing


@dataclass(frozen=True)
class ReadSamples:
    """What :func:`read_all` leaves behind.

    Attributes:
        cache: the reader for training.
        index: where the classes are in the samples for training.
    """

    cache: SampleCache
    index: ClassIndex


def read_all(
    train: Sequence[Sample],
    val: Sequence[Sample],
    read: Read,
    *,
    classes: Sequence[str],
    ignore_index: int | None,
    keep: bool = True,
    watch: Callable[[float], None] | None = None,
) -> ReadSamples:
    """Read all samples, those of ``val`` first, in threads.

    Args:
        train: what will be trained on.
        val: what will be validated on.
        read: gives image and mask of a sample, and raises where one is wrong.
        classes: names by id.
        ignore_index: id of pixels that count nowhere, or None.
        keep: what is decoded for ``train``, in the result, as far as memory allows.
        watch: told the share that is done, once the check has taken some seconds.

    Raises:
        ImageError: an image cannot be read or is of another kind.
        MaskError: a mask cannot be read or does not fit its image or the classes.
    """
    cache = SampleCache(read, None if keep else 0)

    def look(item: tuple[Read, Sample]) -> MaskCounts:
        reader, sample = item
        _, mask = reader(sample)  # dropped here, so that few decoded images wait
        return count_classes(mask, len(classes), ignore_index)

    began = time.monotonic()
    work = [(read, sample) for sample in val] + [(cache, sample) for sample in train]
    counts: dict[Sample, MaskCounts] = {}
    for done, (item, found) in enumerate(zip(work, ordered_map(look, work), strict=True), 1):
        if done > len(val):
            counts[item[1]] = found
        if watch is not None and time.monotonic() - began > QUIET_S:
            watch(done / len(work))
    return ReadSamples(cache, ClassIndex(classes, counts, ignore_index))
