"""Half of the training images lose their labels; a network may give them some of its own.

Plain self-training (Lee 2013, *Pseudo-Label*): a network is trained on the labelled half, labels
the other half, and what it is sure of is trained on as if it were the truth. Each of the two
trainings takes half of the steps, so that the whole costs what the training beside it costs.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np

from benchmarks.accuracy.datasets import fold_of
from delineate.bundle.load import load
from delineate.config import dump_yaml
from delineate.data.dataset import INFO_FILE, Dataset, Sample
from delineate.data.images import read_image
from delineate.tiling.segment import segment

SURE = 0.9  # a pixel below this confidence is ignored
IGNORED = 255


def labelled_half(full: Path, folder: Path) -> Path:
    """The dataset ``full`` with every second training image, by the hash of its name."""
    if not (folder / INFO_FILE).exists():
        data = Dataset.open(full)
        kept = _kept(data)
        for part in ("train", "val"):
            for sample in data.split(part):
                if part == "val" or sample.name in kept:
                    assert sample.mask is not None
                    _place(sample, folder / part, own=None)
        (folder / INFO_FILE).write_text(dump_yaml(data.info))
    return folder


def with_own_labels(full: Path, bundle: Path, folder: Path) -> Path:
    """The labelled half, and the other half as the network of ``bundle`` labels it."""
    shutil.rmtree(folder, ignore_errors=True)
    data, network = Dataset.open(full), load(bundle, engine="onnxruntime")
    kept = _kept(data)
    for part in ("train", "val"):
        for sample in data.split(part):
            mask = None
            if part == "train" and sample.name not in kept:
                image = read_image(sample.image)
                found = segment(
                    network, image, ("labels", "confidence"), tiling=network.manifest.tiling
                )
                sure = found["confidence"][0] >= round(SURE * 255)
                mask = np.where(sure, found["labels"][0], IGNORED).astype(np.uint8)
            _place(sample, folder / part, own=mask)
    info = data.info.model_copy(update={"ignore_index": data.info.ignore_index or IGNORED})
    (folder / INFO_FILE).write_text(dump_yaml(info))
    return folder


def _kept(data: Dataset) -> set[str]:
    return fold_of([sample.name for sample in data.split("train")], 0, folds=2)


def _place(sample: Sample, folder: Path, *, own: np.ndarray | None) -> None:
    assert sample.mask is not None, f"{sample.image} has no mask"
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    shutil.copyfile(sample.image, folder / "images" / sample.image.name)
    target = folder / "masks" / sample.mask.name
    if own is None:
        shutil.copyfile(sample.mask, target)
    elif not cv2.imwrite(str(target), own):
        raise OSError(f"{target} cannot be written")
