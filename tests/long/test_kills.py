"""A training that is killed again and again ends with the weights of one that was not."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch
from onnx import numpy_helper
from safetensors.torch import load_file

pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]

KILLS = int(os.environ.get("DELINEATE_KILLS", "20"))
STEPS = 80
PLAN = """
model: {encoder: mobilenet_v2, decoder_channels: [16, 8, 8, 8, 8]}
crop_px: 32
batch_size: 2
precision: "32"
validations: 3
checkpoint_s: 0.5
"""


def start(data: Path, run: Path, plan: Path, *options: str) -> subprocess.Popen[bytes]:
    code = "from delineate.cli.main import main; main()"
    words = ["train", str(data), "-o", str(run), "--steps", str(STEPS), "--plan", str(plan)]
    with (run.parent / "log.txt").open("ab") as log:
        return subprocess.Popen([sys.executable, "-c", code, *words, *options], stderr=log)


def weights(path: Path) -> dict[str, bytes]:
    graph = onnx.load(path).graph
    return {item.name: numpy_helper.to_array(item).tobytes() for item in graph.initializer}


def test_kills_at_random_moments(tmp_path: Path, make_dataset: Callable[..., Path]) -> None:
    data = make_dataset(tmp_path / "data")
    plan = tmp_path / "plan.yaml"
    plan.write_text(PLAN)
    whole = tmp_path / "whole"
    began = time.monotonic()
    assert start(data, whole, plan).wait() == 0, (tmp_path / "log.txt").read_text()[-2000:]
    lasts_s = time.monotonic() - began

    moments = random.Random(7)
    run, killed, ended = tmp_path / "run", 0, 0
    while killed < KILLS or ended == 0:
        resume = ("--resume",) if (run / "plan.yaml").exists() else ("--force",)
        training = start(data, run, plan, *resume)
        try:
            # from the first import to the writing of the bundle, whatever this machine is like
            status = training.wait(moments.uniform(0, lasts_s) if killed < KILLS else None)
        except subprocess.TimeoutExpired:
            training.kill()
            assert training.wait() < 0
            killed += 1
            continue
        assert status == 0, (tmp_path / "log.txt").read_text()[-2000:]
        ended += 1
        compare(run, whole)
        if killed < KILLS:  # it came to its end: the next one begins anew
            shutil.rmtree(run)
    assert killed == KILLS


def compare(run: Path, whole: Path) -> None:
    for name in ("last", "best"):
        found, wanted = (
            load_file(folder / f"checkpoints/{name}.safetensors") for folder in (run, whole)
        )
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[key], wanted[key]) for key in wanted), name
    found_graph = weights(run / "run.bundle/model.onnx")
    assert found_graph == weights(whole / "whole.bundle/model.onnx")
    left = sorted(path.name for path in (run / "checkpoints").iterdir())
    assert left == ["best.safetensors", "last.safetensors"]
