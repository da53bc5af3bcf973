from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

Run = Callable[..., Any]
ENGINE = ("--engine", "onnxruntime")


def test_scores_and_a_report(delineate: Run, trained: Any, tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    arguments = ("evaluate", trained.bundle, trained.dataset, *ENGINE, "--report", report)
    done = delineate(*arguments)
    assert done.status == 0
    assert "ground" in done.out
    assert done.out.splitlines()[-1] == f"report  {report}"
    assert report.read_text().startswith("<!doctype html>")
    again = delineate(*arguments)
    assert again.status == 2
    assert again.error == f"{report}: exists already. Name another, or add --force."
    assert delineate(*arguments, "--force").status == 0


def test_one_document(delineate: Run, trained: Any) -> None:
    done = delineate("evaluate", trained.bundle, trained.dataset, *ENGINE, "--json")
    assert done.status == 0
    assert done.document["n_images"] == 2
    assert done.document["scores"] == trained.result.to_dict()["validation"]


def test_other_classes(delineate: Run, trained: Any, make_dataset: Run, tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data", classes=("a", "b"))
    done = delineate("evaluate", trained.bundle, data, *ENGINE, "--json")
    assert done.status == 2
    assert done.error == (
        f"{data}: its classes are a, b, those of first are sky, ground, car. Evaluate on a "
        "dataset with the same classes in the same order."
    )
    assert done.document["error"]["kind"] == "DatasetError"


def test_another_split(delineate: Run, trained: Any) -> None:
    done = delineate("evaluate", trained.bundle, trained.dataset, "--split", "test", "--json")
    assert done.status == 2
    assert done.error == (
        f"{trained.dataset}: has no split 'test'. Use one of: train (4 images), val (2 images)."
    )


def test_against_another(delineate: Run, trained: Any) -> None:
    arguments = ("evaluate", trained.bundle, trained.dataset, *ENGINE, "--against", trained.bundle)
    done = delineate(*arguments)
    assert done.status == 0
    assert done.out.splitlines()[-2] == "A (first) and B (first) have the same mean IoU"
    document = delineate(*arguments, "--json").document
    assert document["comparison"]["scores_b"] == document["scores"]
    assert document["comparison"]["mean_iou"]["interval"] == [0, 0]
    assert document["intervals"]["units"] == 2


def test_views_and_tiles(delineate: Run, trained: Any) -> None:
    arguments = ("evaluate", trained.bundle, trained.dataset, *ENGINE, "--json")
    options = ("--tta", "flips", "--tile", "32", "--overlap", "8")
    done = delineate(*arguments, *options)
    assert done.status == 0
    assert done.document["n_images"] == 2
    wrong = delineate(*arguments, "--tta", "turns")
    assert wrong.status == 2
    assert (
        wrong.error == "--tta: 'turns' is no test-time augmentation. Choose from flips, dihedral."
    )
    wrong = delineate(*arguments, "--tile", "32", "--overlap", "20")
    assert wrong.status == 2
    assert wrong.error.startswith("--tile, --overlap: ")
