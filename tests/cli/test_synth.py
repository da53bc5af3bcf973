from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from delineate.data.checking import check
from delineate.data.dataset import Dataset, read_pair

Run = Callable[..., Any]
SMALL = ("-n", 2, "--size", 64, "--seed", 7)


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_dataset_of_tissue(delineate: Run, tmp_path: Path) -> None:
    out = tmp_path / "tissue"
    done = delineate("data", "synth", "tissue", *SMALL, out, "--json")
    assert done.status == 0
    assert done.document == {
        "path": str(out),
        "classes": ["background", "stroma", "gland", "tumour"],
        "samples": {"train": 1, "val": 1},
    }
    data = Dataset.open(out)
    image, mask = read_pair(data.split("val")[0], data.info)
    assert (image.shape, image.dtype, mask.shape) == ((64, 64, 3), np.uint8, (64, 64))
    kinds = {finding.kind for finding in check(out)}
    assert kinds <= {"class never seen", "class only in val", "empty mask"}


def test_it_depends_on_the_seed_alone(delineate: Run, tmp_path: Path) -> None:
    delineate("data", "synth", "tissue", *SMALL, tmp_path / "a")
    delineate("data", "synth", "tissue", *SMALL, tmp_path / "b")
    delineate("data", "synth", "tissue", "-n", 2, "--size", 64, "--seed", 8, tmp_path / "c")
    delineate("data", "synth", "tissue", *SMALL, "--held-out", tmp_path / "d")
    a, b, c, d = (files(tmp_path / name) for name in "abcd")
    assert a == b
    assert a.keys() == c.keys() == d.keys()
    assert a != c != d


def test_for_people(delineate: Run, tmp_path: Path) -> None:
    done = delineate("data", "synth", "tissue", *SMALL, "--val-fraction", 1, tmp_path / "test set")
    assert (done.status, done.out) == (0, f"{tmp_path / 'test set'}: val 2\n")


def test_nothing_is_overwritten_without_force(delineate: Run, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    done = delineate("data", "synth", "tissue", *SMALL, tmp_path)
    assert done.status == 2
    assert done.error == f"{tmp_path}: exists already. Name another, or add --force."
    out = tmp_path / "out"
    delineate("data", "synth", "tissue", *SMALL, out)
    assert delineate("data", "synth", "tissue", "-n", 1, "--size", 64, out, "--force").status == 0
    assert len(list(out.rglob("tissue-*.png"))) == 2


def test_impossible_numbers(delineate: Run, tmp_path: Path) -> None:
    done = delineate("data", "synth", "tissue", "-n", 0, "--size", 4, tmp_path / "out", "--json")
    assert done.status == 2
    assert done.error.startswith("synth tissue: n: Input should be greater than or equal to 1")
    assert "size: Input should be greater than or equal to" in done.document["error"]["found"]
    assert list(tmp_path.iterdir()) == []
