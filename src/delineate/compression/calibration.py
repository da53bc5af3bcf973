"""Which training images, and which pieces of them, give the ranges of a quantised network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64

from delineate.compression.piece import Piece
from delineate.data.dataset import Sample
from delineate.data.piece import top_left
from delineate.engines.scaling import image_scaling
from delineate.errors import DatasetError
from delineate.types import Image, LabelMap, PredictorSpec

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


def calibration_pieces(
    samples: Iterable[Sample],
    read: Callable[[Sample], tuple[Image, LabelMap]],
    spec: PredictorSpec,
    largest_px: int,
) -> list[Piece]:
    """Of each image what a network takes at once: where it is large, its most telling piece.

    Args:
        samples: chosen ones.
        read: gives image and class ids of a sample.
        spec: of the network.
        largest_px: side of the largest piece, pixels, of a network that takes any size.
    """
    size = spec.fixed_hw or (largest_px, largest_px)
    found = []
    for sample in samples:
        image, labels = read(sample)
        top, left = telling_piece(labels, size, len(spec.classes))
        cut = top_left(image[top:, left:], size, spec.fixed_hw or (0, 0))
        found.append(Piece(cut, image_scaling(image) if spec.normalised_by_image else None))
    return found


def telling_piece(labels: LabelMap, piece_hw: tuple[int, int], classes: int) -> tuple[int, int]:
    """Row and column of the piece of an image that shows the most of what is rare in it.

    Each class counts by the share of its pixels in the image that the piece holds, so that a
    class that is in one corner alone draws the piece there.

    Args:
        labels: of the image.
        piece_hw: height and width of the piece; (0, 0) is the answer where it holds the image.
        classes: how many; ids beyond count nowhere.
    """
    starts = [
        (top, left)
        for top in _starts(labels.shape[0], piece_hw[0])
        for left in _starts(labels.shape[1], piece_hw[1])
    ]
    if len(starts) == 1:
        return starts[0]
    height, width = piece_hw
    held = np.stack(
        [_counts(labels[top : top + height, left : left + width], classes) for top, left in starts]
    )
    shares = held / np.maximum(_counts(labels, classes), 1)
    return starts[int(np.argmax(shares.sum(axis=1)))]


def _starts(size: int, piece: int) -> list[int]:
    """Pieces side by side; the last ends where the image does."""
    return sorted({min(start, max(size - piece, 0)) for start in range(0, size, piece)})


def _counts(labels: LabelMap, classes: int) -> Int64[np.ndarray, " classes"]:
    counts: np.ndarray = np.bincount(labels.reshape(-1), minlength=classes)[:classes]
    return counts


def _shares(labels: LabelMap, classes: int) -> Float64[np.ndarray, " classes"]:
    """Share of the pixels of each class; ids beyond them, as the ignore index, count nowhere."""
    return np.asarray(_counts(labels, classes) / labels.size, np.float64)
