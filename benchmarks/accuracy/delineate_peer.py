"""delineate's own default: nothing is chosen but the dataset, the folder and the budget.

The test images are predicted a second time with ``--tta``, as nnU-Net always does.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from benchmarks.accuracy.process import python, run

VIEWS = {"nuclei": "dihedral", "camvid": "flips"}  # streets have an up and a down
AVERAGED = "predictions-tta"

_DELINEATE = ("-c", "from delineate.cli.main import main; main()")


def train_and_predict(
    data: Path, work: Path, budget_s: float, seed: int, log: Path, views: str
) -> dict[str, Any]:
    """Train, then write label maps of the test images to ``work/predictions``.

    Those averaged over ``views`` go to ``work/predictions-tta``.

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
    words = [python(), *_DELINEATE, "predict", result["bundle"], images, "--engine", "onnxruntime"]
    run([*words, "-o", predictions], log)
    predict_s = time.monotonic() - began
    began = time.monotonic()
    run([*words, "-o", work / AVERAGED, "--tta", views], log)
    return {
        "steps": result["steps"],
        "wall_s": round(wall_s, 1),
        "predict_s": round(predict_s, 1),
        "tta": {"views": views, "predict_s": round(time.monotonic() - began, 1)},
        "settings": {"plan": (out / "plan.yaml").read_text()},
    }
