"""Folders of images and masks, one mask a picture, in whatever values: sources."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from delineate.data.dataset import (
    INFO_FILE,
    ONLY_SPLIT,
    DatasetInfo,
    by_stem,
    list_files,
    read_info,
)
from delineate.data.formats.mask_values import VOC_CLASSES, VOC_VOID, to_labels
from delineate.data.formats.naming import propose, refuse_link_outside
from delineate.data.formats.pairing import read_item_image
from delineate.data.formats.settings import ImportSettings, LabelFormat
from delineate.data.formats.source import Item, Labels, Proposal
from delineate.data.masks import read_mask, read_mask_bytes
from delineate.data.palette import voc_colours
from delineate.errors import DatasetError, MaskError
from delineate.types import InstanceMap

_SOURCE_FOLDERS = (
    ("images", "masks", "instances"),
    ("JPEGImages", "SegmentationClass", "SegmentationObject"),
)
_SPLITS = ("train", "val", "test")
_LISTED = 5


@dataclass(frozen=True)
class Folders:
    """Where the files of one split lie."""

    images: Path
    masks: Path
    instances: Path


@dataclass(frozen=True)
class _Files:
    """What an item's labels are read from; ``mask`` is None in a test split without labels."""

    mask: Path | None
    instances: Path | None


class FolderSource:
    """Images and masks paired by name, as :class:`delineate.data.formats.source.Source`.

    Raises:
        DatasetError: missing pairs, no images, two files of one name, links that lead out.
    """

    def __init__(self, settings: ImportSettings, mask_format: LabelFormat) -> None:
        self._format: LabelFormat = mask_format
        self._values = settings.values
        dropped: list[Path] = []
        self.items: Sequence[Item] = tuple(self._list(settings, dropped))
        self.proposal = replace(
            _propose(settings, mask_format),
            dropped=tuple(dropped),
            notes=instance_notes([item.key.instances for item in self.items]),
        )

    @staticmethod
    def _list(settings: ImportSettings, dropped: list[Path]) -> Iterator[Item]:
        listed = _voc_splits(settings.source)
        for split, folders in source_folders(settings).items():
            roots = (settings.source, settings.masks, settings.instances)
            for item in _pair_up(settings, split, folders, listed, dropped):
                for file in (item.image, item.key.mask, item.key.instances):
                    if file is not None:
                        _refuse_links(file, roots, follow_links=settings.follow_links)
                yield item

    def image_bytes(self, item: Item) -> bytes:
        return read_item_image(item)

    def labels(self, item: Item, hw: tuple[int, int], info: DatasetInfo) -> Labels:
        files: _Files = item.key
        if files.mask is None:
            raise MaskError("has no mask", where=item.where)
        labels = to_labels(files.mask, self._format, info, self._values)
        return Labels(labels, read_instance_file(files.instances, hw, self._format))

    def evidence(self, item: Item) -> bytes:
        files: _Files = item.key
        there = (file for file in (files.mask, files.instances) if file is not None)
        return b"".join(read_mask_bytes(file) for file in there)


def instance_notes(files: Sequence[Path | None]) -> tuple[str, ...]:
    """Says so when some images have object ids and others have none."""
    without = sum(file is None for file in files)
    if without in (0, len(files)):
        return ()
    return (f"images without object ids, where others have some: {without}",)


def read_instance_file(
    path: Path | None, hw: tuple[int, int], mask_format: LabelFormat
) -> InstanceMap | None:
    """Object ids (H, W) of a file; VOC's void (255) is no object.

    Raises:
        MaskError: it cannot be read or is of another size than ``hw``.
    """
    if path is None:
        return None
    ids = read_mask(path).astype(np.uint16)
    if ids.shape != hw:
        raise MaskError(
            f"is {ids.shape[1]} x {ids.shape[0]} pixels (width x height), and its image is "
            f"{hw[1]} x {hw[0]}",
            where=path,
            mend=f"Export the object ids at {hw[1]} x {hw[0]}.",
        )
    if mask_format == "voc":
        ids[ids == VOC_VOID] = 0
    return ids


def _refuse_links(file: Path, roots: Sequence[Path | None], *, follow_links: bool) -> None:
    root = next(r for r in roots if r is not None and file.is_relative_to(r))
    refuse_link_outside(file, root, follow_links=follow_links)


def _voc_splits(root: Path) -> dict[str, str]:
    """Splits by sample name, from VOC's ImageSets/Segmentation/{train,val,test}.txt.

    VOC has many images without a mask for detection alone: they are in none of the lists.
    """
    found: dict[str, str] = {}
    for split in _SPLITS:
        file = root / "ImageSets" / "Segmentation" / f"{split}.txt"
        if file.is_file():
            for line in filter(None, map(str.strip, file.read_text(encoding="utf-8").splitlines())):
                other = found.setdefault(line, split)
                if other != split:
                    raise DatasetError(
                        f"names {line}, which {other}.txt names as well",
                        where=file,
                        mend="Keep it in one split.",
                    )
    return found


def _propose(settings: ImportSettings, mask_format: LabelFormat) -> Proposal:
    known = None
    if (settings.source / INFO_FILE).is_file():
        known = read_info(settings.source)
    if mask_format == "values":
        found = propose((settings.values or {}).values())
        return found if known is None else replace(found, groups=known.groups)
    classes = known.classes if known else None
    colours = known.colours if known else None
    ignore = known.ignore_index if known else None
    if mask_format == "voc":
        if classes is None:
            classes = VOC_CLASSES
            names = settings.source / "class_names.txt"
            if names.is_file():
                lines = names.read_text(encoding="utf-8").splitlines()
                classes = tuple(line.strip() for line in lines if line.strip())
        ignore = VOC_VOID if ignore is None else ignore
        count = len(settings.classes) if isinstance(settings.classes, tuple) else len(classes)
        colours = colours or (voc_colours(count) if settings.classes is None else None)
    elif mask_format == "binary" and classes is None:
        classes = ("background", "foreground")
    return Proposal(
        classes=classes,
        ignore_index=ignore,
        colours=colours,
        pixel_size_um=known.pixel_size_um if known else None,
        groups=known.groups if known else None,
    )


def split_names_in(root: Path) -> list[str]:
    """The folders of ``root`` that hold ``images``, whatever they are called: train first."""
    names = sorted(folder.name for folder in root.iterdir() if (folder / "images").is_dir())
    return sorted(names, key=lambda n: _SPLITS.index(n) if n in _SPLITS else len(_SPLITS))


def source_folders(settings: ImportSettings) -> Mapping[str, Folders]:
    """The folders of each split of the source; one without splits is ``all``."""
    root = settings.source
    for folder in (root, settings.masks, settings.instances):
        if folder is not None and not folder.is_dir():
            raise DatasetError("no such folder", where=folder)
    if settings.masks is not None:
        instances = settings.instances or settings.masks.with_name("instances")
        return {ONLY_SPLIT: Folders(root, settings.masks, instances)}
    splits = {
        split: Folders(
            root / split / "images",
            root / split / "masks",
            (settings.instances or root) / split / ("" if settings.instances else "instances"),
        )
        for split in split_names_in(root)
    }
    if splits:
        for folders in splits.values():
            if settings.instances is not None and not folders.instances.is_dir():
                raise DatasetError(
                    "no such folder",
                    where=folders.instances,
                    mend="The source has splits: put the object ids into a folder for each.",
                )
        return splits
    for images, masks, instances_name in _SOURCE_FOLDERS:
        if (root / images).is_dir() and (root / masks).is_dir():
            instances = settings.instances or root / instances_name
            return {ONLY_SPLIT: Folders(root / images, root / masks, instances)}
    if settings.mask_suffix:
        return {ONLY_SPLIT: Folders(root, root, settings.instances or root / "instances")}
    raise DatasetError(
        "holds no folders images and masks",
        where=root,
        mend="Name both folders: delineate data import IMAGES --masks MASKS --out OUT.",
    )


def _pair_up(
    settings: ImportSettings,
    split: str,
    folders: Folders,
    listed: Mapping[str, str],
    dropped: list[Path],
) -> list[Item]:
    """The pairs of two folders; files left out are added to ``dropped``.

    Args:
        listed: splits by name where VOC's lists give them; other files are not looked at.

    Raises:
        DatasetError: there are no images, or pairs are missing and may not be dropped.
    """
    images, masks, suffix = folders.images, folders.masks, settings.mask_suffix
    mask_files = [file for file in list_files(masks) if file.stem.endswith(suffix)]
    image_files = list_files(images)
    if images.resolve() == masks.resolve():
        image_files = [file for file in image_files if not file.stem.endswith(suffix)]
    image_of = by_stem(image_files)
    mask_of = {stem.removesuffix(suffix): file for stem, file in by_stem(mask_files).items()}
    instances_of = by_stem(list_files(folders.instances))
    if listed:
        image_of, mask_of, instances_of = (
            {stem: file for stem, file in of.items() if stem in listed}
            for of in (image_of, mask_of, instances_of)
        )
    if not image_of:
        raise DatasetError("holds no images", where=images)
    unlabelled = {
        stem
        for stem in image_of
        if stem not in mask_of
        and (listed[stem] == "test" if listed else split == "test" and not mask_of)
    }
    no_mask = [f for stem, f in image_of.items() if stem not in mask_of and stem not in unlabelled]
    no_image = [
        file for of in (mask_of, instances_of) for stem, file in of.items() if stem not in image_of
    ]
    if (no_mask or no_image) and not settings.drop_unpaired:
        raise _unpaired(no_mask, no_image, (len(image_of), len(mask_of)), images, suffix)
    dropped += sorted((*no_mask, *no_image))
    items = [
        Item(
            name=stem,
            file_name=image.name,
            where=str(mask_of.get(stem, image)),
            image=image,
            split=listed.get(stem, split),
            labelled=stem not in unlabelled,
            key=_Files(mask_of.get(stem), instances_of.get(stem)),
        )
        for stem, image in sorted(image_of.items())
        if stem in mask_of or stem in unlabelled
    ]
    if not items:
        raise DatasetError(
            f"no image has a mask (images such as {_first(no_mask)}, masks such as "
            f"{_first(no_image)})",
            where=images,
            mend="Name masks as their images, or use --mask-suffix.",
        )
    return items


def _unpaired(
    no_mask: list[Path], no_image: list[Path], totals: tuple[int, int], images: Path, suffix: str
) -> DatasetError:
    parts = [
        f"{len(files)} of {total} {kind} without {other} ({_first(files)})"
        for files, total, kind, other in (
            (no_mask, totals[0], "images", "a mask"),
            (no_image, totals[1], "masks", "an image"),
        )
        if files
    ]
    return DatasetError(
        f"there are {' and '.join(parts)}",
        where=images,
        mend=f"A mask is called as its image{f' and {suffix}' if suffix else ''}, whatever "
        "the ending. Add what is missing, or leave it out with --drop-unpaired.",
    )


def _first(files: list[Path]) -> str:
    names = ", ".join(file.name for file in sorted(files)[:_LISTED])
    return names + (", ..." if len(files) > _LISTED else "")
