"""COCO's JSON of objects: polygons, run-length encodings and crowds.

Format: https://cocodataset.org/#format-data. Pixels are those of pycocotools. Objects cover each
other in a stated order; COCO itself names none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import msgspec
import numpy as np
from jaxtyping import Int64

from delineate.data.dataset import DatasetInfo
from delineate.data.formats.canvas import Canvas
from delineate.data.formats.coco_images import Entry, images_by_id, list_items, refuse_other_size
from delineate.data.formats.coco_json import (
    Annotation,
    AnnotationFile,
    CocoFile,
    find_files,
    is_coco,
    names_by_id,
    read_json,
    repeated,
)
from delineate.data.formats.coco_runs import find_runs, is_empty, paint_order, painted
from delineate.data.formats.naming import (
    fill_id,
    id_of,
    ids_by_name,
    means_background,
    propose,
)
from delineate.data.formats.pairing import read_item_image
from delineate.data.formats.settings import DEFAULT_IGNORE, ImportSettings
from delineate.data.formats.source import Item, Labels, Proposal, Source
from delineate.errors import DatasetError, MaskError

__all__ = ["is_coco", "open_coco"]


def open_coco(settings: ImportSettings) -> Source:
    """List the images of one annotation file, or of all in a folder.

    Two files that say different things of one category or image are an error. A file of a test
    split may have no ``annotations``; its images then have no labels.

    Args:
        settings: ``source`` is a JSON file or a folder of some, whose names give the splits;
            ``images`` the folder of images.

    Raises:
        DatasetError: a file cannot be read; ids are repeated or unknown; images are absent and
            may not be left out; files disagree; no annotation has a segmentation.
    """
    files, unread = find_files(settings.source, is_coco, "instances_")
    documents = [(file, read_json(file.path, CocoFile)) for file in files]
    names = names_by_id((file.path, document.categories) for file, document in documents)
    entries: list[Entry] = []
    empty = crowds = 0
    for file, document in documents:
        own = {category.id for category in document.categories}
        entries += _group(file, document, own)
        for annotation in document.annotations or ():
            empty += is_empty(annotation.segmentation)
            crowds += bool(annotation.iscrowd)
    _refuse_boxes_only(documents, empty)

    def content(entry: Entry) -> list[tuple[str, bool, bytes]]:
        return sorted(
            (names[a.category_id], bool(a.iscrowd), bytes(memoryview(a.segmentation)))
            for a in entry.content or ()
        )

    listing = list_items(entries, settings, content)
    notes = (*unread, *_notes(settings, names, empty, crowds), *listing.notes)
    proposal = replace(propose(names.values()), notes=notes, dropped=listing.dropped)
    if settings.crowd == "ignore" and crowds and proposal.ignore_index is None:
        several = len(proposal.classes or ()) > DEFAULT_IGNORE
        proposal = replace(proposal, ignore_index=65535 if several else DEFAULT_IGNORE)
    return _CocoSource(listing.items, proposal, names, settings)


class _CocoSource:
    def __init__(
        self,
        items: Sequence[Item],
        proposal: Proposal,
        names: dict[int, str],
        settings: ImportSettings,
    ) -> None:
        self.items = items
        self.proposal = proposal
        self._names = names
        self._settings = settings

    def image_bytes(self, item: Item) -> bytes:
        return read_item_image(item)

    def labels(self, item: Item, hw: tuple[int, int], info: DatasetInfo) -> Labels:
        """Crowds lie below all objects and are none; background and ignored areas are none."""
        refuse_other_size(item.key, hw)
        found: list[Annotation] = [
            annotation
            for annotation in item.key.content or ()
            if not is_empty(annotation.segmentation)
        ]
        places = [f"{item.where}, annotation {annotation.id}" for annotation in found]
        class_ids = self._class_ids(found, info, places)
        runs = find_runs([annotation.segmentation for annotation in found], hw, places)
        fill = fill_id(info)
        canvas = Canvas(hw, info, item.where)
        crowd = np.array([bool(annotation.iscrowd) for annotation in found], bool)
        single = ~crowd & ~np.isin(
            class_ids, [i for i in (fill, info.ignore_index) if i is not None]
        )
        numbers = np.zeros(len(found), np.int64)
        for index in np.flatnonzero(single):
            numbers[index] = canvas.new_instance()
        order = paint_order(runs, np.where(crowd, 0, 1), self._settings.overlap)
        for pixels, owners in painted(runs, order):
            canvas.paint_pixels(pixels, class_ids[owners], numbers[owners])
        return canvas.labels()

    def evidence(self, item: Item) -> bytes:
        rows: list[bytes] = [msgspec.json.encode(sorted(self._names.items()))]
        for a in item.key.content or ():
            rows += [
                f"{a.id} {a.category_id} {bool(a.iscrowd)} ".encode(),
                bytes(memoryview(a.segmentation)),
            ]
        return b"\n".join(rows)

    def _class_ids(
        self, found: Sequence[Annotation], info: DatasetInfo, places: Sequence[str]
    ) -> Int64[np.ndarray, " n"]:
        ids = ids_by_name(info)
        listed = [
            ignored(info.ignore_index, place)
            if annotation.iscrowd and self._settings.crowd == "ignore"
            else class_id_of(self._names[annotation.category_id], ids, info, place)
            for annotation, place in zip(found, places, strict=True)
        ]
        return np.array(listed, np.int64)


def class_id_of(name: str, ids: Mapping[str, int], info: DatasetInfo, place: str) -> int:
    """The id of a category; a background by another name is the background that ``info`` has.

    Raises:
        MaskError: there is no such class.
    """
    if name not in ids and means_background(name):
        own = next((i for i, known in enumerate(info.classes) if means_background(known)), None)
        if own is not None:
            return own
    return id_of(name, ids, place)


def ignored(ignore_index: int | None, place: str) -> int:
    """The ignore index, for a crowd.

    Raises:
        MaskError: there is none.
    """
    if ignore_index is None:
        raise MaskError(
            "is a crowd that is to be ignored, and there is no ignore index",
            where=place,
            mend=f"Add --ignore-index {DEFAULT_IGNORE}.",
        )
    return ignore_index


def _group(file: AnnotationFile, document: CocoFile, categories: set[int]) -> list[Entry]:
    """The images of a file with their annotations, in the order of the file."""
    images = images_by_id(file, document.images)
    if document.annotations is None:
        if file.split != "test":
            raise DatasetError(
                "has no annotations",
                where=file.path,
                mend="Give a file with annotations. One of a test split may have none: its name "
                "has test in it.",
            )
        return [Entry(file, image, None) for image in images.values()]
    grouped: dict[int, list[Annotation]] = {index: [] for index in images}
    for annotation in document.annotations:
        members = grouped.get(annotation.image_id)
        if members is None:
            raise DatasetError(
                f"belongs to image {annotation.image_id}, which images does not name",
                where=f"{file.path}, annotation {annotation.id}",
                mend="Add the image, or delete its annotations.",
            )
        if annotation.category_id not in categories:
            raise DatasetError(
                f"has the category {annotation.category_id}, which categories does not name",
                where=f"{file.path}, annotation {annotation.id}",
                mend="Add the category with its name.",
            )
        members.append(annotation)
    twice = repeated(annotation.id for annotation in document.annotations)
    if twice is not None:
        raise DatasetError(
            f"has two annotations of the id {twice}",
            where=file.path,
            mend="Give each annotation an id of its own.",
        )
    return [Entry(file, images[index], members) for index, members in grouped.items()]


def _refuse_boxes_only(documents: Sequence[tuple[AnnotationFile, CocoFile]], empty: int) -> None:
    total = sum(len(document.annotations or ()) for _, document in documents)
    if total and empty == total:
        raise DatasetError(
            f"has {total} annotations and none of them has a segmentation, only boxes",
            where=documents[0][0].path,
            mend="Give annotations with polygons or RLE.",
        )


def _notes(settings: ImportSettings, names: dict[int, str], empty: int, crowds: int) -> list[str]:
    notes: list[str] = []
    if empty:
        notes.append(f"annotations without a segmentation, which label no pixel: {empty}")
    if crowds:
        become = "are ignored" if settings.crowd == "ignore" else "have their class and no objects"
        notes.append(f"crowds, which lie below all objects and {become}: {crowds}")
    joined = sorted({name for name in names.values() if list(names.values()).count(name) > 1})
    if joined:
        notes.append(f"categories of one name are one class: {', '.join(joined)}")
    return notes
