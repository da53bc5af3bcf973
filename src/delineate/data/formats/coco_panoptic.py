"""COCO's panoptic segmentation: one PNG of segment ids for each image, and a JSON that names them.

Format: https://cocodataset.org/#format-data, section 4. The id of a pixel is
R + 256 G + 65536 B; 0 is no segment (void) and becomes the ignore index.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
from jaxtyping import Int64

from delineate.data.dataset import DatasetInfo
from delineate.data.formats.canvas import Canvas
from delineate.data.formats.coco import class_id_of, ignored
from delineate.data.formats.coco_images import (
    Entry,
    images_by_id,
    is_file,
    list_items,
    refuse_other_size,
)
from delineate.data.formats.coco_json import (
    UNLABELLED_PREFIX,
    AnnotationFile,
    CocoFile,
    PanopticAnnotation,
    PanopticCategory,
    PanopticFile,
    Segment,
    find_files,
    is_coco_panoptic,
    names_by_id,
    read_json,
    repeated,
)
from delineate.data.formats.naming import (
    file_inside,
    fill_id,
    ids_by_name,
    propose,
    refuse_link_outside,
)
from delineate.data.formats.pairing import (
    read_item_image,
    refuse_unannotated,
    spellings,
)
from delineate.data.formats.settings import DEFAULT_IGNORE, ImportSettings
from delineate.data.formats.source import Item, Labels, Proposal, Source
from delineate.data.images import decode_image
from delineate.data.masks import read_mask_bytes
from delineate.errors import DatasetError, ImageError, MaskError

__all__ = ["is_coco_panoptic", "open_coco_panoptic"]

_LISTED = 5
_LARGEST_SEGMENT = 2**24 - 1
_EXPORT_AGAIN = "Export the PNG and the JSON together again."


class _Content(NamedTuple):
    """What the JSON says of one image."""

    segments: PanopticAnnotation
    png: Path


def open_coco_panoptic(settings: ImportSettings) -> Source:
    """List the images of one panoptic JSON, or of all in a folder.

    Images of ``image_info_test*.json`` have no labels.

    The PNGs are in ``settings.masks``, or beside the JSON in a folder of its name. Things become
    objects, stuff and crowds do not.

    Raises:
        DatasetError: a file cannot be read; ids are repeated or unknown; an image or its PNG is
            absent and may not be left out; files disagree.
    """
    files, unread = find_files(settings.source, is_coco_panoptic, "panoptic_")
    documents = [(file, _read(file)) for file in files]
    names = names_by_id((file.path, document.categories) for file, document in documents)
    categories = {c.id: c for _, document in documents for c in document.categories}
    entries: list[Entry] = []
    unlabelled: list[Path] = []
    for file, document in documents:
        own, without = _group(file, document, settings)
        entries += own
        unlabelled += without

    def content(entry: Entry) -> list[tuple[int, str, bool]]:
        segments = entry.content.segments.segments_info if entry.content else ()
        return sorted((s.id, names[s.category_id], bool(s.iscrowd)) for s in segments)

    listing = list_items(entries, settings, content)
    proposal = replace(
        propose(names.values()),
        notes=(*unread, "pixels of the id 0 (void) are ignored", *listing.notes),
        dropped=(*unlabelled, *listing.dropped),
    )
    if proposal.ignore_index is None:
        several = len(proposal.classes or ()) > DEFAULT_IGNORE
        proposal = replace(proposal, ignore_index=65535 if several else DEFAULT_IGNORE)
    return _PanopticSource(listing.items, proposal, names, categories, settings)


class _PanopticSource:
    def __init__(
        self,
        items: Sequence[Item],
        proposal: Proposal,
        names: Mapping[int, str],
        categories: Mapping[int, PanopticCategory],
        settings: ImportSettings,
    ) -> None:
        self.items = items
        self.proposal = proposal
        self._names = names
        self._categories = categories
        self._settings = settings

    def image_bytes(self, item: Item) -> bytes:
        return read_item_image(item)

    def labels(self, item: Item, hw: tuple[int, int], info: DatasetInfo) -> Labels:
        """Segments do not overlap: every pixel has one id."""
        entry: Entry = item.key
        refuse_other_size(entry, hw)
        content: _Content = entry.content
        segments = sorted(content.segments.segments_info, key=lambda segment: segment.id)
        ids, lengths = _read_runs(content.png, hw)
        known = np.array([0, *(segment.id for segment in segments)], np.int64)
        index = np.searchsorted(known, ids)
        index[index == len(known)] = 0
        _refuse_other_segments(content.png, known, ids, lengths)
        class_ids, numbers = self._tables(segments, item, info)
        if class_ids[0] < 0 and not index.all():
            raise MaskError(
                f"has {int(lengths[index == 0].sum())} pixels of no segment (id 0), and there is "
                "no ignore index",
                where=content.png,
                mend=f"Add --ignore-index {DEFAULT_IGNORE}.",
            )
        canvas = Canvas(hw, info, item.where)
        for _ in range(int(numbers.max())):
            canvas.new_instance()
        canvas.paint_pixels(
            np.arange(hw[0] * hw[1]),
            np.repeat(class_ids[index], lengths),
            np.repeat(numbers[index], lengths),
        )
        return canvas.labels()

    def _tables(
        self, segments: Sequence[Segment], item: Item, info: DatasetInfo
    ) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
        """Class and object of void (-1 where it has no class) and of each segment.

        Background and ignored segments are no objects.
        """
        ids = ids_by_name(info)
        class_ids = [-1 if info.ignore_index is None else info.ignore_index]
        numbers = [0]
        for segment in segments:
            place = f"{item.where}, segment {segment.id}"
            if segment.iscrowd and self._settings.crowd == "ignore":
                class_ids.append(ignored(info.ignore_index, place))
            else:
                name = self._names[segment.category_id]
                class_ids.append(class_id_of(name, ids, info, place))
            thing = bool(self._categories[segment.category_id].isthing) and not segment.iscrowd
            is_object = thing and class_ids[-1] not in (info.ignore_index, fill_id(info))
            numbers.append(max(numbers) + 1 if is_object else 0)
        return np.array(class_ids, np.int64), np.array(numbers, np.int64)

    def evidence(self, item: Item) -> bytes:
        content: _Content = item.key.content
        table = sorted((i, n, bool(self._categories[i].isthing)) for i, n in self._names.items())
        said = msgspec.json.encode([table, content.segments.segments_info])
        return said + b"\n" + read_mask_bytes(content.png)


def _read(file: AnnotationFile) -> PanopticFile:
    if not file.path.name.startswith(UNLABELLED_PREFIX):
        return read_json(file.path, PanopticFile)
    # its categories are those of objects, without isthing
    return PanopticFile(read_json(file.path, CocoFile).images)


def _group(
    file: AnnotationFile, document: PanopticFile, settings: ImportSettings
) -> tuple[list[Entry], list[Path]]:
    """The images of a file with their segments; and those left out, which have none."""
    images = images_by_id(file, document.images)
    if document.annotations is None:
        if file.split != "test":
            raise DatasetError(
                "has no annotations",
                where=file.path,
                mend="Give a file with annotations. One of a test split may have none: its name "
                "has test in it.",
            )
        return [Entry(file, image, None) for image in images.values()], []
    categories = {category.id for category in document.categories}
    twice = repeated(annotation.image_id for annotation in document.annotations)
    if twice is not None:
        raise DatasetError(
            f"has two annotations of the image {twice}",
            where=file.path,
            mend="Keep one of them.",
        )
    entries: list[Entry] = []
    absent: list[str] = []
    for annotation in document.annotations:
        image = images.pop(annotation.image_id, None)
        where = f"{file.path}, annotation of image {annotation.image_id}"
        if image is None:
            raise DatasetError(
                "belongs to an image that images does not name",
                where=where,
                mend="Add the image, or delete its annotation.",
            )
        _refuse_bad_segments(annotation.segments_info, categories, where)
        png = _find_png(file, annotation.file_name, settings, where)
        if png is None:
            absent.append(annotation.file_name)
        else:
            entries.append(Entry(file, image, _Content(annotation, png)))
    if absent and not settings.drop_unpaired:
        names = ", ".join(absent[:_LISTED]) + (", ..." if len(absent) > _LISTED else "")
        raise DatasetError(
            f"names PNGs of segments that are not there, {len(absent)} of "
            f"{len(document.annotations)}: {names}",
            where=file.path,
            mend="Name their folder with --masks, or leave them out with --drop-unpaired.",
        )
    without = [file.path.parent / image.file_name for image in images.values()]
    refuse_unannotated(without, file.path, drop=settings.drop_unpaired)
    return entries, [*without, *(file.path.parent / name for name in absent)]


def _refuse_bad_segments(segments: Sequence[Segment], categories: set[int], where: str) -> None:
    twice = repeated(segment.id for segment in segments)
    if twice is not None:
        raise DatasetError(f"has two segments of the id {twice}", where=where, mend=_EXPORT_AGAIN)
    for segment in segments:
        if not 0 < segment.id <= _LARGEST_SEGMENT:
            raise DatasetError(
                f"has a segment of the id {segment.id}, and a PNG holds 1 to {_LARGEST_SEGMENT} "
                "(0 is no segment)",
                where=where,
                mend=_EXPORT_AGAIN,
            )
        if segment.category_id not in categories:
            raise DatasetError(
                f"has the category {segment.category_id}, which categories does not name",
                where=f"{where}, segment {segment.id}",
                mend="Add the category with its name.",
            )


def _find_png(file: AnnotationFile, name: str, settings: ImportSettings, where: str) -> Path | None:
    folder = settings.masks or file.path.parent
    for place in (folder / file.path.stem, folder):
        for spelling in spellings(name):
            png = file_inside(place, spelling, where, follow_links=True)
            if is_file(png):
                refuse_link_outside(png, folder, follow_links=settings.follow_links)
                return png
    return None


def _read_runs(
    png: Path, hw: tuple[int, int]
) -> tuple[Int64[np.ndarray, " r"], Int64[np.ndarray, " r"]]:
    """Segment ids of runs down the columns of a PNG, and their lengths.

    Raises:
        MaskError: it cannot be read, is no 8-bit colour, or has another size than ``hw``.
    """
    try:
        pixels = decode_image(read_mask_bytes(png), str(png))
    except ImageError as error:
        raise MaskError(error.found, where=error.where, mend=error.mend) from error
    if pixels.dtype != np.uint8 or pixels.shape[2] != 3:
        raise MaskError(
            f"has {pixels.shape[2]} channel{'s' if pixels.shape[2] > 1 else ''} of "
            f"{pixels.dtype}, and segment ids are stored in 3 of uint8",
            where=png,
            mend="Write id = R + 256 G + 65536 B.",
        )
    if pixels.shape[:2] != hw:
        raise MaskError(
            f"is {pixels.shape[1]} x {pixels.shape[0]} pixels (width x height), and its image is "
            f"{hw[1]} x {hw[0]}",
            where=png,
            mend=f"Export the segments at {hw[1]} x {hw[0]}, without interpolation.",
        )
    red, green, blue = (pixels[:, :, channel].T.reshape(-1) for channel in range(3))
    ids = red | (green.astype(np.uint32) << 8) | (blue.astype(np.uint32) << 16)
    starts = np.concatenate([np.zeros(1, np.int64), np.flatnonzero(ids[1:] != ids[:-1]) + 1])
    return ids[starts].astype(np.int64), np.diff(starts, append=len(ids))


def _refuse_other_segments(
    png: Path,
    known: Int64[np.ndarray, " n"],
    ids: Int64[np.ndarray, " r"],
    lengths: Int64[np.ndarray, " r"],
) -> None:
    """Raise MaskError when PNG and JSON name different segments; void is in ``known``."""
    strange = ~np.isin(ids, known)
    if strange.any():
        first = int(ids[np.argmax(strange)])
        several = len(np.unique(ids[strange]))
        raise MaskError(
            f"has {int(lengths[ids == first].sum())} pixels of the segment {first}, which "
            "segments_info does not name"
            + (f" ({several} such segments in all)" if several > 1 else ""),
            where=png,
            mend=_EXPORT_AGAIN,
        )
    absent = known[1:][~np.isin(known[1:], ids)]
    if len(absent):
        names = ", ".join(str(i) for i in absent[:_LISTED]) + (
            ", ..." if len(absent) > _LISTED else ""
        )
        raise MaskError(
            f"has no pixel of the segment{'s' if len(absent) > 1 else ''} {names}, which "
            "segments_info names",
            where=png,
            mend=_EXPORT_AGAIN,
        )
