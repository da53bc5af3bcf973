from __future__ import annotations

import json
import math
import re
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from delineate.config import Plan, dump_yaml, with_changes
from delineate.data.dataset import Sample
from delineate.errors import SettingsError
from delineate.evaluation.confusion import Confusion
from delineate.evaluation.evaluate import Evaluation
from delineate.evaluation.scores import compute_scores
from delineate.training.history import Validation, add_warning, read_history
from delineate.training.log import RunLog
from delineate.workflows.run_page import RunPage, RunState, duration, write_run_page
from delineate.workflows.run_pictures import RunPictures
from delineate.workflows.run_record import read_run

CLASSES = ("<b>sky", "car & co", "ghost")
SECONDS = {"step": 8.0, "wait": 2.0, "validation": 1.0, "checkpoint": 0.5, "page": 0.1}


class Balance(HTMLParser):
    """Tags that are opened and not closed, addresses, headings, and the text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.headings: list[str] = []
        self.words = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)


def shown(run: Path) -> Balance:
    balance = Balance()
    balance.feed((run / "report.html").read_text())
    balance.close()
    assert balance.open == []
    return balance


def read(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    mask = np.zeros((40, 60), np.uint8)
    mask[20:] = 1
    mask[:2] = 255
    return np.full((40, 60, 3), 10 * int(sample.name), np.uint8), mask


def predict(image: np.ndarray) -> np.ndarray:
    return np.ones(image.shape[:2], np.uint8)


def validation(step: int, right: int) -> Validation:
    """One whose class 0 has an IoU of ``right`` / 10."""
    confusion = Confusion(CLASSES, 255)
    labels = np.ones((1, 10), np.uint8)
    labels[0, :right] = 0
    confusion.update(np.zeros((1, 10), np.uint8), labels, where="the test")
    found = Evaluation(confusion, compute_scores(confusion), (), (), 1, 0, 1.0, 0.5, 0.1)
    return Validation(step, step * 1.2, step / 40, 40.0 - step, found, SECONDS, 9.5, predict)


def begun(run: Path, *, log: bool = True) -> RunPage:
    """A run's folder as a training finds it, and its page."""
    run.mkdir()
    plan = with_changes(Plan(), {"model.encoder": "resnet34", "optimiser.ema": 0.99}, "the plan")
    (run / "plan.yaml").write_text(dump_yaml(plan))
    note = {
        "dataset": "data/<i>camvid",
        "dataset_sha256": "abc123",
        "command": "delineate train data -o 'a <run>'",
        "environment": {"cpu": "Fast & Co", "cores": 2, "threads": 1, "gpus": []},
    }
    (run / "run.json").write_text(json.dumps(note))
    if log:
        with RunLog(run, 0) as rows:
            for step in range(1, 41):
                score: dict[str, Any] = {"val_miou": step / 100, "val_dice": step / 50}
                losses = {"loss": 2 / step, "learning_rate": 1e-3, "images_per_s": 9.0}
                row = losses if step % 20 else score
                rows.write({"step": step, "elapsed_s": step * 1.2, **row})
    val = [Sample(str(i), Path(f"{i}.png"), Path(f"{i}.png"), None) for i in range(10)]
    colours = ((0, 0, 0), (200, 0, 0), (0, 200, 0))
    pictures = RunPictures(run, val, read, classes=CLASSES, colours=colours, ignore_index=255)
    return RunPage(run, pictures)


def test_before_the_first_step_the_page_says_so(tmp_path: Path) -> None:
    run = tmp_path / "first <run>"
    begun(run, log=False).begin()
    page = shown(run)
    assert "training: 0 %" in page.words
    assert "The first steps are under way." in page.words
    assert page.headings == ["Curves", "Samples", "Made with", "Plan"]
    assert '<meta http-equiv="refresh" content="10">' in (run / "report.html").read_text()


def test_after_a_validation_the_page_has_everything_and_needs_no_network(tmp_path: Path) -> None:
    run = tmp_path / "first"
    page = begun(run)
    page.begin()
    add_warning(run, "class <ghost> has no pixel in train")
    page.on_validation(validation(20, 3))
    assert [row.step for row in read_history(run)] == [20]
    found = shown(run)
    assert found.headings == [
        "Curves",
        "Classes over time",
        "Samples",
        "Where the time went",
        "Made with",
        "Plan",
    ]
    for words in (
        "training: 50 %, 20 s left",
        "class <ghost> has no pixel in train",
        "Up to the last validation. The steps waited 20.0 % of their time for data.",
        "forward, backward and update: 8.0 s, 69.0 %",
        "<b>sky",
        "car & co",
        "delineate train data -o 'a <run>'",
        "Fast & Co",
        "resnet34",
        "optimiser.ema",
    ):
        assert words in found.words
    assert all(address.startswith("data:image/jpeg;base64,") for address in found.addresses)
    assert len(found.addresses) == 4 * 3


def test_a_finished_page_stands_still_and_links_to_the_validation_report(tmp_path: Path) -> None:
    run = tmp_path / "first"
    page = begun(run)
    page.begin()
    last = validation(40, 8)
    page.on_validation(last)
    result = {"elapsed_s": 60.0, "steps": 40, "validation": last.evaluation.scores.to_dict()}
    (run / "result.json").write_text(json.dumps(result))
    (run / "validation.html").write_text("the report")
    page.finish()
    html = (run / "report.html").read_text()
    assert 'http-equiv="refresh"' not in html
    found = shown(run)
    assert "validation.html" in found.addresses
    assert "export and report: 12.0 s" in found.words
    assert "From start to bundle. The steps waited 20.0 % of their time for data." in found.words
    assert re.search(r"finished\s*as of \d{4}-", found.words)


def test_a_stopped_page_says_where_and_why(tmp_path: Path) -> None:
    run = tmp_path / "first"
    page = begun(run)
    page.stop("interrupted <by hand>")
    assert "stopped at step 40: interrupted <by hand>" in shown(run).words
    assert 'http-equiv="refresh"' not in (run / "report.html").read_text()


def test_the_page_is_not_renewed_at_every_step(tmp_path: Path) -> None:
    run = tmp_path / "first"
    page = begun(run)
    page.begin()
    (run / "report.html").unlink()
    for _ in range(20):
        page.renew(0.5, 3.0)
    assert not (run / "report.html").exists()


def test_a_page_that_is_old_is_renewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "first"
    page = begun(run)
    now = time.monotonic() + 3600
    monkeypatch.setattr(time, "monotonic", lambda: now)
    page.renew(0.123, 7500.0)
    assert "training: 12 %, 2 h 5 min left" in shown(run).words


def test_only_differing_settings_are_marked(tmp_path: Path) -> None:
    begun(tmp_path / "first")
    assert read_run(tmp_path / "first").changed == {
        "model.encoder": ("resnet34", "resnet18"),
        "optimiser.ema": (0.99, 0.0),
    }


def test_a_run_of_an_older_version_is_shown(tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text("model: {encoder: resnet18, old_field: 3}\n")
    (tmp_path / "run.json").write_text("{")
    write_run_page(tmp_path, RunState("finished", "finished"))
    assert "model.old_field" in shown(tmp_path).words


@pytest.mark.parametrize(
    ("make", "found"),
    [("absent", "no such folder"), ("file", "is a file, and a run is a folder"),
     ("empty", "holds no run: it has no plan.yaml")],
)  # fmt: skip
def test_what_is_no_run_is_refused(tmp_path: Path, make: str, found: str) -> None:
    path = tmp_path / "it"
    if make == "file":
        path.write_text("")
    elif make == "empty":
        path.mkdir()
    with pytest.raises(SettingsError) as raised:
        read_run(path)
    assert str(raised.value) == (
        f"{path}: {found}. Name the folder that delineate train was given with -o."
    )


def test_durations_are_for_people() -> None:
    assert [duration(s) for s in (0.4, 89.0, 90.0, 720.0, 5340.0, 5400.0, 7500.0)] == [
        "0 s", "89 s", "2 min", "12 min", "89 min", "1 h 30 min", "2 h 5 min"
    ]  # fmt: skip
    assert RunState.training(0.43, math.nan).words == "training: 43 %"
