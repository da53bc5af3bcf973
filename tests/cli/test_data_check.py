from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from delineate.data.masks import read_mask, write_mask

Run = Callable[..., Any]


def flawed(delineate: Run, root: Path) -> Path:
    delineate("data", "synth", "tissue", "-n", 16, "--size", 128, root)
    text = (root / "dataset.yaml").read_text()
    (root / "dataset.yaml").write_text(text.replace("ignore_index: null", "ignore_index: 255"))
    for mask in sorted((root / "train/masks").iterdir())[:12]:
        labels = read_mask(mask)
        labels[0, 0] = 99
        write_mask(mask, np.ascontiguousarray(labels), [(0, 0, 0)])
    return root


def test_many_findings_of_a_kind_are_cut_short(delineate: Run, tmp_path: Path) -> None:
    root = flawed(delineate, tmp_path / "t")
    done = delineate("data", "check", root)
    lines = done.out.splitlines()
    assert done.status == 1
    assert lines[0].startswith("stray values: train/masks/")
    assert lines[10:] == ["... and 2 more (--json has all)", f"{root}: 12 stray values"]
    document = delineate("data", "check", root, "--json").document
    assert list(document) == ["dataset", "findings"]
    assert len(document["findings"]) == 12
    assert list(document["findings"][0]) == ["kind", "file", "found", "mend", "severity"]
    assert document["findings"][0]["severity"] == "error"


def test_fix(delineate: Run, tmp_path: Path) -> None:
    root = flawed(delineate, tmp_path / "t")
    new = tmp_path / "new"
    done = delineate("data", "check", root, "--fix", new)
    assert done.status == 0
    assert done.out.splitlines()[-2:] == [
        f"{new}: 12 files changed; {new / 'fix.jsonl'} names them",
        f"{new}: nothing found",
    ]
    assert "Name another" in delineate("data", "check", root, "--fix", new).error
    document = delineate("data", "check", root, "--fix", tmp_path / "two", "--json").document
    assert (len(document["findings"]), len(document["changes"]), document["left"]) == (12, 12, [])
