"""COCO panoptic (https://cocodataset.org/#format-data): one PNG of segment ids for each image.

OUT/annotations/panoptic_SPLIT.json   OUT/annotations/panoptic_SPLIT/*.png   OUT/SPLIT/*.jpg
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from delineate.data.dataset import ONLY_SPLIT, DatasetInfo, Sample
from delineate.data.exporting.categories import refuse_ignore_name
from delineate.data.exporting.coco import INFO
from delineate.data.exporting.documents import Spool, write_document
from delineate.data.exporting.pieces import counts_of, ignored_objects_note, pieces_of
from delineate.data.exporting.pixels import write_png
from delineate.data.exporting.writer import Labelled, Writer, Written
from delineate.data.palette import Colour
from delineate.data.rle import label_map_to_coco
from delineate.words import plural


class PanopticWriter(Writer):
    """One segment for each object and one for the rest of each class, background included.

    A category is a thing when an object of the export has it, else stuff. Pixels of a thing that
    belong to no object are a segment with ``iscrowd`` 1. Ignored pixels are void (id 0).

    Raises:
        SettingsError: a class is called as the category of ignored pixels.
    """

    def __init__(
        self,
        folder: Path,
        info: DatasetInfo,
        colours: tuple[Colour, ...],
        files: ExitStack,
    ) -> None:
        refuse_ignore_name(info, "coco-panoptic")
        self._folder = folder
        self._files = files
        self._info = info
        self._colours = colours
        self._images: dict[str, Spool] = {}
        self._annotations: dict[str, Spool] = {}
        self._labelled: set[str] = set()
        self._things: set[int] = set()
        self._next_image = 1

    def image_folder(self, split: str) -> Path:
        return self._folder / ("images" if split == ONLY_SPLIT else split)

    def write(self, item: Labelled) -> Written:
        pieces = pieces_of(item, self._info, "COCO panoptic")
        regions = label_map_to_coco(pieces.ids, [""] * len(pieces.members))
        segment_of = np.zeros(len(pieces.members), np.uint32)
        segments: list[dict[str, Any]] = []
        for index, (piece, region) in enumerate(zip(pieces.members, regions, strict=True)):
            if piece.ignored:
                continue
            segment_of[index] = len(segments) + 1
            segments.append(
                {
                    "id": len(segments) + 1,
                    "category_id": piece.class_id + 1,
                    "area": region["area_px"],
                    "bbox": region["bbox"],
                    "iscrowd": int(not piece.instance),  # of stuff it becomes 0 in the end
                }
            )
        ids = segment_of[pieces.ids]
        # R + 256 G + 65536 B
        pixels = np.stack([ids & 255, ids >> 8 & 255, ids >> 16], axis=2).astype(np.uint8)
        folder = self._folder / "annotations" / f"panoptic_{item.split}"
        write_png(folder / f"{item.sample.name}.png", pixels)
        return Written(segments, counts_of(pieces))

    def collect(self, sample: Sample, split: str, hw: tuple[int, int], record: Any) -> None:
        if split not in self._images:
            self._images[split] = Spool(self._folder, self._files)
            self._annotations[split] = Spool(self._folder, self._files)
        height, width = hw
        image = {"id": self._next_image, "file_name": sample.image.name}
        self._images[split].add({**image, "width": width, "height": height})
        if record is not None:
            self._labelled.add(split)
            self._things.update(s["category_id"] for s in record if not s["iscrowd"])
            self._annotations[split].add(
                {
                    "image_id": self._next_image,
                    "file_name": f"{sample.name}.png",
                    "segments_info": record,
                }
            )
        self._next_image += 1

    def close(self) -> None:
        for split, images in self._images.items():
            labelled = split in self._labelled
            name = f"{'panoptic' if labelled else 'image_info'}_{split}.json"
            lists = {"images": images.drain()}
            if labelled:
                lists["annotations"] = self._without_crowds_of_stuff(self._annotations[split])
            head = {"info": INFO, "licenses": [], "categories": self._categories()}
            write_document(self._folder / "annotations" / name, head, lists)

    def notes(self, counts: Counter[str]) -> list[str]:
        notes = ignored_objects_note(counts)
        if counts["objects"] and counts["rests"]:
            notes.append(
                f"{plural(counts['rests'], 'segment')} of pixels that belong to no object: stuff, "
                "or iscrowd 1 where the class has objects elsewhere."
            )
        return notes

    def _without_crowds_of_stuff(self, annotations: Spool) -> Iterator[bytes]:
        """Whether a class has objects is known when all images have been seen."""
        for line in annotations.drain():
            annotation = msgspec.json.decode(line)
            for segment in annotation["segments_info"]:
                if segment["category_id"] not in self._things:
                    segment["iscrowd"] = 0
            yield msgspec.json.encode(annotation)

    def _categories(self) -> list[dict[str, object]]:
        return [
            {
                "id": number,
                "name": name,
                "supercategory": name,
                "isthing": int(number in self._things),
                "color": list(self._colours[number - 1]),
            }
            for number, name in enumerate(self._info.classes, 1)
        ]
