"""What is wrong with a dataset: everything is looked at, whatever is found on the way."""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from delineate.data.dataset import (
    INFO_FILE,
    DatasetInfo,
    count_ids,
    find_splits,
    list_files,
    read_info,
    refuse_other_ids,
    refuse_other_size,
)
from delineate.data.images import read_image
from delineate.data.masks import read_mask
from delineate.data.palette import is_background
from delineate.errors import DatasetError, DelineateError, MaskError

FindingKind = Literal[
    "missing mask",
    "missing image",
    "same name",
    "not an image",
    "no group",
    "unreadable",
    "size",
    "ids",
    "empty mask",
    "pixel type",
    "same image",
    "group in two splits",
    "class never seen",
    "class only in val",
]

Progress = Callable[[int, int], None]
"""Called with samples done and samples in all, from the calling thread."""


@dataclass(frozen=True)
class Finding:
    """One problem.

    Attributes:
        kind: one of :data:`FindingKind`.
        file: path below the dataset's folder.
        found: what was found there.
        mend: what to do about it.
    """

    kind: FindingKind
    file: str
    found: str
    mend: str


@dataclass(frozen=True)
class _Pair:
    split: str
    image: Path
    mask: Path | None
    group: str | None


@dataclass
class _Seen:
    """What one pair gave; arrays are not kept."""

    findings: list[Finding] = field(default_factory=list)
    pixels_hash: bytes | None = None
    pixel_type: tuple[int, str] | None = None  # channels, dtype
    class_ids: frozenset[int] = frozenset()


def check(
    dataset_path: Path, *, workers: int | None = None, progress: Progress | None = None
) -> list[Finding]:
    """Look for problems in the canonical dataset at ``dataset_path``.

    Looks for pairs missing on either side, names that are there twice, files that are no images,
    unreadable and truncated files, masks of another size than their image, ids outside the
    classes, masks without anything but background or ignored pixels, mixed pixel types, the same
    picture (by its decoded pixels) or the same group in two splits, and classes that no mask
    shows or that only val shows. A folder ``test`` without masks is taken as unlabelled.

    Args:
        dataset_path: a folder with ``dataset.yaml``.
        workers: threads; as many as processors when left out.
        progress: told after every sample.

    Returns:
        The findings, by split and file; those about the whole dataset come last.

    Raises:
        DatasetError: there is no dataset at all: no folder, no or a wrong ``dataset.yaml``, no
            images.
    """
    info = read_info(dataset_path)
    findings: list[Finding] = []
    pairs: list[_Pair] = []
    for split, folder in find_splits(dataset_path).items():
        found, listed = _list_pairs(dataset_path, split, folder, info)
        findings += found
        pairs += listed
    if not pairs:
        raise DatasetError("holds no images", where=dataset_path)

    def look(pair: _Pair) -> _Seen:
        return _look(dataset_path, pair, info)

    seen: list[_Seen] = []
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        for result in pool.map(look, pairs):
            seen.append(result)
            findings += result.findings
            if progress is not None:
                progress(len(seen), len(pairs))
    return [
        *findings,
        *_mixed_types(dataset_path, pairs, seen),
        *_same_images(dataset_path, pairs, seen),
        *_groups_in_two_splits(pairs),
        *_classes(info, pairs, seen),
    ]


def _list_pairs(
    root: Path, split: str, folder: Path, info: DatasetInfo
) -> tuple[list[Finding], list[_Pair]]:
    images, masks = folder / "images", folder / "masks"
    findings: list[Finding] = []
    image_of = _by_stem(root, images, findings)
    mask_of = _by_stem(root, masks, findings)
    unlabelled = split == "test" and not mask_of
    pairs = []
    for stem, image in image_of.items():
        group = None
        try:
            group = info.group_of(image)
        except DatasetError as error:
            findings.append(_finding("no group", root, image, error))
        pairs.append(_Pair(split, image, mask_of.get(stem), group))
        if stem not in mask_of and not unlabelled:
            findings.append(
                Finding(
                    "missing mask",
                    _name(root, image),
                    "has no mask",
                    f"Add {_name(root, masks)}/{stem}.png, or remove the image.",
                )
            )
    findings += [
        Finding(
            "missing image",
            _name(root, mask),
            "has no image",
            f"Add the image {stem} to {_name(root, images)}, or remove the mask.",
        )
        for stem, mask in mask_of.items()
        if stem not in image_of
    ]
    return findings, pairs


def _by_stem(root: Path, folder: Path, findings: list[Finding]) -> dict[str, Path]:
    """Files by stem, the first of each; the rest and what is no image become findings."""
    if not folder.is_dir():
        return {}
    files = list_files(folder)
    others = sorted(set(folder.iterdir()) - set(files))
    findings += [
        Finding(
            "not an image",
            _name(root, other),
            "is a folder" if other.is_dir() else f"ends in {other.suffix or 'no suffix'}",
            "Move it elsewhere, or convert it to PNG, TIFF, JPEG, WebP or BMP.",
        )
        for other in others
        if other.name[0] != "." and other.name != "Thumbs.db"
    ]
    found: dict[str, Path] = {}
    for file in files:
        first = found.setdefault(file.stem, file)
        if first is not file:
            findings.append(
                Finding(
                    "same name",
                    _name(root, file),
                    f"has the name of {first.name} before its suffix",
                    "Rename or remove one of them: images and masks are paired by that name.",
                )
            )
    return found


def _look(root: Path, pair: _Pair, info: DatasetInfo) -> _Seen:
    seen = _Seen()
    image = None
    try:
        image = read_image(pair.image)
        digest = hashlib.blake2b(image.data, digest_size=16)
        digest.update(repr((image.shape, image.dtype.str)).encode())
        seen.pixels_hash = digest.digest()
        seen.pixel_type = (image.shape[2], str(image.dtype))
    except DelineateError as error:
        seen.findings.append(_finding("unreadable", root, pair.image, error))
    if pair.mask is None:
        return seen
    try:
        labels = read_mask(pair.mask)
    except DelineateError as error:
        seen.findings.append(_finding("unreadable", root, pair.mask, error))
        return seen
    if image is not None:
        try:
            refuse_other_size(image, labels, pair.mask, pair.image)
        except MaskError as error:
            seen.findings.append(_finding("size", root, pair.mask, error))
    try:
        refuse_other_ids(labels, info.classes, info.ignore_index, pair.mask)
    except MaskError as error:
        seen.findings.append(_finding("ids", root, pair.mask, error))
    ids = count_ids(labels)
    seen.class_ids = frozenset(i for i in ids if i < len(info.classes) and i != info.ignore_index)
    empty = _empty(ids, info)
    if empty:
        seen.findings.append(
            Finding(
                "empty mask",
                _name(root, pair.mask),
                empty,
                "Label it, or remove the pair; keep it if the image really shows nothing.",
            )
        )
    return seen


def _empty(ids: Iterable[int], info: DatasetInfo) -> str:
    rest = set(ids) - {info.ignore_index}
    if not rest:
        return "has nothing but ignored pixels"
    if rest == {0} and is_background(info.classes[0]):
        return f"has nothing but {info.classes[0]}"
    return ""


def _mixed_types(root: Path, pairs: Sequence[_Pair], seen: Sequence[_Seen]) -> list[Finding]:
    """Images that cannot go into one model with the rest (grey can go with three channels)."""
    kinds = Counter(
        (3 if s.pixel_type[0] == 1 else s.pixel_type[0], s.pixel_type[1])
        for s in seen
        if s.pixel_type is not None
    )
    if len(kinds) < 2:
        return []
    (channels, dtype), _ = kinds.most_common(1)[0]
    return [
        Finding(
            "pixel type",
            _name(root, pair.image),
            f"has {s.pixel_type[0]} x {s.pixel_type[1]}, and most images have {channels} x {dtype} "
            "(channels x type)",
            "Convert it: one model takes one kind of pixels.",
        )
        for pair, s in zip(pairs, seen, strict=True)
        if s.pixel_type is not None
        and ((3 if s.pixel_type[0] == 1 else s.pixel_type[0]), s.pixel_type[1]) != (channels, dtype)
    ]


def _same_images(root: Path, pairs: Sequence[_Pair], seen: Sequence[_Seen]) -> list[Finding]:
    first: dict[bytes, _Pair] = {}
    findings = []
    for pair, result in zip(pairs, seen, strict=True):
        if result.pixels_hash is None:
            continue
        other = first.setdefault(result.pixels_hash, pair)
        if other.split != pair.split:
            findings.append(
                Finding(
                    "same image",
                    _name(root, pair.image),
                    f"has the same pixels as {_name(root, other.image)}",
                    "Remove one of them: a score on an image that was trained on flatters.",
                )
            )
    return findings


def _groups_in_two_splits(pairs: Sequence[_Pair]) -> list[Finding]:
    splits: dict[str, list[str]] = defaultdict(list)
    for pair in pairs:
        if pair.group is not None and pair.split not in splits[pair.group]:
            splits[pair.group].append(pair.split)
    return [
        Finding(
            "group in two splits",
            INFO_FILE,
            f"the group {group!r} is in {' and in '.join(there)}",
            "Move its images into one split, or import again with --val-fraction.",
        )
        for group, there in sorted(splits.items())
        if len(there) > 1
    ]


def _classes(info: DatasetInfo, pairs: Sequence[_Pair], seen: Sequence[_Seen]) -> list[Finding]:
    by_split: dict[str, set[int]] = defaultdict(set)
    for pair, result in zip(pairs, seen, strict=True):
        by_split[pair.split] |= result.class_ids
    anywhere = set().union(*by_split.values())
    findings = []
    for index, name in enumerate(info.classes):
        if index == info.ignore_index:
            continue
        if index not in anywhere:
            findings.append(
                Finding(
                    "class never seen",
                    INFO_FILE,
                    f"no mask has the class {name!r} (id {index})",
                    "Label some of it, or take it out of classes.",
                )
            )
        elif "train" in by_split and index in by_split["val"] and index not in by_split["train"]:
            findings.append(
                Finding(
                    "class only in val",
                    INFO_FILE,
                    f"val has the class {name!r} (id {index}) and train has none of it",
                    "Move some images that show it from val to train.",
                )
            )
    return findings


def _finding(kind: FindingKind, root: Path, file: Path, error: DelineateError) -> Finding:
    return Finding(kind, _name(root, file), error.found, error.mend)


def _name(root: Path, file: Path) -> str:
    return file.relative_to(root).as_posix()
