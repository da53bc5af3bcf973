from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from delineate.data.dataset import Dataset, read_instances, read_pair

Run = Callable[..., Any]
SMALL = ("-n", 2, "--size", 64, "--seed", 7)
every_kind = pytest.mark.parametrize("kind", ["tissue", "cells", "shapes"])
CLASSES = {
    "tissue": ["background", "stroma", "gland", "tumour"],
    "cells": ["background", "cell"],
    "shapes": ["background", "circle", "square", "triangle", "ring", "bar"],
}


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@every_kind
def test_a_dataset(delineate: Run, tmp_path: Path, kind: str) -> None:
    out = tmp_path / kind
    done = delineate("data", "synth", kind, *SMALL, out, "--json")
    assert done.status == 0
    assert done.document == {
        "path": str(out),
        "classes": CLASSES[kind],
        "samples": {"train": 1, "val": 1},
    }
    data = Dataset.open(out)
    sample = data.split("val")[0]
    image, mask = read_pair(sample, data.info)
    assert (image.shape, mask.shape) == ((64, 64, 3), (64, 64))
    assert image.dtype == np.uint8
    assert sample.instances is None


@every_kind
def test_object_ids_come_beside(delineate: Run, tmp_path: Path, kind: str) -> None:
    delineate("data", "synth", kind, *SMALL, tmp_path / "plain")
    assert delineate("data", "synth", kind, *SMALL, "--instances", tmp_path / "more").status == 0
    plain, more = files(tmp_path / "plain"), files(tmp_path / "more")
    assert more.keys() - plain.keys() == {
        f"train/instances/{kind}-00000.png",
        f"val/instances/{kind}-00001.png",
    }
    assert plain.items() <= more.items()
    sample = Dataset.open(tmp_path / "more").split("val")[0]
    ids = read_instances(sample, (64, 64))
    assert ids is not None
    assert kind == "tissue" or ids.max() > 0


@every_kind
def test_it_depends_on_the_seed_alone(delineate: Run, tmp_path: Path, kind: str) -> None:
    delineate("data", "synth", kind, *SMALL, tmp_path / "a")
    delineate("data", "synth", kind, *SMALL, tmp_path / "b")
    delineate("data", "synth", kind, "-n", 2, "--size", 64, "--seed", 8, tmp_path / "c")
    a, b, c = (files(tmp_path / name) for name in "abc")
    assert a == b
    assert a.keys() == c.keys()
    assert a != c


def test_held_out_tissue_is_other_tissue(delineate: Run, tmp_path: Path) -> None:
    delineate("data", "synth", "tissue", *SMALL, tmp_path / "a")
    delineate("data", "synth", "tissue", *SMALL, "--held-out", tmp_path / "b")
    a, b = files(tmp_path / "a"), files(tmp_path / "b")
    assert a.keys() == b.keys()
    assert {name for name in a if a[name] == b[name]} == {"dataset.yaml"}


def test_for_people(delineate: Run, tmp_path: Path) -> None:
    done = delineate("data", "synth", "cells", *SMALL, "--val-fraction", 1, tmp_path / "test set")
    assert (done.status, done.out) == (0, f"{tmp_path / 'test set'}: val 2\n")


def test_nothing_is_overwritten_without_force(delineate: Run, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    done = delineate("data", "synth", "shapes", *SMALL, tmp_path)
    assert done.status == 2
    assert done.error == f"{tmp_path}: exists already. Name another, or add --force."
    out = tmp_path / "out"
    delineate("data", "synth", "shapes", *SMALL, out)
    assert delineate("data", "synth", "shapes", "-n", 1, "--size", 64, out, "--force").status == 0
    assert len(list(out.rglob("shapes-*.png"))) == 2


@every_kind
def test_impossible_numbers(delineate: Run, tmp_path: Path, kind: str) -> None:
    done = delineate("data", "synth", kind, "-n", 0, "--size", 4, tmp_path / "out", "--json")
    assert done.status == 2
    assert done.error.startswith(f"synth {kind}: n: Input should be greater than or equal to 1")
    assert "size: Input should be greater than or equal to" in done.document["error"]["found"]
    assert list(tmp_path.iterdir()) == []
