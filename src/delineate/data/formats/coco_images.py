"""The images that COCO files name -> items: found on the disk, named, and no image twice."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from delineate.data.dataset import ONLY_SPLIT, list_files
from delineate.data.formats.coco_json import AnnotationFile, ImageJson, repeated
from delineate.data.formats.naming import file_inside, refuse_link_outside, sample_names
from delineate.data.formats.pairing import refuse_absent, spellings
from delineate.data.formats.settings import ImportSettings
from delineate.data.formats.source import Item
from delineate.errors import DatasetError, MaskError
from delineate.words import plural

_LISTED = 5


@dataclass(frozen=True)
class Entry:
    """An image of an annotation file with what the file says of it.

    Attributes:
        content: annotations of the image, as its format has them; None where it has no labels.
    """

    file: AnnotationFile
    image: ImageJson
    content: Any

    @property
    def where(self) -> str:
        return f"{self.file.path}, image {self.image.id} ({self.image.file_name})"


@dataclass(frozen=True)
class Listing:
    """Items, notes, and the images that are not there and were left out."""

    items: tuple[Item, ...]
    notes: tuple[str, ...]
    dropped: tuple[Path, ...]


def images_by_id(file: AnnotationFile, images: Iterable[ImageJson]) -> dict[int, ImageJson]:
    """The images of one file.

    Raises:
        DatasetError: two have one id, or there are none.
    """
    listed = list(images)
    found = {image.id: image for image in listed}
    if not found:
        raise DatasetError("names no images", where=file.path)
    if len(found) < len(listed):
        twice = repeated(image.id for image in listed)
        names = [image.file_name for image in listed if image.id == twice]
        raise DatasetError(
            f"has {len(names)} images of the id {twice} ({', '.join(names[:_LISTED])})",
            where=file.path,
            mend="Give each image an id of its own.",
        )
    return found


def list_items(
    entries: Sequence[Entry], settings: ImportSettings, content_of: Callable[[Entry], Any]
) -> Listing:
    """Items of all entries whose image is there.

    An image that several files name alike is one item of each split.

    Args:
        content_of: what of an entry must be equal where two name one image.

    Raises:
        DatasetError: images are absent, lie outside of their folder, or two entries disagree.
    """
    finders = {file: _Finder(file, settings) for file in {entry.file for entry in entries}}
    absent: dict[Path, list[str]] = {}
    first: dict[Path, Entry] = {}
    by_split: dict[str, dict[Path, Entry]] = {}
    again = 0
    for entry in entries:
        path = finders[entry.file].find(entry.image.file_name, entry.where)
        if path is None:
            absent.setdefault(entry.file.path, []).append(entry.image.file_name)
            continue
        other = first.setdefault(path, entry)
        if other is not entry:
            _refuse_disagreement(other, entry, content_of)
        members = by_split.setdefault(entry.file.split, {})
        again += path in members
        members.setdefault(path, entry)
    for file, names in absent.items():
        refuse_absent(names, file, drop=settings.drop_unpaired)
    notes: list[str] = []
    if again:
        notes.append(f"named twice, and imported once: {plural(again, 'image')}")
    notes += _unnamed(first)
    items = [item for split, members in by_split.items() for item in _items_of(split, members)]
    if not items:
        raise DatasetError(
            "none of the annotated images is there",
            where=settings.source,
            mend="Name their folder with --images.",
        )
    dropped = tuple(file.parent / name for file, names in absent.items() for name in names)
    return Listing(tuple(items), tuple(notes), dropped)


def refuse_other_size(entry: Entry, hw: tuple[int, int]) -> None:
    """Raise MaskError when the image is not of the size that its entry says."""
    said = (entry.image.height or hw[0], entry.image.width or hw[1])
    if said != hw:
        raise MaskError(
            f"is {said[1]} x {said[0]} pixels (width x height) by the JSON, and the image is "
            f"{hw[1]} x {hw[0]}",
            where=entry.where,
            mend="Use the images that were annotated, not resized or rotated.",
        )


class _Finder:
    """Finds the images of one annotation file."""

    def __init__(self, file: AnnotationFile, settings: ImportSettings) -> None:
        beside = file.path.parent
        roots = [settings.images] if settings.images is not None else [beside]
        if settings.images is None and beside.name == "annotations":
            roots.append(beside.parent)
        subset = file.path.stem.rpartition("_")[2]  # instances_train2017 -> train2017
        names = ["", subset] if file.split == ONLY_SPLIT else ["", subset, file.split]
        folders = [
            (root, root / folder)
            for root in roots
            for folder in (*names, "images", *(f"images/{n}" for n in names[1:]), "JPEGImages")
        ]
        self._folders = [(root, folder) for root, folder in folders if folder.is_dir()]
        self._follow_links = settings.follow_links
        self._trusted: set[Path] = set()

    def find(self, name: str, where: str) -> Path | None:
        """The file of that name and folders in any place, else of that name alone."""
        base = PurePosixPath(name.replace("\\", "/")).name
        for candidate in dict.fromkeys((*spellings(name), *spellings(base))):
            for root, folder in self._folders:
                # a link is looked at when there is a file, and each folder once: it is slow
                path = file_inside(folder, candidate, where, follow_links=True)
                if is_file(path):
                    if path.is_symlink() or path.parent not in self._trusted:
                        refuse_link_outside(path, root, follow_links=self._follow_links)
                        self._trusted.add(path.parent)
                    return path
        # no folder at all: the name is judged all the same
        file_inside(Path(), name, where, follow_links=True)
        return None


def is_file(path: Path) -> bool:
    """Whether there is a file; a name that no file can have is none."""
    try:
        return path.is_file()
    except OSError:
        return False


def _refuse_disagreement(one: Entry, other: Entry, content_of: Callable[[Entry], Any]) -> None:
    sizes = [(entry.image.width, entry.image.height) for entry in (one, other)]
    if sizes[0] != sizes[1]:
        (width, height), (other_width, other_height) = sizes
        found = f"is {width} x {height} pixels there and {other_width} x {other_height} here"
    elif content_of(one) != content_of(other):
        found = "has other annotations here"
    else:
        return
    raise DatasetError(
        f"is also in {one.where}, and {found}",
        where=other.where,
        mend="Keep the image in one of them.",
    )


def _unnamed(named: dict[Path, Entry]) -> Iterable[str]:
    """A note on images in the same folders that no file names."""
    others = [
        file for folder in sorted({path.parent for path in named}) for file in list_files(folder)
    ]
    left = [file.name for file in others if file not in named]
    if left:
        some = ", ".join(left[:_LISTED]) + (", ..." if len(left) > _LISTED else "")
        yield f"in no annotation file, and not imported: {plural(len(left), 'image')} ({some})"


def _items_of(split: str, members: dict[Path, Entry]) -> Iterable[Item]:
    common = os.path.commonpath([path.parent for path in members])
    relative = {path: path.relative_to(common).as_posix() for path in members}
    names = sample_names(relative.values())
    for path, entry in members.items():
        name = names[relative[path]]
        yield Item(
            name=name,
            file_name=name + path.suffix,
            where=entry.where,
            image=path,
            split=split,
            labelled=entry.content is not None,
            key=entry,
        )
