from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from delineate.data.checks.check import check
from delineate.data.checks.findings import Finding
from delineate.data.masks import write_mask
from delineate.errors import DatasetError

RNG = np.random.default_rng(5)


def put(root: Path, split: str, stem: str, *, labels: np.ndarray | None = None) -> None:
    images, masks = root / split / "images", root / split / "masks"
    images.mkdir(parents=True, exist_ok=True)
    masks.mkdir(exist_ok=True)
    picture = RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    assert cv2.imwrite(str(images / f"{stem}.png"), picture)
    both = np.arange(48, dtype=np.uint8).reshape(6, 8) % 2
    write_mask(masks / f"{stem}.png", both if labels is None else labels, [(0, 0, 0)])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for split, stems in (("train", "abc"), ("val", "de")):
        for stem in stems:
            put(tmp_path, split, stem)
    (tmp_path / "dataset.yaml").write_text("classes: [background, thing]\nignore_index: 255\n")
    return tmp_path


def kinds(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(finding.kind, finding.file) for finding in findings]


def test_a_sound_dataset_has_no_findings(root: Path) -> None:
    told: list[tuple[int, int]] = []
    assert check(root, workers=3, progress=lambda done, total: told.append((done, total))) == []
    assert told == [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]


def test_missing_halves(root: Path) -> None:
    (root / "train/masks/a.png").unlink()
    (root / "val/images/d.png").unlink()
    assert check(root) == [
        Finding(
            "missing mask",
            "train/images/a.png",
            "has no mask",
            "Add train/masks/a.png, or remove the image.",
        ),
        Finding(
            "missing image",
            "val/masks/d.png",
            "has no image",
            "Add the image d to val/images, or remove the mask.",
        ),
    ]


def test_everything_is_looked_at_after_bad_files(root: Path) -> None:
    whole = (root / "train/images/a.png").read_bytes()
    (root / "train/images/a.png").write_bytes(whole[: len(whole) // 2])
    (root / "train/masks/b.png").write_bytes(b"")
    put(root, "train", "c", labels=np.full((6, 8), 7, np.uint8))
    put(root, "val", "d", labels=np.ones((5, 8), np.uint8))
    findings = check(root)
    assert kinds(findings) == [
        ("unreadable", "train/images/a.png"),
        ("unreadable", "train/masks/b.png"),
        ("ids", "train/masks/c.png"),
        ("size", "val/masks/d.png"),
    ]
    assert "is truncated" in findings[0].found
    assert findings[1].found == "is empty (0 bytes)"
    assert findings[2].found == (
        "has the id 7 (48 pixels), and the classes go from 0 to 1 and 255 is ignored"
    )
    assert findings[2].mend == "Name 8 classes."
    assert findings[3].found == ("is 8 x 5 pixels (width x height), and its image d.png is 8 x 6")


def test_empty_masks(root: Path) -> None:
    put(root, "train", "a", labels=np.zeros((6, 8), np.uint8))
    put(root, "val", "d", labels=np.full((6, 8), 255, np.uint8))
    findings = check(root)
    assert kinds(findings) == [
        ("empty mask", "train/masks/a.png"),
        ("empty mask", "val/masks/d.png"),
    ]
    assert [f.found for f in findings] == [
        "has nothing but background",
        "has nothing but ignored pixels",
    ]
    (root / "dataset.yaml").write_text("classes: [sky, thing]\nignore_index: 255\n")
    assert kinds(check(root)) == [("empty mask", "val/masks/d.png")]


def test_the_same_pixels_in_two_splits_whatever_the_file(root: Path) -> None:
    pixels = cv2.imread(str(root / "train/images/b.png"))
    (root / "val/images/e.png").unlink()
    cv2.imwrite(str(root / "val/images/e.bmp"), pixels)
    assert check(root) == [
        Finding(
            "same image",
            "val/images/e.bmp",
            "has the same pixels as train/images/b.png",
            "Remove one of them: a score on an image that was trained on flatters.",
        )
    ]


def test_classes_that_nobody_sees(root: Path) -> None:
    (root / "dataset.yaml").write_text("classes: [background, thing, rare, absent]\n")
    put(root, "val", "d", labels=np.arange(48, dtype=np.uint8).reshape(6, 8) % 3)
    assert [(f.kind, f.file, f.found) for f in check(root)] == [
        (
            "class only in val",
            "dataset.yaml",
            "val has the class 'rare' (id 2) and train has none of it",
        ),
        ("class never seen", "dataset.yaml", "no mask has the class 'absent' (id 3)"),
    ]


def test_names_types_and_other_files(root: Path) -> None:
    (root / "train/images/notes.txt").write_text("hello")
    (root / "train/images/.DS_Store").write_text("hello")
    cv2.imwrite(str(root / "train/images/a.bmp"), np.zeros((6, 8, 3), np.uint8))
    cv2.imwrite(str(root / "val/images/e.png"), np.zeros((6, 8, 3), np.uint16))
    cv2.imwrite(str(root / "val/images/d.png"), RNG.integers(0, 9, (6, 8), dtype=np.uint8))
    findings = check(root)
    assert kinds(findings) == [
        ("not an image", "train/images/notes.txt"),
        ("same name", "train/images/a.png"),
        ("pixel type", "val/images/e.png"),
        ("blank", "train/images/a.bmp"),
        ("blank", "val/images/e.png"),
    ]
    assert [f.severity for f in findings] == ["warning", "error", "error", "warning", "warning"]
    assert findings[2].found == ("has 3 x uint16, and most images have 3 x uint8 (channels x type)")


def test_a_group_in_two_splits(root: Path) -> None:
    (root / "dataset.yaml").write_text(
        "classes: [background, thing]\ngroups: {a: p, b: q, c: q, d: p}\n"
    )
    assert [(f.kind, f.file, f.found) for f in check(root)] == [
        ("no group", "val/images/e.png", "the groups do not name 'e'"),
        ("group in two splits", "dataset.yaml", "the group 'p' is in train and in val"),
    ]


def test_an_unlabelled_test_folder_is_no_problem(root: Path) -> None:
    put(root, "test", "x")
    (root / "test/masks/x.png").unlink()
    assert check(root) == []


def test_what_is_no_dataset_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="is no dataset"):
        check(tmp_path)
