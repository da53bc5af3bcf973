from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from delineate.cli.main import app
from delineate.cli.plan import parse_bytes
from delineate.config import ModelSettings
from delineate.errors import SettingsError
from delineate.workflows import plan as workflow


@pytest.fixture(autouse=True)
def _one_candidate(export_once: None, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001
    settings = workflow.PlanSettings

    def fewer(**fields: Any) -> workflow.PlanSettings:
        return settings(**fields, models=(ModelSettings(architecture="fast-scnn"),))

    monkeypatch.setattr(workflow, "PlanSettings", fewer)


def test_a_plan_and_its_table(make_dataset: Callable[..., Path], tmp_path: Path) -> None:
    data, out = make_dataset(tmp_path / "data"), tmp_path / "plan.yaml"
    words = ["plan", str(data), "-o", str(out), "--engine", "onnxruntime", "--limit", "5s"]
    done = CliRunner().invoke(app, [*words, "--p95-ms", "10000"])
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0].split()[:3] == ["network", "p50", "ms"]
    assert lines[1].split()[0] == "Fast-SCNN"
    assert lines[1].split()[-1] == "yes"
    assert lines[2].startswith("One image of 48 x 40 px on onnxruntime, in turns.")
    assert lines[-2] == f"plan  {out}  (delineate train DATASET --plan it)"
    assert out.exists()
    refused = CliRunner().invoke(app, [*words, "--p95-ms", "0.001", "--force", "--json"])
    assert refused.exit_code == 1
    document = json.loads(refused.stdout)
    assert document["chosen"] is None
    assert document["files"] == {}


@pytest.mark.parametrize(
    ("text", "count"), [("500MB", 500 * 2**20), ("2 gb", 2 * 2**30), ("1.5GB", 3 * 2**29)]
)
def test_amounts_of_memory(text: str, count: int) -> None:
    assert parse_bytes(text) == count


@pytest.mark.parametrize("text", ["2", "0GB", "much", "-1GB"])
def test_no_amount_of_memory(text: str) -> None:
    with pytest.raises(SettingsError, match="no amount of memory"):
        parse_bytes(text)


def test_no_budget(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["plan", str(tmp_path), "--p95-ms", "0"])
    assert isinstance(done.exception, SettingsError)


@pytest.mark.parametrize(
    "options", [["--try", "3"], ["--try", "1", "--budget", "1h"], ["--try", "4", "--budget", "2m"]]
)
def test_trying_needs_candidates_and_time(
    make_dataset: Callable[..., Path], tmp_path: Path, options: list[str]
) -> None:
    data = make_dataset(tmp_path / "data")
    words = ["plan", str(data), "--p95-ms", "30", "-o", str(tmp_path / "plan.yaml"), *options]
    done = CliRunner().invoke(app, words)
    assert isinstance(done.exception, SettingsError)
    assert done.exception.where in ("--try", "--budget")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--p95-ms nan", "--p95-ms: nan ms is no budget. Give more than 0, and an end."),
        ("--p95-ms inf", "--p95-ms: inf ms is no budget. Give more than 0, and an end."),
        ("--p95-ms 5 --threads 0", "--threads: 0 threads cannot be used."),
        ("--p95-ms 5 --threads 5000", "--threads: 5000 threads cannot be used."),
        ("--p95-ms 5 --train-budget 0s", "--train-budget: there is no training in no time."),
        ("--p95-ms 5 --image-size 7x9999999", "--image-size: 7x9999999 is larger than"),
        ("--p95-ms 5 --budget 2m", "--budget: is the time of --try. Add --try 3, or leave it out."),
        ("--p95-ms 5 --device tpu", "device 'tpu' is unknown. Choose from cpu, cuda, gpu."),
        ("--p95-ms 5 --curve nothing", "nothing: holds no learning curve. Name the folder of"),
    ],
)
def test_what_cannot_be_planned_is_refused_at_once(words: str, told: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["plan", str(tmp_path / "is not read"), *words.split()])
    assert isinstance(done.exception, SettingsError)
    assert str(done.exception).startswith(told)
