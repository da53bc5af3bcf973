from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from delineate.cli.compress import parse_size
from delineate.cli.main import app
from delineate.engines.timing import Timing
from delineate.errors import OutputError, SettingsError

ANY_SCORES = ["--miou-points", "100", "--class-points", "100", "--boundary-points", "100"]
FEW = ["--engine", "onnxruntime", "--threads", "1", "--images", "2", "--limit", "1s"]


@pytest.fixture(autouse=True)
def _speed(monkeypatch: pytest.MonkeyPatch) -> None:
    """int8 is said to be twice as fast, so that no machine decides."""

    def timed(calls: Mapping[str, Callable[[], object]]) -> dict[str, Timing]:
        ms = {name: 10.0 if "int8" in name else 20.0 for name in calls}
        return {name: Timing(1.0, True, (np.full(4, v), np.full(4, v))) for name, v in ms.items()}

    monkeypatch.setattr("delineate.workflows.compress.time_calls", timed)


def test_the_table_and_what_was_admitted(
    tiny_bundle: Path, make_dataset: Callable[..., Path], tmp_path: Path
) -> None:
    data = make_dataset(tmp_path / "data", classes=("background", "disc"))
    out = tmp_path / "small.bundle"
    arguments = ["compress", str(tiny_bundle), str(data), "-o", str(out), *FEW, *ANY_SCORES]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0].split() == [
        "variant", "engine", "p50", "ms", "p95", "ms", "mIoU", "times", "admitted",
    ]  # fmt: skip
    assert lines[1].split()[:4] == ["float32", "onnxruntime", "20.00", "20.00"]
    assert "One image of 48 x 40 px (height x width), in turns." in lines
    assert lines[-1] == f"bundle  {out}  (--variant auto takes the fastest)"
    assert any(line.startswith("int8 is admitted: int8 (") for line in lines)
    assert "timing " in done.stderr
    again = CliRunner().invoke(app, [*arguments, "--json"])
    assert isinstance(again.exception, OutputError)
    for command in (["predict", str(data / "val/images"), "-o", str(tmp_path / "masks")],
                    ["evaluate", str(data)]):  # fmt: skip
        words = [command[0], str(out), *command[1:], "--variant", "auto"]
        assert CliRunner().invoke(app, words).exit_code == 0


def test_a_refusal_has_status_1_and_its_reasons(
    tiny_bundle: Path, make_dataset: Callable[..., Path], tmp_path: Path
) -> None:
    data = make_dataset(tmp_path / "data", classes=("background", "disc"))
    out = tmp_path / "small.bundle"
    words = ["compress", str(tiny_bundle), str(data), "-o", str(out), *FEW, "--speedup", "3"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 1
    assert "is 2.00 times as fast as float32 on onnxruntime (2.00 to 2.00), and 3 times" in (
        done.stdout
    )
    assert done.stdout.splitlines()[-1] == "Nothing is admitted, and nothing was written."
    assert not out.exists()
    done = CliRunner().invoke(app, [*words, "--json"])
    assert done.exit_code == 1
    document = json.loads(done.stdout)
    assert (document["bundle"], document["admitted"]) == (None, {})


def test_sizes() -> None:
    assert parse_size("480x640") == (480, 640)
    for text in ("480", "480x", "0x5", "ax5", "480x640x3"):
        with pytest.raises(SettingsError) as caught:
            parse_size(text)
        assert str(caught.value) == (
            f"--image-size: {text!r} is no size. Write HEIGHTxWIDTH, as in 480x640."
        )
    with pytest.raises(SettingsError, match="7x99999 is larger than what is segmented at once"):
        parse_size("7x99999")
