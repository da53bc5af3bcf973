"""delineate's own default: nothing is chosen but the dataset, the folder and the budget."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from benchmarks.accuracy.process import python, run

_DELINEATE = ("-c", "from delineate.cli.main import main; main()")


def train_and_predict(
    data: Path, work: Path, budget_s: float, seed: int, log: Path
) -> dict[str, Any]:
    """Train, then write label maps of the test images to ``work/predictions``.

    Export, canary and report are inside the budget; prediction is not.
    """
    out = work / "run"
    command = [python(), *_DELINEATE, "train", data, "-o", out, "--budget", f"{budget_s:g}s"]
    if seed:
        command += ["--seed", str(seed)]
    began = time.monotonic()
    run(command, log)
    wall_s = time.monotonic() - began
    result = json.loads((out / "result.json").read_text())
    began = time.monotonic()
    images, predictions = data / "test" / "images", work / "predictions"
    words = ["predict", result["bundle"], images, "-o", predictions, "--engine", "onnxruntime"]
    run([python(), *_DELINEATE, *words], log)
    return {
        "steps": result["steps"],
        "wall_s": round(wall_s, 1),
        "predict_s": round(time.monotonic() - began, 1),
        "settings": {"plan": (out / "plan.yaml").read_text()},
    }
