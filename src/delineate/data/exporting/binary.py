"""Binary masks, one folder a class: 0 and 255 in 8-bit grey PNGs.

OUT/images   OUT/masks/CLASS/NAME.png      or, with splits, OUT/SPLIT/images and so on
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from delineate.data.dataset import DatasetInfo, Sample
from delineate.data.exporting.categories import (
    IGNORE_NAME,
    has_unwritten_background,
    refuse_ignore_name,
)
from delineate.data.exporting.pixels import write_png
from delineate.data.exporting.writer import Labelled, Writer, Written, split_folder
from delineate.errors import SettingsError

_LONGEST_NAME_BYTES = 255


class BinaryWriter(Writer):
    """Every image has a mask of every class, empty where the class is absent.

    A class 0 that is called background is what no mask covers. Ignored pixels are masks of their
    own in ``__ignore__``, where the dataset has an ignore index.

    Raises:
        SettingsError: a class name cannot be the name of a folder.
    """

    def __init__(self, folder: Path, info: DatasetInfo) -> None:
        refuse_ignore_name(info, "binary")
        for name in info.classes:
            _refuse_no_folder_name(name)
        self._folder = folder
        first = int(has_unwritten_background(info))
        self._names = {
            index: name
            for index, name in enumerate(info.classes)
            if index >= first and index != info.ignore_index
        }
        if info.ignore_index is not None:
            self._names[info.ignore_index] = IGNORE_NAME

    def image_folder(self, split: str) -> Path:
        return split_folder(self._folder, split) / "images"

    def write(self, item: Labelled) -> Written:
        masks = split_folder(self._folder, item.split) / "masks"
        for class_id, name in self._names.items():
            mask = (item.labels == class_id).astype(np.uint8) * np.uint8(255)
            write_png(masks / name / f"{item.sample.name}.png", mask)
        return Written()

    def collect(self, sample: Sample, split: str, hw: tuple[int, int], record: Any) -> None:
        """Nothing is common to all samples."""

    def close(self) -> None:
        """Nothing is common to all samples."""

    def notes(self, counts: Counter[str]) -> list[str]:  # noqa: ARG002
        if IGNORE_NAME in self._names.values():
            return [f"Ignored pixels are the masks in {IGNORE_NAME}."]
        return []


def _refuse_no_folder_name(name: str) -> None:
    if (
        name.startswith(".")
        or name != name.strip()
        or not name.isprintable()
        or any(letter in name for letter in '/\\:*?"<>|')
        or len(name.encode()) > _LONGEST_NAME_BYTES
    ):
        raise SettingsError(
            f"the class {name!r} cannot be the name of a folder, and binary masks have one a class",
            where="classes",
            mend="Rename it in dataset.yaml, or use --format class-id.",
        )
