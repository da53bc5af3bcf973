"""Folders -> pairs of image and mask, and what is wrong with the names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from delineate.data.checks.findings import Finding, below, from_error
from delineate.data.dataset import DatasetInfo, Sample, list_files
from delineate.errors import DatasetError


@dataclass(frozen=True)
class Pair:
    """A sample and the split it is in."""

    split: str
    sample: Sample


def list_pairs(
    root: Path, split: str, folder: Path, info: DatasetInfo
) -> tuple[list[Finding], list[Pair]]:
    """The samples of one split, however broken, and what their names show.

    A folder ``test`` without masks is taken as unlabelled.
    """
    images, masks, instances = (folder / name for name in ("images", "masks", "instances"))
    findings: list[Finding] = []
    image_of = _by_stem(root, images, findings)
    mask_of = _by_stem(root, masks, findings)
    instances_of = _by_stem(root, instances, findings)
    unlabelled = split == "test" and not mask_of
    pairs = []
    for stem, image in image_of.items():
        group = None
        try:
            group = info.group_of(image)
        except DatasetError as error:
            findings.append(from_error("no group", root, image, error))
        mask, ids = mask_of.get(stem), instances_of.get(stem)
        pairs.append(Pair(split, Sample(stem, image, mask, group, ids)))
        if mask is None and not unlabelled:
            findings.append(
                Finding(
                    "missing mask",
                    below(root, image),
                    "has no mask",
                    f"Add {below(root, masks)}/{stem}.png, or remove the image.",
                )
            )
        if ids is not None and mask is None:
            findings.append(
                Finding(
                    "object without mask",
                    below(root, ids),
                    "numbers objects of an image that has no mask",
                    f"Add {below(root, masks)}/{stem}.png, or remove the file.",
                )
            )
    findings += _without_image(root, images, mask_of, image_of)
    findings += _without_image(root, images, instances_of, image_of)
    return findings, pairs


def _without_image(
    root: Path, images: Path, files: dict[str, Path], image_of: dict[str, Path]
) -> list[Finding]:
    return [
        Finding(
            "missing image",
            below(root, file),
            "has no image",
            f"Add the image {stem} to {below(root, images)}, or remove the "
            f"{'mask' if file.parent.name == 'masks' else 'file'}.",
        )
        for stem, file in files.items()
        if stem not in image_of
    ]


def _by_stem(root: Path, folder: Path, findings: list[Finding]) -> dict[str, Path]:
    """Files by stem, the first of each; the rest and what is no image become findings."""
    if not folder.is_dir():
        return {}
    files = list_files(folder)
    others = sorted(set(folder.iterdir()) - set(files))
    findings += [
        Finding(
            "not an image",
            below(root, other),
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
                    below(root, file),
                    f"has the name of {first.name} before its suffix",
                    "Rename or remove one of them: images and masks are paired by that name.",
                )
            )
    return found
