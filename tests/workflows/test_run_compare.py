from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from delineate.errors import SettingsError
from delineate.training.log import RunLog
from delineate.workflows.run_compare import compare_runs, rows_of, write_comparison


class Words(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.text = ""
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text += f"{data}\n"


def make_run(
    folder: Path, *, seed: int = 0, data: str = "abc", cores: int = 2, done: bool = True
) -> Path:
    folder.mkdir(parents=True)
    (folder / "plan.yaml").write_text(f"seed: {seed}\nmodel: {{encoder: resnet18}}\n")
    note = {"dataset_sha256": data, "environment": {"cores": cores, "packages": {"torch": "2"}}}
    (folder / "run.json").write_text(json.dumps(note))
    with RunLog(folder, 0) as log:
        log.write({"step": 10, "elapsed_s": 30.0, "loss": 1.0, "images_per_s": 8.0})
        log.write({"step": 10, "elapsed_s": 31.0, "val_miou": 0.5, "val_dice": 0.6})
        log.write({"step": 20, "elapsed_s": 61.0, "val_miou": float("nan"), "val_dice": 0.6})
    classes = [{"name": "<sky>", "iou": 0.1 + seed / 10, "true_share": 1.0}]
    scores: dict[str, Any] = {"mean_iou": 0.5, "mean_dice": 0.6, "classes": classes}
    row = {
        "step": 20,
        "elapsed_s": 61.0,
        "scores": scores,
        "seconds": {"step": 50.0, "wait": 0.5},
        "throughput_images_per_s": 8.0,
    }
    (folder / "history.jsonl").write_text(json.dumps(row) + "\n")
    if done:
        result = {"elapsed_s": 70.5, "steps": 20, "validation": scores}
        (folder / "result.json").write_text(json.dumps(result))
    return folder


def test_figures_stand_side_by_side(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / "a"), make_run(tmp_path / "b", seed=1, cores=4, done=False)]
    found = compare_runs(runs)
    assert rows_of(found) == [
        ("a", "yes", "0.5000", "10", "0.5000", "70 s", "20", "8.0", "1.0 %"),
        ("b", "no", "0.5000", "10", "-", "61 s", "20", "8.0", "1.0 %"),
    ]
    document = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert document["plan_differences"] == {"seed": [0, 1]}
    assert document["environment_differences"] == {
        "Cores": ["2, ? threads for an operator", "4, ? threads for an operator"]
    }
    assert document["runs"][1]["class_iou"] == {"<sky>": 0.2}
    assert document["same_dataset"] is True


def test_the_page_has_what_differs_and_needs_no_network(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / "<a>"), make_run(tmp_path / "b", seed=1, data="other")]
    out = tmp_path / "compare.html"
    write_comparison(compare_runs(runs), out)
    words = Words()
    words.feed(out.read_text())
    assert words.addresses == []
    for text in (
        "The runs were trained on different datasets, so their scores do not compare.",
        "<a>, b",
        "mIoU on val over time",
        "<sky>",
        "seed",
        "All that is known is equal.",
    ):
        assert text in words.text
    assert "model.encoder" not in words.text


def test_equal_runs_differ_in_nothing(tmp_path: Path) -> None:
    out = tmp_path / "compare.html"
    write_comparison(compare_runs([make_run(tmp_path / "a"), make_run(tmp_path / "b")]), out)
    assert "All settings are equal." in out.read_text()


def test_runs_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / "old/fold-0"), make_run(tmp_path / "new/fold-0")]
    assert compare_runs(runs).names == ("old/fold-0", "new/fold-0")


def test_a_run_before_its_first_step_has_dashes(tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text("seed: 0\n")
    assert rows_of(compare_runs([tmp_path])) == [
        (tmp_path.name, "no", "-", "-", "-", "0 s", "0", "-", "-")
    ]
    write_comparison(compare_runs([tmp_path]), tmp_path / "compare.html")


def test_a_folder_named_twice_is_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a")
    with pytest.raises(SettingsError) as raised:
        compare_runs([run, tmp_path / "b" / ".." / "a"])
    assert str(raised.value) == f"{run.resolve()}: is named twice. Name each run once."
