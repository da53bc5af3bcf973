"""Clean datasets to plant flaws in: parts of real ones where they are there, and generated."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from delineate.data.masks import read_mask, write_mask
from delineate.data.synth import TissueSettings, synthesise

SHARED = Path(__file__).resolve().parents[3].parent / "shared" / "data"
BLACK = [(0, 0, 0)]


@pytest.fixture(scope="session")
def tissue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("clean") / "tissue"
    synthesise(out, TissueSettings(n=32, size=128, seed=7))
    without_groups = (out / "dataset.yaml").read_text().split("groups:")[0]
    (out / "dataset.yaml").write_text(without_groups)
    return out


def _camvid(out: Path) -> None:
    """Frames far apart of train alone, half of them as val, so that nothing is wrong."""
    frames = sorted((SHARED / "camvid/train/images").iterdir())
    for number, image in enumerate(frames[::14]):
        split = out / ("val" if number % 4 == 1 else "train")
        for kind in ("images", "masks"):
            (split / kind).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(image, split / "images" / f"f{number}x.jpg")
        mask = SHARED / "camvid/train/masks" / f"{image.stem}.png"
        shutil.copyfile(mask, split / "masks" / f"f{number}x.png")
    shutil.copyfile(SHARED / "camvid/dataset.yaml", out / "dataset.yaml")


def _grey(name: str, classes: str, ids: dict[int, int], out: Path) -> None:
    """Every third image, the grey values of its mask as ids."""
    for number, image in enumerate(sorted((SHARED / name / "images").iterdir())[::3]):
        split = out / ("val" if number % 4 == 1 else "train")
        for kind in ("images", "masks", "instances"):
            (split / kind).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(image, split / "images" / image.name)
        table = np.zeros(256, np.uint8)
        table[list(ids)] = list(ids.values())
        labels = table[read_mask(SHARED / name / "masks" / image.name)]
        write_mask(split / "masks" / image.name, labels, BLACK)
        objects = SHARED / name / "instances" / image.name
        if objects.is_file():
            shutil.copyfile(objects, split / "instances" / image.name)
    (out / "dataset.yaml").write_text(f"classes: [{classes}]\n")


MAKERS: dict[str, Callable[[Path], None]] = {
    "camvid": _camvid,
    "nuclei": lambda out: _grey("nuclei", "background, nucleus", {255: 1}, out),
    "cells": lambda out: _grey(
        "white_blood_cells", "background, cytoplasm, nucleus", {128: 1, 255: 2}, out
    ),
}


@pytest.fixture(scope="session", params=["tissue", *MAKERS])
def clean(
    request: pytest.FixtureRequest, tissue: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    if request.param == "tissue":
        return tissue
    if not SHARED.is_dir():
        pytest.skip("no ../shared/data")
    out = tmp_path_factory.mktemp("clean") / request.param
    MAKERS[request.param](out)
    return out
