from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from delineate.data.dataset import Dataset, DatasetInfo, Sample, read_pair
from delineate.data.masks import write_mask
from delineate.errors import DatasetError, ImageError, MaskError

RNG = np.random.default_rng(3)


def put(folder: Path, stem: str, *, labels: np.ndarray | None = None, suffix: str = ".png") -> None:
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "masks").mkdir(exist_ok=True)
    picture = RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    assert cv2.imwrite(str(folder / "images" / f"{stem}{suffix}"), picture)
    shown = RNG.integers(0, 2, (6, 8), dtype=np.uint8) if labels is None else labels
    write_mask(folder / "masks" / f"{stem}.png", shown, [(0, 0, 0), (9, 9, 9)])


def make(path: Path, yaml: str = "classes: [background, thing]\n") -> Path:
    for split, stems in (("train", "ab"), ("val", "c")):
        for stem in stems:
            put(path / split, stem, suffix=".jpg" if stem == "a" else ".png")
    (path / "dataset.yaml").write_text(yaml)
    return path


def opening(path: Path) -> str:
    with pytest.raises(DatasetError) as caught:
        Dataset.open(path)
    return str(caught.value)


def test_splits_and_pairs(tmp_path: Path) -> None:
    root = make(tmp_path / "d", "classes: [background, thing]\ngroups: '^(.)'\n")
    (root / "train" / "masks" / "b.png").unlink()
    (root / "train" / "images" / "notes.txt").write_text("no image")
    (root / "train" / "images" / ".hidden.png").write_text("no image")
    dataset = Dataset.open(root)
    images, masks = root / "train" / "images", root / "train" / "masks"
    assert dataset.split("train") == (
        Sample("a", images / "a.jpg", masks / "a.png", "a"),
        Sample("b", images / "b.png", None, "b"),
    )
    assert list(dataset.splits) == ["train", "val"]
    assert dataset.colours == ((0, 0, 0), (230, 159, 0))


def test_folders_alone_make_one_split(tmp_path: Path) -> None:
    put(tmp_path, "a")
    (tmp_path / "dataset.yaml").write_text("classes: [x, y]\ncolours: [[1, 2, 3], [4, 5, 6]]\n")
    dataset = Dataset.open(tmp_path)
    assert [s.name for s in dataset.split("all")] == ["a"]
    assert dataset.colours == ((1, 2, 3), (4, 5, 6))
    with pytest.raises(DatasetError) as caught:
        dataset.split("val")
    assert str(caught.value) == (
        f"{tmp_path}: has no split 'val'. Use one of: all (1 images). To split it: delineate data "
        f"import --format class-id {tmp_path} --out NEW --val-fraction 0.2"
    )


def test_a_split_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    dataset = Dataset.open(make(tmp_path))
    with pytest.raises(DatasetError) as caught:
        dataset.split("test")
    assert str(caught.value) == (
        f"{tmp_path}: has no split 'test'. Use one of: train (2 images), val (1 images)."
    )


def test_what_is_no_dataset_says_so(tmp_path: Path) -> None:
    assert opening(tmp_path / "none") == f"{tmp_path / 'none'}: no such folder."
    assert opening(tmp_path) == (
        f"{tmp_path}: is no dataset: it has no dataset.yaml. Make one with: delineate data import, "
        "or write the file: classes: [background, ...]"
    )
    info = tmp_path / "dataset.yaml"
    info.write_text("classes: [a, b]\n")
    assert opening(tmp_path) == (
        f"{tmp_path}: has no images: neither a folder images nor train/images. Put the images into "
        "images and the masks into masks."
    )
    (tmp_path / "images").mkdir()
    assert opening(tmp_path).startswith(f"{tmp_path / 'images'}: holds no images. Images end in: ")
    info.write_text("[1, 2]")
    assert opening(tmp_path) == f"{info}: holds a list, not a mapping of fields."


@pytest.mark.parametrize(
    ("yaml", "found"),
    [
        ("classes: [a]", "at least 2 items"),
        ("classes: [a, b, a]", "class names must differ, and a is there twice"),
        ("classes: [a, ' ']", "a class has no name"),
        ("classes: [a, yes]", "classes.1: Input should be a valid string (found True)"),
        ("classes: [a, b]\ncolours: [[0, 0, 0]]", "1 colours for 2 classes; give 2 or none"),
        ("classes: [a, b]\ncolours: [[0, 0, 0], [0, 256, 0]]", "less than or equal to 255"),
        ("classes: [a, b]\ngroups: '('", "no regular expression"),
        ("classes: [a, b]\ngroups: 'x'", "needs a parenthesis around the group"),
        ("classes: [a, b]\nignore: 3", "ignore: Extra inputs are not permitted (found 3)"),
        ("classes: [a, b]\nignore_index: -1", "greater than or equal to 0"),
    ],
)
def test_wrong_fields_are_named(tmp_path: Path, yaml: str, found: str) -> None:
    make(tmp_path, yaml)
    text = opening(tmp_path)
    assert text.startswith(f"{tmp_path / 'dataset.yaml'}: ")
    assert found in text


def test_two_images_of_one_name_are_refused(tmp_path: Path) -> None:
    make(tmp_path)
    put(tmp_path / "train", "a", suffix=".bmp")
    assert opening(tmp_path) == (
        f"{tmp_path / 'train' / 'images'}: a.bmp and a.jpg have the same name before the suffix, "
        "by which images and masks are paired. Rename or remove one of them."
    )


def test_both_layouts_at_once_are_refused(tmp_path: Path) -> None:
    make(tmp_path)
    put(tmp_path, "x")
    assert "has both images and train/images" in opening(tmp_path)


def test_groups_must_name_every_sample(tmp_path: Path) -> None:
    make(tmp_path, "classes: [a, b]\ngroups: {a: p1, b: p1}\n")
    assert opening(tmp_path) == (
        f"{tmp_path / 'val' / 'images' / 'c.png'}: the groups do not name 'c'. "
        "Add it to groups in dataset.yaml."
    )
    make(tmp_path, "classes: [a, b]\ngroups: '^([ab])'\n")
    assert "the pattern of the groups, '^([ab])', finds nothing in this name" in opening(tmp_path)


def test_the_fingerprint_follows_contents_and_not_the_folder(tmp_path: Path) -> None:
    root = make(tmp_path / "one")
    first = Dataset.open(root).fingerprint()
    copy = tmp_path / "two"
    shutil.copytree(root, copy)
    assert len(first) == 64
    assert Dataset.open(copy).fingerprint() == first
    put(copy / "val", "c", labels=np.ones((6, 8), np.uint8))
    changed = Dataset.open(copy).fingerprint()
    assert changed != first
    (root / "train" / "images" / "a.jpg").rename(root / "train" / "images" / "a.jpeg")
    assert Dataset.open(root).fingerprint() not in (first, changed)


INFO = DatasetInfo(classes=("a", "b"))


def pair_of(tmp_path: Path, labels: np.ndarray) -> Sample:
    put(tmp_path, "s", labels=labels)
    return Sample("s", tmp_path / "images" / "s.png", tmp_path / "masks" / "s.png", None)


def refusing(sample: Sample, info: DatasetInfo = INFO) -> str:
    with pytest.raises(MaskError) as caught:
        read_pair(sample, info)
    return str(caught.value)


def test_a_pair_that_fits(tmp_path: Path) -> None:
    labels = np.full((6, 8), 255, np.uint8)
    labels[0] = 1
    info = DatasetInfo(classes=("a", "b"), ignore_index=255)
    image, read = read_pair(pair_of(tmp_path, labels), info)
    assert image.shape == (6, 8, 3)
    np.testing.assert_array_equal(read, labels)


def test_a_mask_of_another_size(tmp_path: Path) -> None:
    sample = pair_of(tmp_path, np.zeros((5, 7), np.uint8))
    assert refusing(sample) == (
        f"{sample.mask}: is 7 x 5 pixels (width x height), and its image s.png is 8 x 6. "
        "Export the mask at 8 x 6, without interpolation."
    )


@pytest.mark.parametrize(
    ("ids", "ignore", "expected"),
    [
        (
            [2],
            None,
            "has the id 2 (1 pixels), and the classes go from 0 to 1. If it means void, set "
            "ignore_index: 2; otherwise name 3 classes.",
        ),
        (
            [2, 3],
            None,
            "has the ids 2, 3 (2 pixels), and the classes go from 0 to 1. Name 4 classes.",
        ),
        (
            [128, 255],
            None,
            "has the ids 128, 255 (2 pixels), and the classes go from 0 to 1. If these values "
            "stand for classes, write 0, 1, 2, ... instead of them.",
        ),
        (
            [2, 255],
            255,
            "has the id 2 (1 pixels), and the classes go from 0 to 1 and 255 is ignored. "
            "Name 3 classes.",
        ),
    ],
)
def test_ids_without_a_class(
    tmp_path: Path, ids: list[int], ignore: int | None, expected: str
) -> None:
    labels = np.zeros((6, 8), np.uint8)
    labels[0, : len(ids)] = ids
    sample = pair_of(tmp_path, labels)
    info = DatasetInfo(classes=("a", "b"), ignore_index=ignore)
    assert refusing(sample, info) == f"{sample.mask}: {expected}"


def test_half_a_pair(tmp_path: Path) -> None:
    sample = pair_of(tmp_path, np.zeros((6, 8), np.uint8))
    alone = Sample("s", sample.image, None, None)
    assert refusing(alone) == (
        f"{sample.image}: has no mask. Add masks/s.png beside the folder images, or remove the "
        "image."
    )
    sample.image.write_bytes(b"")
    with pytest.raises(ImageError, match="is empty"):
        read_pair(sample, INFO)
