from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from delineate.cli.main import app
from delineate.errors import SettingsError


def test_a_student_with_its_teacher(trained: Any, plan: Path, tmp_path: Path) -> None:
    out = tmp_path / "student"
    words = ["distill", str(trained.run), str(trained.dataset), "-o", str(out), "--plan", str(plan)]
    options = ["--steps", "1", "--only", "--channels", "3", "--temperature", "1.5"]
    done = CliRunner().invoke(app, [*words, *options])
    assert done.exit_code == 0, done.output
    assert "what the teacher brought is not known" in done.stdout
    assert done.stdout.splitlines()[-1] == f"report  {out / 'report.html'}"
    assert "channels: 3.0" in (out / "distilled/plan.yaml").read_text()


@pytest.mark.parametrize("value", [["--steps", "0"], ["--budget", "0s"]])
def test_no_time_is_refused(tmp_path: Path, value: list[str]) -> None:
    words = ["distill", "a", "b", "-o", str(tmp_path / "out"), *value]
    done = CliRunner().invoke(app, words)
    assert isinstance(done.exception, SettingsError)
    assert done.exception.where == value[0]


@pytest.mark.parametrize("options", [[], ["--steps", "1", "--budget", "5m"]])
def test_how_long_has_to_be_said(tmp_path: Path, options: list[str]) -> None:
    words = ["distill", "a", "b", "-o", str(tmp_path / "out"), *options]
    done = CliRunner().invoke(app, words)
    assert isinstance(done.exception, SettingsError)
    assert "Add either --budget 30m or --steps 2000." in str(done.exception)
