from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from delineate.cli.data_stats import stats
from delineate.errors import DatasetError, OutputError

RUN = CliRunner()
APP = typer.Typer()
APP.command()(stats)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    for split, n in (("train", 2), ("val", 1)):
        for index in range(n):
            mask = np.zeros((8, 10), np.uint8)
            mask[2:5, 3:7] = 1
            image = np.full((8, 10, 3), 20 + index, np.uint8)
            for kind, pixels in (("images", image), ("masks", mask)):
                folder = tmp_path / "set" / split / kind
                folder.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(folder / f"{split}{index}.png"), pixels)
    (tmp_path / "set" / "dataset.yaml").write_text("classes: [background, cell]\n")
    return tmp_path / "set"


def test_tables_for_people(dataset: Path) -> None:
    done = RUN.invoke(APP, [str(dataset)])
    assert done.exit_code == 0, done.output
    lines = [line.rstrip() for line in done.stdout.splitlines()]
    rows = [" ".join(line.split()) for line in lines]
    assert "train 2 2 10 x 8 0 % 0 -" in rows
    assert "all 3 3 10 x 8 0 % 0 -" in rows
    assert "cell 1 36 15 % 15 % 100 %" in rows
    assert "cell 3 0 12 (12–12) 3.91 (3.91–3.91) 3 (3–3)" in rows
    assert "objects: 8-connected regions of one class; median, and 5th to 95th percentile" in rows
    assert "uint8, channel 0 of 3 3 all 20.3 0.471 20 20 21" in rows


def test_json(dataset: Path) -> None:
    done = RUN.invoke(APP, [str(dataset), "--json", "--workers", "1"])
    document = json.loads(done.stdout)
    assert document["classes"] == ["background", "cell"]
    assert [split["name"] for split in document["splits"]] == ["train", "val"]
    cell = document["whole"]["classes"][1]
    assert (cell["pixels"], cell["pixel_share"], cell["objects"]["count"]) == (36, 0.15, 3)


def test_the_page_is_written_and_never_over_another(dataset: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    done = RUN.invoke(APP, [str(dataset), "--html", str(page)])
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-1] == f"page  {page}"
    assert page.read_text().startswith("<!doctype html>")
    again = RUN.invoke(APP, [str(dataset), "-o", str(page)])
    assert isinstance(again.exception, OutputError)
    assert str(again.exception) == f"{page}: exists already. Name another, or add --force."
    assert RUN.invoke(APP, [str(dataset), "-o", str(page), "--force"]).exit_code == 0


def test_no_dataset(tmp_path: Path) -> None:
    done = RUN.invoke(APP, [str(tmp_path)])
    assert isinstance(done.exception, DatasetError)
