"""The splits that every peer gets alike, and their files on disk.

nuclei: the 77 images in three folds by the SHA-256 of their names; they come without groups. A
fold is scored once, at the end; a fifth of the other two is the val split of all peers.

camvid: the honest split. Sequence 0006R0 of train (101 frames) is scored once, at the end;
0001TP and 0016E5 of train (266) are trained on; val is the usual one (51 frames of 0016E5),
by which delineate chooses its checkpoint and nnU-Net watches itself. Nobody trains on it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from benchmarks.accuracy.units import FOLDS
from benchmarks.record import shared
from delineate.config import dump_yaml
from delineate.data.dataset import (
    INFO_FILE,
    Dataset,
    DatasetInfo,
    Sample,
    list_samples,
    read_instances,
)
from delineate.data.images import read_image
from delineate.data.masks import read_mask
from delineate.data.splits import split_names

HELD_OUT = "0006R0"
VAL_SHARE = 0.2
NUCLEI = DatasetInfo(classes=("background", "nucleus"))


@dataclass(frozen=True)
class Split:
    """The files of one training and its test.

    Attributes:
        name: ``camvid``, ``nuclei-0`` and so on.
        info: classes and ignore index.
    """

    name: str
    info: DatasetInfo
    train: tuple[Sample, ...]
    val: tuple[Sample, ...]
    test: tuple[Sample, ...]

    def sha256(self) -> str:
        """Of the names in each part: results with another split must not be averaged."""
        parts = [[s.name for s in part] for part in (self.train, self.val, self.test)]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def load_split(name: str) -> Split:
    """The split of a unit by its name."""
    return _camvid() if name == "camvid" else _nuclei(int(name.removeprefix("nuclei-")))


def fold_of(names: Sequence[str], fold: int, folds: int = FOLDS) -> set[str]:
    """Every third of the names, or every ``folds``-th, in the order of their SHA-256."""
    ordered = sorted(names, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    return set(ordered[fold::folds])


def _nuclei(fold: int) -> Split:
    root = shared("data/nuclei")
    samples = list_samples(root / "images", root / "masks", NUCLEI, root / "instances")
    test = fold_of([sample.name for sample in samples], fold)
    rest = [sample.name for sample in samples if sample.name not in test]
    _, val = split_names(rest, VAL_SHARE, 0, {})
    return Split(
        f"nuclei-{fold}",
        NUCLEI,
        train=tuple(s for s in samples if s.name not in test and s.name not in val),
        val=tuple(s for s in samples if s.name in val),
        test=tuple(s for s in samples if s.name in test),
    )


def _camvid() -> Split:
    data = Dataset.open(shared("data/camvid"))
    train = data.split("train")
    return Split(
        "camvid",
        data.info,
        train=tuple(s for s in train if not s.name.startswith(HELD_OUT)),
        val=data.split("val"),
        test=tuple(s for s in train if s.name.startswith(HELD_OUT)),
    )


def write_dataset(split: Split, folder: Path) -> None:
    """Write ``train``, ``val`` and ``test`` as a canonical dataset; a whole one is left as it is.

    Images become PNGs, so that every peer sees the pixels of one JPEG decoder. The masks of
    nuclei (0 and 255) become class ids.

    Args:
        split: what to write.
        folder: ``dataset.yaml`` is written into it last.
    """
    if (folder / INFO_FILE).exists():
        return
    parts = {"train": split.train, "val": split.val, "test": split.test}
    for part, samples in parts.items():
        for sample in samples:
            _write_sample(sample, folder / part, binary=split.info is NUCLEI)
    (folder / INFO_FILE).write_text(dump_yaml(split.info))


def _write_sample(sample: Sample, folder: Path, *, binary: bool) -> None:
    assert sample.mask is not None, f"{sample.image} has no mask"
    image, mask = read_image(sample.image), read_mask(sample.mask)
    if binary:
        mask = (mask > 0).astype(np.uint8)
    instances = read_instances(sample, (image.shape[0], image.shape[1]))
    colour = image[:, :, ::-1] if image.shape[2] == 3 else image
    _write(folder / "images" / f"{sample.name}.png", colour)
    _write(folder / "masks" / f"{sample.name}.png", mask)
    if instances is not None:
        _write(folder / "instances" / f"{sample.name}.png", instances)


def _write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), np.ascontiguousarray(pixels)):
        raise OSError(f"{path} cannot be written")
