"""Labels that went out in a format and came back are the same: pixels, ids, classes, objects."""

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


# what readers take for ignored pixels or for the background, where nobody tells them better
TELLING = ("void", "other", "rest", "ignore", "Unlabelled", "bg", "background")


@dataclass(frozen=True)
class Made:
    """A random dataset on disk.

    Attributes:
        has_objects: some image has object ids.
    """

    path: Path
    classes: tuple[str, ...]
    ignore: int | None
    has_objects: bool


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


def random_names(rng: np.random.Generator, count: int) -> list[str]:
    names = [f"class {i}" for i in range(count)]
    if rng.integers(2):
        names[0] = str(rng.choice(["background", "_background_", "other", "void"]))
    for name in rng.choice(TELLING, int(rng.integers(3)), replace=False).tolist():
        if name not in names:
            names[int(rng.integers(1, count))] = name
    return [str(name) for name in rng.permutation(names)] if rng.integers(4) == 0 else names


def make(rng: np.random.Generator, path: Path, label_format: ExportFormat) -> Made:
    count = int(rng.choice([2, 3, 5, 12, LARGEST.get(label_format, 300)]))
    names = random_names(rng, count)
    ignores = [11, 254, 255, 65535, int(rng.integers(count))]  # the last is that of a class
    ignore = int(rng.choice(ignores)) if rng.integers(2) else None
    with_objects, all_owned = rng.integers(2, size=2).astype(bool).tolist()
    has_objects = False
    splits = [["."], ["train", "val"], ["train", "val", "test"]][rng.integers(3)]
    test_is_labelled = bool(rng.integers(2))
    backgrounds = [index for index, name in enumerate(names) if means_background(name)]
    for number in range(IMAGES):
        split = splits[number % len(splits)]
        folder = path / split
        labels = random_labels(rng, count)
        save(folder / "images" / f"s{number}.png", rng.integers(0, 256, (*labels.shape, 3)))
        if split == "test" and not test_is_labelled:
            continue
        if ignore is not None:
            share = rng.choice([0.0, 0.1, 1.0], p=[0.3, 0.6, 0.1])
            labels[rng.random(labels.shape) < share] = ignore
        free = (labels == ignore) | np.isin(labels, backgrounds)
        if not all_owned:
            free |= rng.random(labels.shape) < rng.choice([0.1, 1.0])
        objects = random_objects(rng, labels, free, label_format)
        dtype = np.uint8 if max(count - 1, ignore or 0) < 256 else np.uint16
        save(folder / "masks" / f"s{number}.png", labels.astype(dtype))
        if with_objects and objects.any():
            has_objects = True
            save(folder / "instances" / f"s{number}.png", objects)
    document = {"classes": names, "ignore_index": ignore}
    (path / "dataset.yaml").write_text(yaml.safe_dump(document))
    return Made(path, tuple(names), ignore, has_objects)


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


def round_trip(seed: int, folder: Path) -> int:
    """Make a dataset, export and import it, compare; returns the number of images compared."""
    rng = np.random.default_rng(seed)
    label_format = FORMATS[seed % len(FORMATS)]
    made = make(rng, folder / "made", label_format)
    with_objects = bool(rng.integers(4)) and made.has_objects and label_format != "binary"
    export_dataset(
        ExportSettings(
            dataset=made.path,
            out=folder / "out",
            format=label_format,
            instances=with_objects,
            workers=2,
        )
    )
    # as delineate data import OUT: neither the format nor the classes are named
    import_dataset(
        ImportSettings(source=folder / "out", out=folder / "back", val_fraction=0.0, workers=2)
    )
    before, after = Dataset.open(made.path), Dataset.open(folder / "back")
    case = (seed, label_format)
    assert list(after.splits) == list(before.splits), case
    assert after.info.classes == made.classes, case
    assert after.info.ignore_index == made.ignore, case
    for split, samples in before.splits.items():
        again = after.split(split)
        assert [sample.name for sample in again] == [sample.name for sample in samples], case
        for old, new in zip(samples, again, strict=True):
            assert new.image.read_bytes() == old.image.read_bytes(), case
            assert (new.mask is None) == (old.mask is None), case
            if old.mask is None or new.mask is None:
                continue
            wanted = read_mask(old.mask)
            assert np.array_equal(read_mask(new.mask), wanted), (*case, old.name)
            if not with_objects:
                assert new.instances is None, (*case, old.name)
            else:
                hw = (wanted.shape[0], wanted.shape[1])
                one, other = read_instances(old, hw), read_instances(new, hw)
                assert same_objects(one, other, hw), (*case, old.name)
    return sum(map(len, after.splits.values()))


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
