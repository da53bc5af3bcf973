from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]
ENGINE = ("--engine", "onnxruntime")


@pytest.fixture
def photos(trained: Any, tmp_path: Path) -> Path:
    shutil.copytree(trained.dataset / "train/images", tmp_path / "photos")
    return tmp_path / "photos"


def test_masks_and_a_table(delineate: Run, trained: Any, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = delineate("predict", trained.bundle, photos, "-o", out, *ENGINE)
    assert done.status == 0
    lines = done.out.splitlines()
    assert lines[0].split() == ["image", "size", "sky", "ground", "car", "confidence"]
    assert lines[1].split()[:4] == ["train0.png", "40", "x", "48"]
    assert lines[-1] == f"4 masks in {out}"
    assert len(list(out.iterdir())) == 4


def test_one_document(delineate: Run, trained: Any, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ("predict", trained.bundle, photos / "train1.png", "-o", out, *ENGINE, "--json")
    done = delineate(*arguments, "--overlay", "--probabilities", "--rle")
    assert done.status == 0
    assert done.document["failures"] == []
    (result,) = done.document["results"]
    assert (result["image"], result["mask"]) == (
        str(photos / "train1.png"),
        str(out / "train1.png"),
    )
    assert sum(result["shares"].values()) == pytest.approx(1, abs=1e-5)
    assert sorted(path.name for path in out.iterdir()) == [
        "train1.json",
        "train1.overlay.png",
        "train1.png",
        "train1.probabilities.npz",
    ]


@pytest.mark.parametrize("as_json", [False, True])
def test_bad_files_are_listed_at_the_end(
    delineate: Run, trained: Any, photos: Path, tmp_path: Path, as_json: bool
) -> None:
    (photos / "train2.png").write_text("only text")
    arguments = ("predict", trained.bundle, photos, "-o", tmp_path / "out", *ENGINE)
    done = delineate(*arguments, *(["--json"] if as_json else []))
    assert done.status == 1
    assert done.error == (
        f"{photos / 'train2.png'}: is text (it starts with 'only text'), not an image that can be "
        "read. Convert it to PNG, TIFF, JPEG, WebP or BMP."
    )
    assert done.err.splitlines()[-1] == "1 of 4 images failed"
    assert len(list((tmp_path / "out").iterdir())) == 3
    if as_json:
        assert len(done.document["results"]) == 3
        assert [f["image"] for f in done.document["failures"]] == [str(photos / "train2.png")]


def test_nothing_is_overwritten_without_force(
    delineate: Run, trained: Any, photos: Path, tmp_path: Path
) -> None:
    arguments = ("predict", trained.bundle, photos, "-o", tmp_path / "out", *ENGINE)
    assert delineate(*arguments).status == 0
    done = delineate(*arguments)
    assert (done.status, done.out) == (2, "")
    assert done.error == (
        f"{tmp_path / 'out/train0.png'}: exists already. Name another folder, or add --force."
    )
    assert delineate(*arguments, "--force").status == 0


def test_an_input_that_names_nothing(delineate: Run, trained: Any, tmp_path: Path) -> None:
    done = delineate("predict", trained.bundle, tmp_path / "*.tif", "-o", tmp_path / "out")
    assert done.status == 2
    assert done.error == f"{tmp_path / '*.tif'}: no such file, and no glob that matches."


def test_tiles_by_option(delineate: Run, trained: Any, photos: Path, tmp_path: Path) -> None:
    arguments = ("predict", trained.bundle, photos / "train0.png", *ENGINE, "--json")
    whole = delineate(*arguments, "-o", tmp_path / "whole").document["results"][0]
    tiles = delineate(*arguments, "-o", tmp_path / "tiles", "--tile", 32, "--overlap", 8)
    assert tiles.status == 0
    assert tiles.document["results"][0]["height"] == whole["height"] == 48
