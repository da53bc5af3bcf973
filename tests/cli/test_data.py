from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from delineate.cli.console import Interrupted
from delineate.cli.data import app
from delineate.data.dataset import Dataset
from delineate.errors import MaskError

RUN = CliRunner()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for folder in ("images", "masks"):
        (tmp_path / "in" / folder).mkdir(parents=True)
    rng = np.random.default_rng(1)
    for i in range(4):
        picture = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / f"in/images/s{i}.png"), picture)
        cv2.imwrite(str(tmp_path / f"in/masks/s{i}.png"), np.eye(6, 8, dtype=np.uint8) * 255)
    return tmp_path / "in"


def test_import_then_check(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["import", str(source), "-o", str(out), "--format", "binary"]
    options = ["--classes", "background, cell", "--colours", "000000,#ff8000", "--json"]
    done = RUN.invoke(app, [*arguments, *options])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == {
        "path": str(out),
        "classes": ["background", "cell"],
        "format": "binary",
        "samples": {"train": 3, "val": 1},
        "pixels": {"0": 168, "1": 24},
        "objects": None,
        "reused": 0,
        "dropped": [],
        "notes": [],
    }
    assert Dataset.open(out).info.colours == ((0, 0, 0), (255, 128, 0))
    done = RUN.invoke(app, ["check", str(out)])
    assert (done.exit_code, done.stdout) == (0, f"{out}: nothing found\n")


def test_findings_give_exit_status_1(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    RUN.invoke(app, ["import", str(source), "-o", str(out), "--format", "binary"])
    next((out / "val/masks").iterdir()).unlink()
    name = next((out / "val/images").iterdir()).stem
    done = RUN.invoke(app, ["check", str(out)])
    assert done.exit_code == 1
    assert done.stdout.splitlines() == [
        f"missing mask: val/images/{name}.png: has no mask. Add val/masks/{name}.png, or remove "
        "the image.",
        f"{out}: 1 missing mask",
    ]
    done = RUN.invoke(app, ["check", str(out), "--json"])
    assert done.exit_code == 1
    assert [f["kind"] for f in json.loads(done.stdout)["findings"]] == ["missing mask"]


def test_a_table_for_people(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = RUN.invoke(app, ["import", str(source), "-o", str(out), "--format", "binary"])
    assert done.exit_code == 0
    assert "foreground" in done.stdout
    assert f"{out}: train 3, val 1" in done.stdout


def test_wrong_options_and_files(source: Path, tmp_path: Path) -> None:
    arguments = ["import", str(source), "-o", str(tmp_path / "out"), "--format", "binary"]
    done = RUN.invoke(app, [*arguments, "--colours", "red,blue"])
    assert done.exit_code == 2
    cv2.imwrite(str(source / "masks/s0.png"), np.full((6, 8), 7, np.uint8))
    done = RUN.invoke(app, arguments)
    assert isinstance(done.exception, MaskError)
    assert not (tmp_path / "out").exists()


def test_values_that_are_none(source: Path, tmp_path: Path) -> None:
    done = RUN.invoke(app, ["import", str(source), "-o", str(tmp_path / "o"), "--values", "a=b"])
    assert done.exit_code == 2
    assert "'a=b' is no VALUE=CLASS, such as 128=cytoplasm (0 to 65535)" in " ".join(
        done.stderr.replace("│", " ").split()
    )


def test_values_and_a_map(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ["--values", "0=nothing, 1=cell, 255=cell", "--map", "cell=thing"]
    done = RUN.invoke(app, ["import", str(source), "-o", str(out), *options])
    assert done.exit_code == 0, done.stderr
    assert "(read as values)" in done.stdout
    assert Dataset.open(out).info.classes == ("background", "nothing", "thing")


def test_an_import_that_is_stopped_says_how_to_go_on(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("delineate.cli.data_import.import_dataset", stop)
    done = RUN.invoke(app, ["import", str(source), "-o", str(tmp_path / "o")])
    assert isinstance(done.exception, Interrupted)
    assert done.exception.mend == (
        "What was imported is kept; the same command goes on from there."
    )
