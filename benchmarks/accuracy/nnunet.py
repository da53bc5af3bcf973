"""nnU-Net v2, 2D, by its own planner, in an environment of its own.

Not counted: planning, preprocessing and the timing of a few iterations before, prediction after.
Counted: the whole training process from its start to its final checkpoint.
"""

from __future__ import annotations

import json
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.accuracy.process import run
from delineate.data.dataset import Dataset

VERSION = "2.8.1"
ENVIRONMENT = Path(tempfile.gettempdir()) / "nnunet"
TRAINER = "EqualTimeTrainer"
DATASET_ID = "901"
DATASET = f"Dataset{DATASET_ID}_accuracy"
FULL = "1,000 epochs of 250 iterations"
EPOCHS = 10  # at most; the learning rate falls with the iterations all the same
PER_VALIDATION = 5  # iterations for one of validation, as 250 to 50
PROBE_ITERATIONS, PROBE_WARM_UP, PROBE_VALIDATIONS = 8, 2, 2


@dataclass(frozen=True)
class Schedule:
    """How many iterations fit into the time."""

    epochs: int
    iterations: int
    validations: int

    @property
    def steps(self) -> int:
        return self.epochs * self.iterations


def schedule(probe: dict[str, Any], budget_s: float) -> Schedule:
    """The longest schedule that fits, from the seconds that a short run of the trainer took."""
    step_s = statistics.fmean(probe["train_s"][PROBE_WARM_UP:])
    validation_s = statistics.fmean(probe["val_s"][1:])
    stepping_s = sum(probe["train_s"]) + sum(probe["val_s"])
    # one epoch's plots and logs, and the end: checkpoint and shutdown
    epoch_s = probe["wall_s"] - probe["startup_s"] - stepping_s
    left_s = budget_s - probe["startup_s"] - epoch_s
    found = Schedule(1, 1, 1)
    for epochs in range(1, EPOCHS + 1):
        iterations = 1
        while epochs * (iterations * step_s + _validations(iterations) * validation_s) <= left_s:
            if epochs * iterations >= found.steps:
                found = Schedule(epochs, iterations, _validations(iterations))
            iterations += 1
    return found


def _validations(iterations: int) -> int:
    return max(iterations // PER_VALIDATION, 1)


def environment() -> Path:
    """The folder of nnU-Net's commands; makes the environment where there is none."""
    commands = ENVIRONMENT / "bin"
    if not (commands / "nnUNetv2_train").exists():
        log = ENVIRONMENT.with_suffix(".log")
        uv = [sys.executable, "-m", "uv"]
        run([*uv, "venv", "--allow-existing", "--python", "3.11", ENVIRONMENT], log)
        install = [*uv, "pip", "install", "--python", commands / "python"]
        run([*install, f"nnunetv2=={VERSION}"], log)
    return commands


def convert(data: Path, root: Path) -> None:
    """Lay a canonical dataset out as nnU-Net's raw one; train and val are its training cases.

    nnU-Net calls class 0 background: on CamVid that is sky, which its Dice term then leaves out
    and its cross-entropy has.
    """
    dataset = Dataset.open(data)
    raw = root / "raw" / DATASET
    for folder in ("imagesTr", "labelsTr", "imagesTs"):
        (raw / folder).mkdir(parents=True)
    for part, images in (("train", "imagesTr"), ("val", "imagesTr"), ("test", "imagesTs")):
        for sample in dataset.split(part):
            shutil.copyfile(sample.image, raw / images / f"{sample.name}_0000.png")
            if part != "test" and sample.mask is not None:
                shutil.copyfile(sample.mask, raw / "labelsTr" / f"{sample.name}.png")
    names = ("background", *dataset.info.classes[1:])
    labels = {name: index for index, name in enumerate(names)}
    if dataset.info.ignore_index is not None:
        labels["ignore"] = dataset.info.ignore_index
    document = {
        "channel_names": {"0": "R", "1": "G", "2": "B"},
        "labels": labels,
        "numTraining": len(dataset.split("train")) + len(dataset.split("val")),
        "file_ending": ".png",
        "overwrite_image_reader_writer": "NaturalImage2DIO",
    }
    (raw / "dataset.json").write_text(json.dumps(document))


def plan(data: Path, root: Path, env: dict[str, str], log: Path) -> None:
    """nnU-Net's own planning and preprocessing; its split is replaced by the one of all peers."""
    words = ["-d", DATASET_ID, "-c", "2d", "--verify_dataset_integrity", "-npfp", "2", "-np", "2"]
    run([environment() / "nnUNetv2_plan_and_preprocess", *words], log, env)
    dataset = Dataset.open(data)
    split = {part: [sample.name for sample in dataset.split(part)] for part in ("train", "val")}
    (root / "preprocessed" / DATASET / "splits_final.json").write_text(json.dumps([split]))


def train(wanted: Schedule, root: Path, env: dict[str, str], log: Path) -> dict[str, Any]:
    """One training of the schedule; gives what :class:`EqualTimeTrainer` noted."""
    found = root / "found.json"
    began = time.time()
    words = ["-tr", TRAINER, "-device", "cpu"]
    command = [environment() / "nnUNetv2_train", DATASET_ID, "2d", "0", *words]
    counts = {
        "EQUAL_TIME_EPOCHS": wanted.epochs,
        "EQUAL_TIME_ITERATIONS": wanted.iterations,
        "EQUAL_TIME_VALIDATIONS": wanted.validations,
        "EQUAL_TIME_BEGAN": began,
        "EQUAL_TIME_FOUND": found,
    }
    run(command, log, {**env, **{name: str(value) for name, value in counts.items()}})
    document: dict[str, Any] = json.loads(found.read_text())
    return document


def train_and_predict(data: Path, work: Path, budget_s: float, log: Path) -> dict[str, Any]:
    """Plan, time, train, then write label maps of the test images to ``work/predictions``.

    Prediction mirrors each image along both axes and averages, nnU-Net's default.
    """
    root = work / "nnunet"
    root.mkdir()
    env = {f"nnUNet_{name}": str(root / name) for name in ("raw", "preprocessed", "results")}
    env["nnUNet_extTrainer"] = str(Path(__file__).parent / "trainer")
    convert(data, root)
    plan(data, root, env, log)
    probe = train(Schedule(1, PROBE_ITERATIONS, PROBE_VALIDATIONS), root, env, log)
    shutil.rmtree(root / "results")
    wanted = schedule(probe, budget_s)
    found = train(wanted, root, env, log)
    began = time.monotonic()
    images = root / "raw" / DATASET / "imagesTs"
    words = ["-d", DATASET_ID, "-c", "2d", "-f", "0", "-tr", TRAINER, "-device", "cpu"]
    words += ["-npp", "1", "-nps", "1"]
    command = [environment() / "nnUNetv2_predict", "-i", images, "-o", work / "predictions"]
    run([*command, *words], log, env)
    return {
        "steps": wanted.steps,
        "wall_s": round(found["wall_s"], 1),
        "predict_s": round(time.monotonic() - began, 1),
        "settings": {
            "version": VERSION,
            "schedule": f"{wanted.epochs} epochs of {wanted.iterations} iterations and "
            f"{wanted.validations} of validation, in place of {FULL}",
            "batch": found["batch"],
            "patch_hw": found["patch"],
            "startup_s": round(found["startup_s"], 1),
            "step_s": round(statistics.fmean(found["train_s"]), 3),
            "test_time_augmentation": "mirroring, its default",
        },
    }
