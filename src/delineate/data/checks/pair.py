"""One pair: what is wrong with it, and the little that is kept to compare it with others."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import UInt

from delineate.data.checks.features import ImageFeatures, image_features
from delineate.data.checks.findings import Finding, below, from_error
from delineate.data.checks.listing import Pair
from delineate.data.checks.mask_flaws import colour_mask, wrong_ids
from delineate.data.checks.objects import check_objects
from delineate.data.dataset import DatasetInfo, Sample
from delineate.data.images import read_image
from delineate.data.label_ids import count_ids, refuse_other_size
from delineate.data.masks import read_mask
from delineate.data.palette import is_background
from delineate.errors import DelineateError, MaskError
from delineate.types import Image, LabelMap

RICH_MASK = 64
"""Changes from a pixel to the next in a row that make it no accident when two masks agree."""


@dataclass
class Seen:
    """What one pair gave; arrays are not kept, but for a thumbnail.

    Attributes:
        findings: about this pair alone.
        image: features of the image, where it could be read.
        counts: pixels of each class, ignored and unknown ids left out; None without a mask.
        outside: ids that are neither a class nor the ignore index.
        mask_digest: BLAKE2b of the ids, the same for 8 and 16 bits.
        rich: the mask has RICH_MASK changes or more.
        needless_16_bit: the mask has 16 bits and no id above 255.
    """

    findings: list[Finding] = field(default_factory=list)
    image: ImageFeatures | None = None
    counts: dict[int, int] | None = None
    outside: frozenset[int] = frozenset()
    mask_digest: bytes | None = None
    rich: bool = False
    needless_16_bit: bool = False


def look(root: Path, pair: Pair, info: DatasetInfo) -> Seen:
    """Read a pair and say what is wrong with it."""
    seen = Seen()
    sample = pair.sample
    image = None
    try:
        image = read_image(sample.image)
        seen.image = image_features(image)
    except DelineateError as error:
        seen.findings.append(from_error("unreadable", root, sample.image, error))
    labels = None
    if sample.mask is not None:
        try:
            labels = read_mask(sample.mask)
        except DelineateError as error:
            coloured = colour_mask(root, sample.mask, info)
            seen.findings.append(coloured or from_error("unreadable", root, sample.mask, error))
    if labels is not None and sample.mask is not None:
        seen.findings += _other_size(root, sample, image, labels)
        _look_at_mask(root, sample.mask, labels, info, seen)
    hw = None if image is None else (image.shape[0], image.shape[1])
    seen.findings += check_objects(root, sample, labels, hw, info)
    return seen


def _look_at_mask(root: Path, mask: Path, labels: LabelMap, info: DatasetInfo, seen: Seen) -> None:
    seen.findings += wrong_ids(root, mask, labels, info)
    ids = count_ids(labels)
    classes = len(info.classes)
    seen.counts = {i: n for i, n in ids.items() if i < classes and i != info.ignore_index}
    seen.outside = frozenset(i for i in ids if i >= classes and i != info.ignore_index)
    digest = hashlib.blake2b(repr(labels.shape).encode(), digest_size=16)
    seen.needless_16_bit = labels.dtype == np.uint16 and max(ids, default=0) < 256
    digest.update(labels.astype(np.uint8).data if seen.needless_16_bit else labels.data)
    seen.mask_digest = digest.digest()
    seen.rich = int((labels[:, 1:] != labels[:, :-1]).sum()) >= RICH_MASK
    empty = _empty(ids, info)
    if empty:
        seen.findings.append(
            Finding(
                "empty mask",
                below(root, mask),
                empty,
                "Label it, or remove the pair; keep it if the image really shows nothing.",
            )
        )


def _other_size(
    root: Path,
    sample: Sample,
    image: Image | None,
    labels: UInt[np.ndarray, "rows columns"],
) -> list[Finding]:
    if image is None or sample.mask is None:
        return []
    mask = sample.mask
    try:
        refuse_other_size(image, labels, mask, sample.image)
    except MaskError as error:
        mend = error.mend
        if labels.shape == image.shape[1::-1]:
            mend += " It is turned by 90 degrees: the tool that made it overlooked the orientation."
        return [Finding("size", below(root, mask), error.found, mend)]
    return []


def _empty(ids: Iterable[int], info: DatasetInfo) -> str:
    rest = set(ids) - {info.ignore_index}
    if not rest:
        return "has nothing but ignored pixels"
    if rest == {0} and is_background(info.classes[0]):
        return f"has nothing but {info.classes[0]}"
    return ""
