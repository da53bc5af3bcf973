from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from delineate.errors import MissingExtraError, SettingsError
from delineate.training import trackers
from delineate.training.trackers import NOTE, MlflowTracker

RESULT = {
    "steps": 20,
    "elapsed_s": 12.5,
    "validation": {
        "mean_iou": 0.5,
        "mean_dice": None,
        "classes": [{"name": "sky", "iou": 0.5}, {"name": "a|b", "iou": None}],
    },
}
PLAN = {"model": {"encoder": "resnet18", "channels": [16, 8]}, "empty": {}, "crop_px": 256}

Follow = Callable[..., MlflowTracker]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "first run"
    folder.mkdir()
    return folder


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def follow(run: Path, said: list[str]) -> Follow:
    pytest.importorskip("mlflow")

    def make(uri: str, **options: Any) -> MlflowTracker:
        usual = {
            "run": run,
            "params": PLAN,
            "tags": {"dataset_sha256": "abc", "command": "delineate train"},
            "warn": said.append,
        }
        return MlflowTracker(uri, **(usual | options))

    return make


def client(uri: str) -> Any:
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=uri)


def test_a_run_arrives_and_goes_on_after_a_resume(
    follow: Follow, run: Path, tmp_path: Path, said: list[str]
) -> None:
    uri = (tmp_path / "store").as_uri()
    (run / "report.html").write_text("page")
    first = follow(uri)
    first.log({"step": 10, "loss": 1.5, "val_miou": None, "images_per_s": float("nan")})
    first.stop()
    run_id = json.loads((run / NOTE).read_text())["run_id"]
    assert client(uri).get_run(run_id).info.status == "KILLED"
    # MLflow lets no parameter change
    second = follow(uri, params={**PLAN, "crop_px": 128, "model": {"encoder": "resnet18"}})
    second.log({"step": 20, "loss": 0.5})
    second.finish(RESULT, [run / "report.html", run / "absent.html"])
    found = client(uri).get_run(run_id)
    assert found.info.status == "FINISHED"
    assert found.info.run_name == "first run"
    assert found.data.params == {
        "model.encoder": "resnet18",
        "model.channels": "[16, 8]",
        "empty": "{}",
        "crop_px": "256",
    }
    assert found.data.metrics == {
        "loss": 0.5,
        "bundle/mean_iou": 0.5,
        "bundle/iou/sky": 0.5,
        "bundle/elapsed_s": 12.5,
    }
    history = client(uri).get_metric_history(run_id, "loss")
    assert [(metric.step, metric.value) for metric in history] == [(10, 1.5), (20, 0.5)]
    assert found.data.tags["dataset_sha256"] == "abc"
    assert [file.path for file in client(uri).list_artifacts(run_id)] == ["report.html"]
    assert said == []


def test_a_server_that_is_not_there_only_warns(
    follow: Follow, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    tracker = follow("http://me:secret@127.0.0.1:9", retry_s=0.01)
    tracker.log({"step": 10, "loss": 1.5})
    until = time.monotonic() + 60
    while not said and time.monotonic() < until:
        tracker.log({"step": 10})
        time.sleep(0.01)
    tracker.finish(RESULT, [])
    assert len(said) == 2
    assert said[0].startswith("MLflow at http://127.0.0.1:9 does not take the run (")
    assert said[0].endswith("); training goes on, and what was not sent is tried again")
    assert said[1] == "MLflow at http://127.0.0.1:9: 4 values and the end were not sent"


def test_what_was_not_taken_is_sent_later(
    follow: Follow, run: Path, tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.tracking import MlflowClient

    uri, real, failures = (tmp_path / "store").as_uri(), MlflowClient.log_batch, [1, 2, 3]

    def sometimes(self: Any, *arguments: Any, **options: Any) -> Any:
        if failures:
            raise ConnectionError(f"no answer {failures.pop()}")
        return real(self, *arguments, **options)

    monkeypatch.setattr(MlflowClient, "log_batch", sometimes)
    tracker = follow(uri, retry_s=0.01)
    for step in range(5):
        tracker.log({"step": step, "loss": 1.0})
    until = time.monotonic() + 60
    while failures and time.monotonic() < until:
        time.sleep(0.01)
    tracker.finish(RESULT, [])
    run_id = json.loads((run / NOTE).read_text())["run_id"]
    history = client(uri).get_metric_history(run_id, "loss")
    assert sorted(metric.step for metric in history) == [0, 1, 2, 3, 4]
    assert failures == []
    assert all("no answer" in text for text in said)


def test_an_address_that_mlflow_does_not_know_is_refused(follow: Follow) -> None:
    with pytest.raises(SettingsError) as raised:
        follow("gopher://me:secret@there")
    assert "secret" not in str(raised.value)
    assert raised.value.mend == (
        "Give the address of a server (http://HOST:5000) or of a folder (file:mlruns)."
    )


def test_nothing_is_told_to_the_makers_of_mlflow(
    follow: Follow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_DISABLE_TELEMETRY", raising=False)
    follow((tmp_path / "store").as_uri()).stop()
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_without_mlflow_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow.tracking", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'delineate\[mlflow\]'"):
        trackers._client("file:mlruns")
