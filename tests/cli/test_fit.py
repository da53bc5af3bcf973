from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from delineate.cli.main import app


@pytest.mark.usefixtures("quick_timing")
def test_fit_and_bench(make_dataset: Callable[..., Path], tmp_path: Path) -> None:
    data, out = make_dataset(tmp_path / "data"), tmp_path / "bands.bundle"
    words = ["fit", str(data), "-o", str(out), "--method", "multi-otsu", "--images", "3"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "multi-otsu, fitted to 3 images" in done.stdout
    assert done.stdout.splitlines()[-1] == f"bundle  {out}"
    page = tmp_path / "bench.html"
    words = ["bench", str(out), "--data", str(data), "-o", str(page), "--limit", "0s"]
    done = CliRunner().invoke(app, [*words, "--p95-ms", "0.0001", "--threads", "1"])
    assert done.exit_code == 1, done.output
    lines = done.stdout.splitlines()
    assert lines[0].split()[:3] == ["contender", "mIoU", "Dice"]
    assert lines[1].startswith("bands ")
    assert any(line.startswith("Nothing stays within 0.0001 ms") for line in lines)
    assert json.loads(page.with_suffix(".json").read_text())["front"] == ["bands"]
    assert page.with_suffix(".png").exists()
