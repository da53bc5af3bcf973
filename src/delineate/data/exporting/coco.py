"""COCO JSON (https://cocodataset.org/#format-data): annotations with compressed RLE.

    OUT/annotations/instances_SPLIT.json   OUT/SPLIT/*.jpg

A dataset without splits has instances_all.json and images. A split without masks has
image_info_SPLIT.json, as COCO's test set.
"""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from delineate.data.dataset import ONLY_SPLIT, DatasetInfo, Sample
from delineate.data.exporting.categories import (
    IGNORE_NAME,
    has_unwritten_background,
    refuse_ignore_name,
)
from delineate.data.exporting.documents import Spool, write_document
from delineate.data.exporting.pieces import Piece, counts_of, ignored_objects_note, pieces_of
from delineate.data.exporting.writer import Labelled, Writer, Written
from delineate.data.rle import label_map_to_coco
from delineate.words import plural

INFO = {"description": "written by delineate data export", "version": "1.0"}


class CocoWriter(Writer):
    """One annotation for each object; without objects, one for each class.

    Pixels of a class that belong to no object become one annotation with ``iscrowd`` 1, and so do
    ignored pixels, of the category ``__ignore__``: the annotations of an image never overlap and
    together are its label map. A class 0 that is called background is what no annotation covers.

    Raises:
        SettingsError: a class is called as the category of ignored pixels.
    """

    def __init__(
        self, folder: Path, info: DatasetInfo, files: ExitStack, *, with_instances: bool
    ) -> None:
        refuse_ignore_name(info, "coco")
        self._folder = folder
        self._files = files
        self._info = info
        # the class that is category 1
        self._first = int(has_unwritten_background(info))
        self._with_instances = with_instances
        self._images: dict[str, Spool] = {}
        self._annotations: dict[str, Spool] = {}
        self._labelled: set[str] = set()
        self._next_image = 1
        self._next_annotation = 1

    def image_folder(self, split: str) -> Path:
        return self._folder / ("images" if split == ONLY_SPLIT else split)

    def write(self, item: Labelled) -> Written:
        pieces = pieces_of(item, self._info, "COCO")
        regions = label_map_to_coco(pieces.ids, [""] * len(pieces.members))
        annotations = [
            {
                "category_id": self._category_of(piece),
                "segmentation": region["segmentation"],
                "area": region["area_px"],
                "bbox": region["bbox"],
                "iscrowd": int(self._is_crowd(piece)),
            }
            for piece, region in zip(pieces.members, regions, strict=True)
            if not piece.background
        ]
        return Written(annotations, counts_of(pieces))

    def collect(self, sample: Sample, split: str, hw: tuple[int, int], record: Any) -> None:
        if split not in self._images:
            self._images[split] = Spool(self._folder, self._files)
            self._annotations[split] = Spool(self._folder, self._files)
        height, width = hw
        image = {"id": self._next_image, "file_name": sample.image.name}
        self._images[split].add({**image, "width": width, "height": height})
        if record is not None:
            self._labelled.add(split)
            for annotation in record:
                ids = {"id": self._next_annotation, "image_id": self._next_image}
                self._annotations[split].add({**ids, **annotation})
                self._next_annotation += 1
        self._next_image += 1

    def close(self) -> None:
        for split, images in self._images.items():
            labelled = split in self._labelled
            name = f"{'instances' if labelled else 'image_info'}_{split}.json"
            lists = {"images": images.drain()}
            if labelled:
                lists["annotations"] = self._annotations[split].drain()
            head = {"info": INFO, "licenses": [], "categories": self._categories()}
            write_document(self._folder / "annotations" / name, head, lists)

    def notes(self, counts: Counter[str]) -> list[str]:
        notes = ignored_objects_note(counts)
        if not self._with_instances:
            notes.append("Without object ids, each class of an image is one annotation.")
        elif counts["rests"]:
            notes.append(
                f"{plural(counts['rests'], 'annotation')} of pixels that belong to no object "
                f"{'has' if counts['rests'] == 1 else 'have'} iscrowd 1."
            )
        if self._info.ignore_index is not None:
            notes.append(
                f"Ignored pixels are annotations of the category {IGNORE_NAME}, iscrowd 1."
            )
        return notes

    def _is_crowd(self, piece: Piece) -> bool:
        return piece.ignored or (self._with_instances and not piece.instance)

    def _category_of(self, piece: Piece) -> int:
        class_id = len(self._info.classes) if piece.ignored else piece.class_id
        return class_id + 1 - self._first

    def _categories(self) -> list[dict[str, object]]:
        names = list(self._info.classes[self._first :])
        if self._info.ignore_index is not None:
            names.append(IGNORE_NAME)
        return [
            {"id": number, "name": name, "supercategory": name}
            for number, name in enumerate(names, 1)
        ]
