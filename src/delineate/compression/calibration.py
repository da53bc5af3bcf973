"""Which training images the ranges of a quantised network are measured on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from delineate.data.dataset import Sample
from delineate.errors import DatasetError
from delineate.types import Image, LabelMap

IMAGES = 64
EACH = 3  # images that show a class, where there are so many


def calibration_samples(
    samples: Sequence[Sample],
    read: Callable[[Sample], tuple[Image, LabelMap]],
    classes: Sequence[str],
    *,
    count: int = IMAGES,
    may_lack: bool = False,
    where: Path,
) -> tuple[Sample, ...]:
    """Samples that show every class, the rest of them spread over the split.

    All masks are read once.

    Args:
        samples: labelled ones, of the training split.
        read: gives image and class ids of a sample.
        classes: names by id.
        count: how many to choose; more only where the classes need it.
        may_lack: go on where a class is nowhere.
        where: the dataset, for the error.

    Raises:
        DatasetError: no image shows one of the classes.
    """
    shares = np.stack([_shares(read(sample)[1], len(classes)) for sample in samples])
    absent = [name for name, most in zip(classes, shares.max(axis=0), strict=True) if not most]
    if absent and not may_lack:
        raise DatasetError(
            f"no image for the calibration shows {', '.join(absent)}, so that the ranges of "
            f"{'it' if len(absent) == 1 else 'them'} would be guessed",
            where=where,
            mend="Add labelled images of it to train, or go on with --calibration-may-lack.",
        )
    return tuple(samples[i] for i in choose(shares, count))


def choose(shares: Float64[np.ndarray, "images classes"], count: int) -> list[int]:
    """Rows to take, in ascending order.

    First, class by class from the rarest, the images with the most of it, until each class is in
    :data:`EACH` of them; then others evenly over the rest.

    Args:
        shares: of the pixels of each image that belong to each class.
        count: how many rows; more where the classes need it, fewer where there are not so many.
    """
    chosen: set[int] = set()
    shown = shares > 0
    for class_id in np.argsort(shown.sum(axis=0), kind="stable"):
        most = [int(i) for i in np.argsort(-shares[:, class_id], kind="stable")]
        holds = [i for i in most if shown[i, class_id]]
        missing = EACH - sum(i in chosen for i in holds)
        chosen.update([i for i in holds if i not in chosen][: max(missing, 0)])
    rest = [i for i in range(len(shares)) if i not in chosen]
    more = min(max(count - len(chosen), 0), len(rest))
    chosen.update(rest[i] for i in np.linspace(0, len(rest) - 1, more).round().astype(int))
    return sorted(chosen)


def _shares(labels: LabelMap, classes: int) -> Float64[np.ndarray, " classes"]:
    """Share of the pixels of each class; ids beyond them, as the ignore index, count nowhere."""
    counts = np.bincount(labels.reshape(-1), minlength=classes)[:classes]
    return np.asarray(counts / labels.size, np.float64)
