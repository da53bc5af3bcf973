"""PASCAL VOC (VOC2012 development kit, section 3.3): indexed PNGs, 255 is void.

OUT/JPEGImages   OUT/SegmentationClass   OUT/SegmentationObject
OUT/ImageSets/Segmentation/SPLIT.txt   OUT/class_names.txt
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from delineate.data import png
from delineate.data.dataset import Dataset, DatasetInfo, Sample
from delineate.data.exporting.pieces import ignored_objects_note
from delineate.data.exporting.writer import Labelled, Writer, Written
from delineate.data.palette import voc_colours
from delineate.errors import DatasetError, MaskError, SettingsError
from delineate.types import LabelMap

VOID = 255


class VocWriter(Writer):
    """Class ids 0 to 254 and object ids 1 to 254 in the VOC colours; ignored pixels are 255.

    Object ids are numbered anew, in their order, without gaps.

    Raises:
        SettingsError: more than 255 classes, or a name that is no line of a text file.
        DatasetError: two splits have a sample of one name.
    """

    def __init__(self, folder: Path, dataset: Dataset, splits: tuple[str, ...]) -> None:
        _refuse_classes(dataset.info)
        _refuse_shared_names(dataset, splits)
        self._folder = folder
        self._info = dataset.info
        self._palette = voc_colours(256)
        self._names: dict[str, list[str]] = {split: [] for split in splits}

    def image_folder(self, split: str) -> Path:  # noqa: ARG002  (VOC has one for all)
        return self._folder / "JPEGImages"

    def write(self, item: Labelled) -> Written:
        labels = item.labels
        ignored = np.zeros(labels.shape, np.bool_)
        if self._info.ignore_index is not None:
            ignored = labels == self._info.ignore_index
        self._save("SegmentationClass", item, np.where(ignored, VOID, labels))
        if item.instances is None:
            return Written()
        counts = np.bincount(item.instances[~ignored])
        objects = np.flatnonzero(counts[1:]) + 1
        if len(objects) >= VOID:
            raise MaskError(
                f"has {len(objects)} objects, and VOC numbers 1 to 254 in 8 bits",
                where=item.sample.instances,
                mend="Export to coco or coco-panoptic, or leave them out with --no-instances.",
            )
        number_of = np.zeros(65536, np.uint8)
        number_of[objects] = np.arange(1, len(objects) + 1)
        ids = number_of[item.instances]
        ids[ignored] = VOID
        self._save("SegmentationObject", item, ids)
        lost = int(np.count_nonzero(np.bincount(item.instances[ignored])[1:]))
        return Written(counts=Counter(objects=len(objects), over_ignored=lost))

    def collect(self, sample: Sample, split: str, hw: tuple[int, int], record: Any) -> None:  # noqa: ARG002
        self._names[split].append(sample.name)

    def close(self) -> None:
        lists = self._folder / "ImageSets" / "Segmentation"
        lists.mkdir(parents=True)
        for split, names in self._names.items():
            _write_lines(lists / f"{split}.txt", names)
        _write_lines(self._folder / "class_names.txt", self._info.classes)

    def notes(self, counts: Counter[str]) -> list[str]:
        return ignored_objects_note(counts)

    def _save(self, folder: str, item: Labelled, ids: LabelMap) -> None:
        file = self._folder / folder / f"{item.sample.name}.png"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(png.encode_indexed(ids.astype(np.uint8), self._palette))


def _write_lines(path: Path, lines: list[str] | tuple[str, ...]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _refuse_classes(info: DatasetInfo) -> None:
    count = len(info.classes)
    if count > VOID:
        raise SettingsError(
            f"voc holds 255 classes, ids 0 to 254 in 8 bits, and the dataset has {count}",
            where="--format",
            mend="Use --format coco, coco-panoptic or class-id, which hold them all.",
        )
    for name in info.classes:
        if name != name.strip() or len(name.splitlines()) != 1:
            raise SettingsError(
                f"the class {name!r} cannot be a line of VOC's class_names.txt",
                where="classes",
                mend="Rename it in dataset.yaml, without line breaks and spaces around it.",
            )


def _refuse_shared_names(dataset: Dataset, splits: tuple[str, ...]) -> None:
    split_of: dict[str, str] = {}
    for split in splits:
        for sample in dataset.split(split):
            other = split_of.setdefault(sample.name, split)
            if other != split:
                raise DatasetError(
                    f"has a sample {sample.name!r} in {other} and in {split}, and voc keeps all "
                    "images in one folder",
                    where=dataset.path,
                    mend=f"Export one split at a time, such as --split {split}, or rename one.",
                )
