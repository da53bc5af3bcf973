"""Binary masks of several classes: one folder a class, or one file a class.

    MASKS/nucleus/a.png  MASKS/gland/a.png          (folders)
    MASKS/a_nucleus.png  MASKS/a_gland.png          (files)

A class whose mask is absent is not in that image. Where two masks overlap, the class that comes
later covers the other, unless ``overlap`` says otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from delineate.data.dataset import DatasetInfo, by_stem, list_files
from delineate.data.formats.canvas import Canvas
from delineate.data.formats.folders import (
    instance_notes,
    read_instance_file,
    source_folders,
)
from delineate.data.formats.mask_values import to_labels
from delineate.data.formats.naming import (
    BACKGROUND,
    id_of,
    ids_by_name,
    propose,
    refuse_link_outside,
)
from delineate.data.formats.pairing import read_item_image
from delineate.data.formats.settings import ImportSettings
from delineate.data.formats.source import Item, Labels
from delineate.data.masks import read_mask_bytes
from delineate.errors import DatasetError, MaskError


def class_folders(masks: Path) -> list[Path]:
    """The folders below ``masks`` that hold images, by name: one folder a class."""
    if not masks.is_dir():
        return []
    return sorted(folder for folder in masks.iterdir() if folder.is_dir() and list_files(folder))


def _has_masks(masks: Path) -> bool:
    return bool(class_folders(masks) or list_files(masks))


@dataclass(frozen=True)
class _Files:
    """What an item's labels are read from: (class, file) of each mask, and the object ids."""

    masks: tuple[tuple[str, Path], ...]
    instances: Path | None


class BinarySource:
    """One binary mask for each class, as :class:`delineate.data.formats.source.Source`.

    Raises:
        DatasetError: images without any mask, masks without an image, no classes.
    """

    def __init__(self, settings: ImportSettings) -> None:
        self._overlap = settings.overlap
        items: list[Item] = []
        dropped: list[Path] = []
        names: set[str] = set()
        for split, folders in source_folders(settings).items():
            image_of = by_stem(list_files(folders.images))
            if not image_of:
                raise DatasetError("holds no images", where=folders.images)
            unlabelled = split == "test" and not _has_masks(folders.masks)
            files = {} if unlabelled else _by_class(folders.masks, settings, list(image_of))
            objects = by_stem(list_files(folders.instances))
            masks = [(folders.masks, of) for of in files.values()]
            for root, of in ((folders.images, image_of), (folders.instances, objects), *masks):
                for file in of.values():
                    refuse_link_outside(file, root, follow_links=settings.follow_links)
            dropped += [] if unlabelled else _strays(image_of, files, settings)
            names |= set(files)
            items += [
                Item(
                    name=stem,
                    file_name=image.name,
                    where=str(image),
                    image=image,
                    split=split,
                    labelled=not unlabelled,
                    key=_Files(
                        tuple((name, of[stem]) for name, of in files.items() if stem in of),
                        objects.get(stem),
                    ),
                )
                for stem, image in sorted(image_of.items())
                if image not in dropped
            ]
        self.items: Sequence[Item] = tuple(items)
        notes = instance_notes([item.key.instances for item in items])
        self.proposal = replace(propose(sorted(names)), dropped=tuple(dropped), notes=notes)

    def image_bytes(self, item: Item) -> bytes:
        return read_item_image(item)

    def labels(self, item: Item, hw: tuple[int, int], info: DatasetInfo) -> Labels:
        ids = ids_by_name(info)
        two = DatasetInfo(classes=(BACKGROUND, "foreground"))
        layers: list[tuple[int, Bool[np.ndarray, "h w"]]] = []
        for name, file in item.key.masks:
            mask = to_labels(file, "binary", two).astype(bool)
            if mask.shape != hw:
                raise MaskError(
                    f"is {mask.shape[1]} x {mask.shape[0]} pixels (width x height), and its "
                    f"image is {hw[1]} x {hw[0]}",
                    where=file,
                    mend=f"Export the mask at {hw[1]} x {hw[0]}, without interpolation.",
                )
            layers.append((id_of(name, ids, str(file)), mask))
        layers.sort(key=lambda layer: layer[0])
        if self._overlap == "earlier":
            layers.reverse()
        elif self._overlap == "smaller":
            layers.sort(key=lambda layer: -int(layer[1].sum()))
        canvas = Canvas(hw, info, item.where)
        for class_id, mask in layers:
            canvas.paint(mask, class_id)
        ids_of_objects = read_instance_file(item.key.instances, hw, "binary")
        return replace(canvas.labels(), instances=ids_of_objects)

    def evidence(self, item: Item) -> bytes:
        masks = b"".join(name.encode() + read_mask_bytes(file) for name, file in item.key.masks)
        objects = item.key.instances
        return masks + (b"" if objects is None else read_mask_bytes(objects))


def _by_class(
    masks: Path, settings: ImportSettings, stems: list[str]
) -> dict[str, dict[str, Path]]:
    """The masks by class and image."""
    if folders := class_folders(masks):
        return {folder.name: by_stem(list_files(folder)) for folder in folders}
    return _by_suffix(masks, settings, stems)


def _by_suffix(
    masks: Path, settings: ImportSettings, stems: list[str]
) -> dict[str, dict[str, Path]]:
    """Masks called IMAGE_CLASS, by class and image."""
    files: dict[str, dict[str, Path]] = {}
    longest_first = sorted(stems, key=len, reverse=True)
    for file in list_files(masks):
        stem = next((s for s in longest_first if file.stem.startswith(s + "_")), None)
        if stem is None:
            if not settings.drop_unpaired:
                raise DatasetError(
                    "has no image: no image's name and an underscore begin its name",
                    where=file,
                    mend="Call masks IMAGE_CLASS.png, or leave it out with --drop-unpaired.",
                )
            continue
        files.setdefault(file.stem[len(stem) + 1 :], {})[stem] = file
    if not files:
        raise DatasetError("holds no masks called IMAGE_CLASS.png", where=masks)
    return files


def _strays(
    image_of: dict[str, Path], files: dict[str, dict[str, Path]], settings: ImportSettings
) -> list[Path]:
    labelled = set().union(*files.values())
    strays = sorted(image for stem, image in image_of.items() if stem not in labelled)
    strays += sorted(
        file for of in files.values() for stem, file in of.items() if stem not in image_of
    )
    if strays and not settings.drop_unpaired:
        names = ", ".join(file.name for file in strays[:5]) + (", ..." if len(strays) > 5 else "")
        raise DatasetError(
            f"there are {len(strays)} images without any mask or masks without an image ({names})",
            where=settings.source,
            mend="Add what is missing, or leave it out with --drop-unpaired.",
        )
    return strays
