"""Labels that went out in a format and came back are the same, pixel for pixel."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from delineate.data.dataset import Dataset, read_instances
from delineate.data.exporting.export import export_dataset
from delineate.data.exporting.settings import ExportFormat, ExportSettings
from delineate.data.formats.naming import means_background
from delineate.data.formats.settings import ImportSettings
from delineate.data.importing import import_dataset
from delineate.data.masks import read_mask

CASES = int(os.environ.get("DELINEATE_ROUND_TRIPS", "10000"))
IMAGES = 8  # in each dataset
FORMATS: tuple[ExportFormat, ...] = (
    "class-id",
    "voc",
    "binary",
    "coco",
    "coco-panoptic",
    "geojson",
)
# the most classes that are drawn; a folder of masks for each of 300 would only be slow
LARGEST = {"voc": 255, "binary": 12}


@dataclass(frozen=True)
class Made:
    """A random dataset on disk.

    Attributes:
        has_objects: some image has object ids.
        all_owned: every pixel of a class that is not the background belongs to an object.
    """

    path: Path
    classes: tuple[str, ...]
    ignore: int | None
    has_objects: bool
    all_owned: bool


def random_labels(rng: np.random.Generator, classes: int) -> np.ndarray:
    """(H, W): noise, blobs with holes, one class all over, or single pixels."""
    height, width = rng.integers(1, 24, 2)
    few = rng.choice(classes, min(classes, int(rng.integers(1, 6))), replace=False)
    kind = rng.integers(4)
    if kind == 0:
        return rng.choice(few, (height, width))
    if kind == 1:
        coarse = rng.choice(few, ((height + 3) // 4, (width + 3) // 4))
        labels = np.repeat(np.repeat(coarse, 4, axis=0), 4, axis=1)[:height, :width]
        holes = rng.random(labels.shape) < 0.05
        return np.where(holes, rng.choice(few, labels.shape), labels)
    labels = np.full((height, width), few[0])
    if kind == 3:
        labels[rng.random(labels.shape) < 0.03] = few[-1]
    return labels


def random_objects(
    rng: np.random.Generator, labels: np.ndarray, free: np.ndarray, label_format: ExportFormat
) -> np.ndarray:
    """Object ids with gaps on pixels that are not ``free``: each of one class, many touching."""
    rows, columns = np.indices(labels.shape)
    side = int(rng.integers(5 if label_format == "voc" else 1, 9))  # VOC holds 254 objects
    cells = (rows // side) * 100 + columns // side
    keys, index = np.unique(np.stack([labels.ravel(), cells.ravel()]), axis=1, return_inverse=True)
    ids = np.sort(rng.choice(np.arange(1, 65536), keys.shape[1], replace=False))
    objects = rng.permutation(ids)[index.reshape(labels.shape)]
    return np.where(free, 0, objects).astype(np.uint16)


def make(rng: np.random.Generator, path: Path, label_format: ExportFormat) -> Made:
    largest = LARGEST.get(label_format, 300)
    count = int(rng.choice([2, 3, 5, largest]))
    background = bool(rng.integers(2))
    names = [f"class {i}" for i in range(count)]
    if background:
        names[0] = str(rng.choice(["background", "_background_", "other"]))
        background = means_background(names[0])
    if rng.integers(4) == 0:
        names[-1] = "rest"  # what could be taken for a background
    ignore = None
    if rng.integers(2):
        ignore = 255 if count <= 255 else 65535
    with_objects, all_owned = rng.integers(2, size=2).astype(bool).tolist()
    has_objects = False
    splits = ["."] if rng.integers(2) else ["train", "val"]
    for number in range(IMAGES):
        folder = path / splits[number % len(splits)]
        labels = random_labels(rng, count)
        if ignore is not None:
            labels[rng.random(labels.shape) < rng.choice([0.0, 0.1, 1.0], p=[0.3, 0.6, 0.1])] = (
                ignore
            )
        free = labels == ignore
        free |= (labels == 0) & background
        # readers take no area of such a name for an object
        free |= (labels == count - 1) & means_background(names[-1])
        if not all_owned:
            free |= rng.random(labels.shape) < rng.choice([0.1, 1.0])
        objects = random_objects(rng, labels, free, label_format)
        save(folder / "images" / f"s{number}.png", rng.integers(0, 256, (*labels.shape, 3)))
        save(
            folder / "masks" / f"s{number}.png",
            labels.astype(np.uint8 if count <= 255 else np.uint16),
        )
        if with_objects and objects.any():
            has_objects = True
            save(folder / "instances" / f"s{number}.png", objects)
    document = {"classes": names, "ignore_index": ignore}
    (path / "dataset.yaml").write_text(yaml.safe_dump(document))
    all_owned &= not means_background(names[-1])
    return Made(path, tuple(names), ignore, has_objects, all_owned)


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if pixels.ndim == 3:
        pixels = pixels.astype(np.uint8)
    assert cv2.imwrite(str(path), pixels)


def same_objects(one: np.ndarray | None, other: np.ndarray | None, hw: tuple[int, int]) -> bool:
    """Whether two maps of object ids differ in nothing but the numbers."""
    first = np.zeros(hw, np.uint16) if one is None else one
    second = np.zeros(hw, np.uint16) if other is None else other
    pairs = np.unique(np.stack([first.ravel(), second.ravel()]), axis=1)
    if any(len(np.unique(side)) < pairs.shape[1] for side in pairs):
        return False
    return np.array_equal(first > 0, second > 0)


def holds_objects(made: Made, label_format: ExportFormat) -> bool:
    match label_format:
        case "binary":
            return False
        case "coco":  # without objects a class of an image is one annotation, and so one object
            return made.has_objects
        case "geojson":  # every feature is an object
            return made.has_objects and made.all_owned
        case _:
            return True


def round_trip(seed: int, folder: Path) -> int:
    """Make a dataset, export and import it, compare; returns the number of images compared."""
    rng = np.random.default_rng(seed)
    label_format = FORMATS[seed % len(FORMATS)]
    made = make(rng, folder / "made", label_format)
    export_dataset(
        ExportSettings(dataset=made.path, out=folder / "out", format=label_format, workers=2)
    )
    told = bool(rng.integers(2)) and label_format != "voc"
    settings = ImportSettings(
        source=folder / "out",
        out=folder / "back",
        format=label_format,
        classes=made.classes if told else None,
        ignore_index=made.ignore if told else None,
        val_fraction=0.0,
        workers=2,
    )
    import_dataset(settings)
    before, after = Dataset.open(made.path), Dataset.open(folder / "back")
    assert list(after.splits) == list(before.splits)
    if told:
        assert after.info.classes == made.classes
    compared = 0
    for split, samples in before.splits.items():
        again = after.split(split)
        assert [sample.name for sample in again] == [sample.name for sample in samples]
        for old, new in zip(samples, again, strict=True):
            assert old.mask is not None
            assert new.mask is not None
            assert new.image.read_bytes() == old.image.read_bytes()
            labels = read_mask(old.mask)
            wanted = translate(made, after).astype(np.int64)[labels]
            assert np.array_equal(read_mask(new.mask), wanted), (seed, label_format, old.name)
            if holds_objects(made, label_format):
                objects = [read_instances(sample, labels.shape) for sample in (old, new)]
                assert same_objects(*objects, labels.shape), (seed, label_format, old.name)
            compared += 1
    return compared


def translate(made: Made, after: Dataset) -> np.ndarray:
    """The id that each id has become: (65536,), by the names of the classes."""
    table = np.full(65536, -1)
    for index, name in enumerate(made.classes):
        found = after.info.classes
        # a background that is not written comes back as that of the format
        table[index] = found.index(name) if name in found else 0
    if made.ignore is not None:
        table[made.ignore] = -1 if after.info.ignore_index is None else after.info.ignore_index
    return table


@pytest.mark.parametrize("seed", range(len(FORMATS)))
def test_sample(seed: int, tmp_path: Path) -> None:
    assert round_trip(seed, tmp_path) == IMAGES


@pytest.mark.long
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("index", range(len(FORMATS)), ids=FORMATS)
def test_many(index: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    rounds = -(-CASES // (IMAGES * len(FORMATS)))
    for number in range(1, rounds + 1):
        folder = tmp_path_factory.mktemp("round")
        assert round_trip(number * len(FORMATS) + index, folder) == IMAGES
        shutil.rmtree(folder)
