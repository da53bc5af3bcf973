from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any


def make_run(folder: Path, seed: int) -> Path:
    folder.mkdir()
    (folder / "plan.yaml").write_text(f"seed: {seed}\n")
    return folder


def test_a_table_a_page_and_json(delineate: Callable[..., Any], tmp_path: Path) -> None:
    first, second = make_run(tmp_path / "first", 1), make_run(tmp_path / "second", 2)
    out = tmp_path / "compare.html"
    done = delineate("runs", first, second, "--out", out)
    assert done.status == 0, done.err
    assert [line.split()[:2] for line in done.out.splitlines() if line.startswith("first")] == [
        ["first", "no"]
    ]
    assert [line.split() for line in done.out.splitlines() if line.startswith("seed")] == [
        ["seed", "1", "2"]
    ]
    assert out.exists()
    document = delineate("runs", first, second, "--json").document
    assert document["plan_differences"] == {"seed": [1, 2]}
    assert [run["name"] for run in document["runs"]] == ["first", "second"]


def test_what_is_no_run_is_refused(wrong: Callable[..., str], tmp_path: Path) -> None:
    assert wrong("runs", tmp_path) == (
        f"{tmp_path}: holds no run: it has no plan.yaml. "
        "Name the folder that delineate train was given with -o."
    )


def test_a_page_that_is_there_is_not_replaced(
    delineate: Callable[..., Any], wrong: Callable[..., str], tmp_path: Path
) -> None:
    run, out = make_run(tmp_path / "first", 1), tmp_path / "compare.html"
    out.write_text("mine")
    assert wrong("runs", run, "--out", out) == (
        f"{out}: exists already. Name another, or add --force."
    )
    assert out.read_text() == "mine"
    assert delineate("runs", run, "--out", out, "--force").status == 0
    assert out.read_text() != "mine"
