"""A training on two machines, which are two commands here; what a machine that joins refuses."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from delineate.errors import CheckpointError, SettingsError
from delineate.training.folder import joinable
from delineate.workflows.join import join

# at its random weights MobileNetV2, of the other tests, makes much of rounding
PLAN = """
model: {encoder: tu-convnext_atto, decoder_channels: [16, 8, 8, 8, 8]}
crop_px: 32
batch_size: 4
precision: "32"
validations: 1
"""
COMMAND = "from delineate.cli.main import main; main()"


@contextmanager
def begun(trained: Any, run: Path, **changes: Any) -> Iterator[None]:
    """A run's folder that takes machines in."""
    run.mkdir()
    shutil.copyfile(trained.run / "plan.yaml", run / "plan.yaml")
    record = json.loads((trained.run / "run.json").read_text())
    record |= {"nodes": 2, "rendezvous": "localhost:29400"} | changes
    (run / "run.json").write_text(json.dumps(record))
    with joinable(run):
        yield


def test_nothing_to_join(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        join(tmp_path / "run", wait_s=0.1)
    assert str(caught.value) == (
        f"{tmp_path / 'run'}: has been waited for 0.1 s, and no training there took machines in. "
        "Start delineate train with --nodes and --rendezvous on one machine, and see that this "
        "one has the same folder there."
    )


def test_a_finished_run_is_not_joined(trained: Any) -> None:
    with pytest.raises(SettingsError, match="no training there took machines in"):
        join(trained.run, wait_s=0.1)


def test_a_run_of_one_machine(trained: Any, tmp_path: Path) -> None:
    with begun(trained, tmp_path / "run", nodes=1), pytest.raises(SettingsError) as caught:
        join(tmp_path / "run")
    assert str(caught.value) == (
        f"{tmp_path / 'run'}: is trained by one machine alone. "
        "Start it anew with --nodes and --rendezvous."
    )


def test_too_few_devices_here(trained: Any, tmp_path: Path) -> None:
    with (
        begun(trained, tmp_path / "run", devices=9999),
        pytest.raises(SettingsError, match="9999 are wanted"),
    ):
        join(tmp_path / "run")


def test_another_dataset(trained: Any, make_dataset: Callable[..., Path], tmp_path: Path) -> None:
    other = make_dataset(tmp_path / "other", val=3)
    with begun(trained, tmp_path / "run"), pytest.raises(CheckpointError) as caught:
        join(tmp_path / "run", dataset=other)
    assert str(caught.value).startswith(
        f"{other}: holds other files than on the machine that leads"
    )


def test_a_dataset_that_is_elsewhere_here(trained: Any, tmp_path: Path) -> None:
    run, there = tmp_path / "run", tmp_path / "not here"
    with begun(trained, run, dataset=str(there)), pytest.raises(SettingsError) as caught:
        join(run)
    assert str(caught.value) == (
        f"{there}: no such folder on this machine; the one that leads has the dataset there. "
        "Add --data with its folder here."
    )


@pytest.mark.long
@pytest.mark.timeout(600)
def test_two_machines_train_as_one(trained: Any, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        place = f"localhost:{free.getsockname()[1]}"
    run = tmp_path / "run"
    plan = tmp_path / "plan.yaml"
    plan.write_text(PLAN)
    python = [sys.executable, "-c", COMMAND]
    train = [*python, "train", str(trained.dataset), "--plan", str(plan), "--steps", "6"]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    with subprocess.Popen(
        [*train, "-o", str(run), "--nodes", "2", "--rendezvous", place, "--json"],
        env=environment,
        stdout=subprocess.PIPE,
    ) as leads:
        joined = subprocess.run(
            [*python, "join", str(run)], env=environment, capture_output=True, text=True, check=True
        )
        assert leads.stdout is not None
        result = json.loads(leads.stdout.read())
    assert leads.returncode == 0
    assert joined.stdout == f"took part in {run}, whose leader ends it\n"
    assert (Path(result["bundle"]) / "manifest.json").exists()
    alone = tmp_path / "alone"
    subprocess.run([*train, "-o", str(alone)], env=environment, check=True)

    def losses(folder: Path) -> list[float]:
        rows = (folder / "metrics.csv").read_text().splitlines()
        at = rows[0].split(",").index("loss")
        return [float(row.split(",")[at]) for row in rows[1:] if row.split(",")[at]]

    assert result["steps"] == 6
    assert losses(run) == pytest.approx(losses(alone), rel=1e-3)
