"""Claim: a teacher helps a student with a tenth of its multiply-adds, or is said not to.

On CamVid and the first fold of nuclei (the splits of ``benchmarks.accuracy``) a teacher is
trained, then ``delineate distill`` trains a student with it and without, for the same time, with
three seeds. Scores are those of images that neither has seen. A unit that has a result in
``results/distill`` is not run again; nothing else may run on the machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.accuracy.datasets import load_split, write_dataset
from benchmarks.record import RESULTS, commit, write
from delineate.config import Duration, ModelSettings
from delineate.data.dataset import Dataset
from delineate.planning.candidates import size_of
from delineate.types import Task
from delineate.workflows.distill import distill
from delineate.workflows.evaluate import EvaluateSettings, evaluate
from delineate.workflows.train import train
from delineate.workflows.training_setup import TrainSettings

DATASETS = {"camvid": "camvid", "nuclei": "nuclei-0"}
SEEDS = (0, 1, 2)
TEACHER_S, STUDENT_S = 1500.0, 360.0
TEACHER = ModelSettings(architecture="unet", encoder="resnet34", downscale=1)
STUDENT = ModelSettings(
    architecture="unet", encoder="mobilenet_v2", decoder_channels=(64, 32, 16, 16, 8), downscale=2
)
HW = {"camvid": (360, 480), "nuclei": (256, 256)}  # of an image
KEPT = RESULTS / "distill"


def changes(model: ModelSettings, seed: int = 0) -> dict[str, Any]:
    return {f"model.{key}": value for key, value in model.model_dump().items()} | {"seed": seed}


def keep(name: str, result: Mapping[str, Any]) -> dict[str, Any]:
    KEPT.mkdir(parents=True, exist_ok=True)
    document = {**result, "commit": commit()}
    (KEPT / f"{name}.json").write_text(json.dumps(document, indent=2) + "\n")
    print(f"{name}: {document}")
    return document


def score(bundle: Path, data: Path) -> dict[str, float]:
    """Mean Dice and mean IoU of the test images."""
    scores = evaluate(bundle, data, split="test", settings=EvaluateSettings(details=False)).scores
    return {"dice": round(scores.mean_dice, 4), "miou": round(scores.mean_iou, 4)}


def teacher(dataset: str, data: Path, work: Path) -> Path:
    """Its bundle, trained unless it was."""
    run = work / dataset / "teacher"
    if not (run / "result.json").exists():
        (KEPT / f"{dataset}-teacher.json").unlink(missing_ok=True)  # another one's
        going_on = (run / "plan.yaml").exists()
        settings = TrainSettings(Duration(budget_s=TEACHER_S), resume=going_on, canary=False)
        train(data, run, changes=None if going_on else changes(TEACHER), settings=settings)
    bundle = Path(json.loads((run / "result.json").read_text())["bundle"])
    if not (KEPT / f"{dataset}-teacher.json").exists():
        keep(f"{dataset}-teacher", score(bundle, data))
    return bundle


def student(dataset: str, seed: int, data: Path, work: Path) -> dict[str, Any]:
    """With its teacher and without."""
    name = f"{dataset}-{seed}"
    path = KEPT / f"{name}.json"
    if path.exists():
        found: dict[str, Any] = json.loads(path.read_text())
        return found
    result = distill(
        teacher(dataset, data, work),
        data,
        work / dataset / f"student-{seed}",
        changes=changes(STUDENT, seed),
        settings=TrainSettings(Duration(budget_s=STUDENT_S), force=True, canary=False),
    )
    assert result.alone is not None
    pair = {"distilled": result.student, "alone": result.alone}
    return keep(
        name,
        {who: {**score(done.bundle, data), "steps": done.steps} for who, done in pair.items()},
    )


def macs_ratio(dataset: str, data: Path) -> float:
    """The student's multiply-adds over the teacher's, for an image of the dataset."""
    classes = len(Dataset.open(data).info.classes)
    task: Task = "binary" if classes == 2 else "multiclass"
    student, teacher = (
        size_of(model, channels=3, classes=classes, task=task, image_hw=HW[dataset]).multiply_adds
        for model in (STUDENT, TEACHER)
    )
    return round(student / teacher, 4)


def figures(dataset: str, found: list[dict[str, Any]]) -> dict[str, float]:
    """Means over seeds, their spread, and the gain."""
    means = {
        who: statistics.mean(each[who]["dice"] for each in found) for who in ("alone", "distilled")
    }
    spread = max(
        max(each[who]["dice"] for each in found) - min(each[who]["dice"] for each in found)
        for who in ("alone", "distilled")
    )
    gain = means["distilled"] - means["alone"]
    return {
        f"dice_alone_{dataset}": round(means["alone"], 4),
        f"dice_distilled_{dataset}": round(means["distilled"], 4),
        f"gain_points_{dataset}": round(100 * gain, 2),
        f"spread_points_{dataset}": round(100 * spread, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.distill", description=__doc__)
    parser.add_argument("--only", choices=DATASETS, help="one dataset")
    work = Path(tempfile.gettempdir()) / "distill-benchmark"
    parser.add_argument("--work", type=Path, default=work, help="folder for datasets and runs")
    wanted = parser.parse_args()
    found: dict[str, float] = {}
    for dataset, split in DATASETS.items():
        if wanted.only not in (None, dataset):
            continue
        data = wanted.work / dataset / "data"
        write_dataset(load_split(split), data)
        units = [student(dataset, seed, data, wanted.work) for seed in SEEDS]
        found |= figures(dataset, units) | {f"macs_ratio_{dataset}": macs_ratio(dataset, data)}
    if wanted.only is not None:  # the units are kept; the figures are written of both
        return
    write(
        "distill",
        "a teacher helps a student with a tenth of its multiply-adds, or is said not to",
        found,
        {"alone": "the same student for the same time, without the teacher"},
    )


if __name__ == "__main__":
    main()
