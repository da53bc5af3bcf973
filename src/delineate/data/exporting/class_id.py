"""The canonical dataset again: PNGs of class ids, and 16-bit PNGs of object ids."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from delineate.config import dump_yaml
from delineate.data import png
from delineate.data.dataset import INFO_FILE, DatasetInfo, Sample
from delineate.data.exporting.writer import Labelled, Writer, Written, split_folder
from delineate.data.masks import encode_mask
from delineate.data.palette import Colour


class ClassIdWriter(Writer):
    """Masks and object ids as they are, and ``dataset.yaml``."""

    def __init__(self, folder: Path, info: DatasetInfo, colours: tuple[Colour, ...]) -> None:
        self._folder = folder
        self._info = info
        self._colours = colours

    def image_folder(self, split: str) -> Path:
        return split_folder(self._folder, split) / "images"

    def write(self, item: Labelled) -> Written:
        self._save("masks", item, encode_mask(item.labels, self._colours))
        # none of its own: the sample has no objects
        if item.instances is None or item.sample.instances is None:
            return Written()
        self._save("instances", item, png.encode_grey16(item.instances))
        objects = int(np.count_nonzero(np.bincount(item.instances.ravel())[1:]))
        return Written(counts=Counter(objects=objects))

    def collect(self, sample: Sample, split: str, hw: tuple[int, int], record: Any) -> None:
        """Nothing is common to all samples."""

    def close(self) -> None:
        (self._folder / INFO_FILE).write_text(dump_yaml(self._info), encoding="utf-8")

    def notes(self, counts: Counter[str]) -> list[str]:  # noqa: ARG002
        return []

    def _save(self, kind: str, item: Labelled, data: bytes) -> None:
        file = split_folder(self._folder, item.split) / kind / f"{item.sample.name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
