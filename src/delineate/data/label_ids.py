"""Which ids a label map has, and whether they fit the image and the classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import UInt

from delineate.errors import MaskError
from delineate.types import Image, LabelMap


def refuse_other_size(
    image: Image, labels: UInt[np.ndarray, "rows columns"], mask: Path, picture: Path
) -> None:
    """Raise MaskError when an image (H, W, C) and a mask (H, W) differ in size."""
    if image.shape[:2] != labels.shape:
        (height, width), (image_height, image_width) = labels.shape, image.shape[:2]
        mend = f"Export the mask at {image_width} x {image_height}, without interpolation."
        if (width, height) == (image_height, image_width):
            mend += " Labels are taken in the upright frame: an orientation tag is applied first."
        raise MaskError(
            f"is {width} x {height} pixels (width x height), and its image {picture.name} is "
            f"{image_width} x {image_height}",
            where=mask,
            mend=mend,
        )


def refuse_other_ids(
    labels: LabelMap, classes: tuple[str, ...], ignore_index: int | None, where: Path
) -> None:
    """Raise MaskError when ``labels`` has ids that are neither a class nor the ignore index."""
    other = unknown_ids(labels, len(classes), ignore_index)
    if not other:
        return
    several = len(other) > 1
    pixels = sum(other.values())
    ids = ", ".join(str(i) for i in list(other)[:8]) + (", ..." if len(other) > 8 else "")
    ignored = "" if ignore_index is None else f" and {ignore_index} is ignored"
    if max(other) >= len(classes) + 2 * len(other) + 8 and (several or ignore_index is not None):
        mend = "If these values stand for classes, write 0, 1, 2, ... instead of them."
    elif ignore_index is None and not several:
        mend = (
            f"If it means void, set ignore_index: {max(other)}; otherwise name {max(other) + 1} "
            "classes."
        )
    else:
        mend = f"Name {max(other) + 1} classes."
    raise MaskError(
        f"has the id{'s' if several else ''} {ids} ({pixels} pixels), and the classes go from 0 "
        f"to {len(classes) - 1}{ignored}",
        where=where,
        mend=mend,
    )


def unknown_ids(labels: LabelMap, classes: int, ignore_index: int | None) -> dict[int, int]:
    """Pixels of each id that is neither below ``classes`` nor ``ignore_index``, by id."""
    if not labels.size or int(labels.max()) < classes:
        return {}
    outside = labels[labels >= classes]
    if ignore_index is not None:
        outside = outside[outside != ignore_index]
    ids, counts = np.unique(outside, return_counts=True)
    return {int(i): int(n) for i, n in zip(ids, counts, strict=True)}


def count_ids(labels: LabelMap) -> dict[int, int]:
    """Pixels of each id that ``labels`` (H, W) has, by id."""
    counts = np.bincount(labels.ravel())
    return {int(i): int(counts[i]) for i in np.flatnonzero(counts)}
