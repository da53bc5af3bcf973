"""Every sample read once before the first step: a bad file must not cost a run."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from delineate.data.dataset import Sample
from delineate.data.parallel import ordered_map
from delineate.evaluation.evaluate import Read
from delineate.training.cache import SampleCache

QUIET_S = 5.0  # a check that takes less says nothing


def read_all(
    train: Sequence[Sample],
    val: Sequence[Sample],
    read: Read,
    watch: Callable[[float], None] | None = None,
) -> SampleCache:
    """Read all samples, those of ``val`` first, in threads.

    Args:
        train: what will be trained on; kept in the result as far as memory allows.
        val: what will be validated on.
        read: gives image and mask of a sample, and raises where one is wrong.
        watch: told the share that is done, once the check has taken some seconds.

    Returns:
        the reader for training.

    Raises:
        ImageError: an image cannot be read or is of another kind.
        MaskError: a mask cannot be read or does not fit its image or the classes.
    """
    cache = SampleCache(read)
    began = time.monotonic()
    work = [(read, sample) for sample in val] + [(cache, sample) for sample in train]
    for done, _ in enumerate(ordered_map(_read_one, work), 1):
        if watch is not None and time.monotonic() - began > QUIET_S:
            watch(done / len(work))
    return cache


def _read_one(item: tuple[Read, Sample]) -> None:
    read, sample = item
    read(sample)  # what it gives is dropped here, so that few decoded images wait
