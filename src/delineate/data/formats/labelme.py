"""labelme: a JSON file of shapes for each image (https://github.com/labelmeai/labelme).

Shapes become pixels as in labelme's own exports: see
:mod:`delineate.data.formats.labelme_shapes`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import msgspec

from delineate.data.dataset import ONLY_SPLIT, DatasetInfo
from delineate.data.formats.drawing import Region, paint_regions
from delineate.data.formats.labelme_shapes import Shape, draw_shape
from delineate.data.formats.naming import propose, refuse_link_outside, sample_names
from delineate.data.formats.pairing import (
    decode_json,
    list_files,
    list_images,
    read_bytes,
    refuse_absent,
    refuse_unannotated,
    spellings,
)
from delineate.data.formats.settings import ImportSettings
from delineate.data.formats.source import Item, Labels, Proposal
from delineate.data.images import IMAGE_SUFFIXES
from delineate.errors import DatasetError, MaskError

_SPLITS = ("train", "val", "test")
_HEAD_BYTES = 65536
_LEAST_CLASSES = 2  # of a dataset


class _File(msgspec.Struct, rename="camel"):
    shapes: list[Shape]
    image_path: str
    image_data: msgspec.Raw = msgspec.Raw(b"null")
    image_height: int | None = None
    image_width: int | None = None


class _ImageData(msgspec.Struct, rename="camel"):
    image_data: bytes


@dataclass(frozen=True)
class _Entry:
    """One annotation file; ``image`` is None where the file holds the image itself."""

    json: Path
    image: Path | None
    image_name: str


class LabelmeSource:
    """See :func:`open_labelme`."""

    def __init__(self, items: Sequence[Item], proposal: Proposal, settings: ImportSettings) -> None:
        self.items = tuple(items)
        self.proposal = proposal
        self._overlap = settings.overlap

    def image_bytes(self, item: Item) -> bytes:
        """The image file, or the bytes that the annotation file holds in ``imageData``.

        Raises:
            ImageError: it is not there or cannot be read.
            DatasetError: ``imageData`` is no base64.
        """
        if item.image is not None:
            return read_bytes(item.image)
        file: _ImageData = decode_json(read_bytes(item.key), _ImageData, item.key)
        return file.image_data

    def labels(self, item: Item, hw: tuple[int, int], info: DatasetInfo) -> Labels:
        """Shapes in the order of the file, or as ``overlap`` says; each is an object.

        Shapes of one label and one ``group_id`` are one object. ``_background_`` and
        ``__ignore__`` are no objects.

        Raises:
            MaskError: the annotations are of another size, a shape cannot be drawn, or a label is
                no class.
            DatasetError: the file is no labelme file any more.
        """
        if not item.labelled:
            raise MaskError("has no annotations", where=item.where, mend="Annotate it.")
        file = _read(item.key)
        _refuse_other_size(file, hw, item.where)
        regions = []
        for index, shape in enumerate(file.shapes):
            where = f"{item.where}, shape {index + 1} ({shape.label})"
            patch = draw_shape(shape, hw, where)
            regions.append(Region(shape.label, patch, where, group=shape.group_id))
        return paint_regions(regions, hw, info, self._overlap, item.where)

    def evidence(self, item: Item) -> bytes:
        """The annotation file."""
        return read_bytes(item.key)


def is_labelme(path: Path) -> bool:
    """Whether ``path`` is a labelme file, or a folder whose first JSON file is one.

    JSON files count when they are in the folder itself or in its train, val and test.
    """
    if path.is_dir():
        folders = [path, *(path / split for split in _SPLITS)]
        files = (file for folder in folders for file in sorted(folder.glob("*.json")))
        first = next(files, None)
        return first is not None and is_labelme(first)
    if path.suffix.lower() != ".json":
        return False
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError:
        return False
    return head.lstrip().startswith(b"{") and b'"shapes"' in head


def open_labelme(settings: ImportSettings) -> LabelmeSource:
    """List a folder of labelme files, or one file.

    Images are beside their JSON files, at ``imagePath``, or in ``settings.images``. Where there is
    none, the file's own ``imageData`` is taken. Folders train, val and test are splits; images of
    a test folder without any JSON file are unlabelled.

    Raises:
        DatasetError: there are no JSON files or one is no labelme file; a shape has no label, or
            there is none and ``settings.classes`` names no classes; images or annotations
            without the other, unless ``settings.drop_unpaired``; two files name one image.
    """
    source = settings.source
    root = source if source.is_dir() else source.parent
    links = settings.follow_links
    files = (
        list_files(source, frozenset({".json"}), follow_links=links)
        if source.is_dir()
        else [source]
    )
    if not files:
        raise DatasetError(
            "has no JSON files", where=source, mend="Name the folder that labelme saved into."
        )
    labels: set[str] = set()
    entries: list[_Entry] = []
    absent: dict[Path, str] = {}
    for json in files:
        refuse_link_outside(json, root, follow_links=links)
        file = _read(json)
        _refuse_without_label(file, json)
        labels.update(shape.label for shape in file.shapes)
        entry = _entry(json, file, root, settings)
        if entry is None:
            absent[json] = _base(file.image_path)
        else:
            entries.append(entry)
    refuse_absent(list(absent.values()), source, drop=settings.drop_unpaired)
    _refuse_twice(entries)
    items, unannotated = _list_items(entries, root, settings)
    refuse_unannotated(unannotated, source, drop=settings.drop_unpaired)
    proposal = replace(propose(sorted(labels)), dropped=(*absent, *unannotated))
    if settings.classes is None and len(proposal.classes or ()) < _LEAST_CLASSES:
        raise DatasetError(
            f"has no shape of any class in {len(files)} JSON file{'' if len(files) == 1 else 's'}",
            where=source,
            mend="Label some shapes, or name the classes with --classes background,NAME.",
        )
    return LabelmeSource(items, proposal, settings)


def _refuse_without_label(file: _File, json: Path) -> None:
    for index, shape in enumerate(file.shapes):
        if not shape.label.strip():
            raise DatasetError(
                f"shape {index + 1} has no label",
                where=json,
                mend="Give it one in labelme, or delete it.",
            )


def _entry(json: Path, file: _File, root: Path, settings: ImportSettings) -> _Entry | None:
    """Where the image of ``json`` is; None where there is none."""
    image = _find_image(json, file.image_path, root, settings)
    if image is not None:
        return _Entry(json, image, _relative(image, root, settings))
    if bytes(memoryview(file.image_data)[:1]) != b'"':
        return None
    suffix = PurePosixPath(_base(file.image_path)).suffix
    name = json.stem + (suffix if suffix.lower() in IMAGE_SUFFIXES else ".png")
    return _Entry(json, None, str(json.relative_to(root).with_name(name)))


def _base(image_path: str) -> str:
    return PurePosixPath(image_path.replace("\\", "/")).name


def _read(path: Path) -> _File:
    file: _File = decode_json(read_bytes(path), _File, path)
    return file


def _find_image(json: Path, image_path: str, root: Path, settings: ImportSettings) -> Path | None:
    """The image file of ``json``: at its imagePath or beside it, inside of the source."""
    folder = json.parent.relative_to(root)
    base = _base(image_path)
    if not base or base == "..":
        return None
    if settings.images is not None:
        top = settings.images
        places = [top / folder / base, top / base]
    else:
        top = root
        stated = os.path.normpath(folder / image_path.replace("\\", "/"))
        places = [json.parent / base]
        if not Path(stated).is_absolute() and not stated.startswith(".."):
            places.insert(0, root / stated)
    for place in places:
        for spelling in spellings(place.relative_to(top).as_posix()):
            file = top / spelling
            if file.is_file():
                refuse_link_outside(file, top, follow_links=settings.follow_links)
                return file
    return None


def _relative(image: Path, root: Path, settings: ImportSettings) -> str:
    for folder in (settings.images, root):
        if folder is not None and image.is_relative_to(folder):
            return str(image.relative_to(folder))
    return image.name


def _refuse_twice(entries: Sequence[_Entry]) -> None:
    owner: dict[Path, Path] = {}
    for entry in entries:
        if entry.image is not None:
            other = owner.setdefault(entry.image, entry.json)
            if other != entry.json:
                raise DatasetError(
                    f"names the image {entry.image}, and so does {other}",
                    where=entry.json,
                    mend="Keep one of the two, or correct imagePath.",
                )


def _list_items(
    entries: Sequence[_Entry], root: Path, settings: ImportSettings
) -> tuple[list[Item], list[Path]]:
    """Items of all splits, and images without annotations."""
    splits = {entry.json: _split(entry.json, root) for entry in entries}
    mixed = set(splits.values())
    if ONLY_SPLIT in mixed and len(mixed) > 1:
        odd = next(json for json, split in splits.items() if split == ONLY_SPLIT)
        raise DatasetError(
            f"is in none of the folders {', '.join(sorted(mixed - {ONLY_SPLIT}))}, which hold "
            "splits",
            where=odd,
            mend="Move it into one of them.",
        )
    rest: list[Path] = []
    if settings.source.is_dir():
        used = {entry.image for entry in entries}
        folder = settings.images or root
        rest = [
            image
            for image in list_images(folder, follow_links=settings.follow_links)
            if image not in used
        ]
    base = settings.images or root
    unlabelled = [
        image
        for image in rest
        if "test" not in mixed and mixed != {ONLY_SPLIT} and _split(image, base) == "test"
    ]
    items: list[Item] = []
    for split in sorted(mixed):
        members = [entry for entry in entries if splits[entry.json] == split]
        names = sample_names(entry.image_name for entry in members)
        items += [
            Item(
                name=names[entry.image_name],
                file_name=names[entry.image_name] + PurePosixPath(entry.image_name).suffix,
                where=str(entry.json),
                image=entry.image,
                split=split,
                key=entry.json,
            )
            for entry in members
        ]
    names = sample_names(str(image.relative_to(base)) for image in unlabelled)
    for image in unlabelled:
        refuse_link_outside(image, base, follow_links=settings.follow_links)
        name = names[str(image.relative_to(base))]
        items.append(
            Item(name, name + image.suffix, str(image), image, split="test", labelled=False)
        )
    return items, [image for image in rest if image not in set(unlabelled)]


def _split(file: Path, root: Path) -> str:
    first = file.relative_to(root).parts[0]
    return first if first in _SPLITS else ONLY_SPLIT


def _refuse_other_size(file: _File, hw: tuple[int, int], where: str) -> None:
    stated = (file.image_height or hw[0], file.image_width or hw[1])
    if stated != hw:
        raise MaskError(
            f"was drawn on an image of {stated[1]} x {stated[0]} px (width x height), and the "
            f"image has {hw[1]} x {hw[0]}",
            where=where,
            mend="Bring back the image that was annotated, or annotate this one.",
        )
