"""A training in two processes, as ``delineate train --devices 2`` does it."""

from __future__ import annotations

import csv
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from delineate.bundle.load import load
from delineate.config import Duration
from delineate.training.history import read_warnings
from delineate.training.job import Event
from delineate.workflows.train import TrainSettings, train


@pytest.mark.usefixtures("unchecked")
def test_two_processes_end_in_one_bundle(
    make_dataset: Any, tiny: dict[str, Any], tmp_path: Path
) -> None:
    data = make_dataset(tmp_path / "data")
    heard: list[tuple[float, Event]] = []
    began = time.monotonic()

    def watch(event: Event) -> None:
        heard.append((time.monotonic() - began, event))

    settings = TrainSettings(duration=Duration(steps=3), devices=2)
    # of two crops each: batch normalisation refuses a single value for a channel
    changes = tiny | {"batch_size": 4, "checkpoint_s": 1e6}
    found = train(data, tmp_path / "run", changes=changes, settings=settings, watch=watch)

    assert found.steps == 3
    image = np.zeros((1, 64, 64, 3), np.uint8)
    assert load(found.bundle).predict(image, ("labels",))["labels"].shape == (1, 64, 64)
    assert (tmp_path / "run/report.html").read_text().startswith("<!doctype html>")
    note = json.loads((tmp_path / "run/run.json").read_text())
    assert note["devices"] == 2
    assert read_warnings(tmp_path / "run") == []
    steps = [(at, event.step) for at, event in heard if event.kind == "step"]
    assert [step for _, step in steps] == [1, 2, 3]
    with (tmp_path / "run/metrics.csv").open() as file:
        first = next(csv.DictReader(file))
    # the seconds in which the processes start count as well
    assert float(first["elapsed_s"]) == pytest.approx(steps[0][0], abs=1.5)
