from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from delineate.cli.data_export import export
from delineate.errors import DatasetError

RUN = CliRunner()


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer()
    app.command("export")(export)
    return app


def test_export(app: typer.Typer, make_dataset: Callable[..., Path], tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data", ignore_index=255)
    out = tmp_path / "out"
    options = [str(data), "--format", "coco", "-o", str(out), "--split", "val"]
    done = RUN.invoke(app, [*options, "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == {
        "path": str(out),
        "format": "coco",
        "samples": {"val": 2},
        "objects": 0,
        "notes": [
            "Without object ids, each class of an image is one annotation.",
            "Ignored pixels are annotations of the category __ignore__, iscrowd 1.",
        ],
    }
    assert (out / "annotations/instances_val.json").is_file()
    again = RUN.invoke(app, [*options, "--force"])
    assert again.exit_code == 0, again.output
    assert again.stdout.splitlines() == [
        "split  images",
        "val         2",
        f"{out}: coco",
        "note: Without object ids, each class of an image is one annotation.",
        "note: Ignored pixels are annotations of the category __ignore__, iscrowd 1.",
    ]


def test_no_dataset(app: typer.Typer, tmp_path: Path) -> None:
    done = RUN.invoke(app, [str(tmp_path / "x"), "--format", "voc", "-o", str(tmp_path / "o")])
    assert isinstance(done.exception, DatasetError)
