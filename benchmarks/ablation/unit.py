"""One unit in a process of its own: ``python -m benchmarks.ablation.unit NAME WORK OUT STEPS``.

The score is that of the test part: the first fold of nuclei, sequence 0006R0 of CamVid. Trainings
go by steps, so their scores do not depend on what else the machine does; the seconds of a step do,
and are measured apart (:mod:`benchmarks.ablation.timing`).
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.ablation.options import Unit, units
from benchmarks.ablation.pseudo import labelled_half, with_own_labels
from benchmarks.accuracy.datasets import load_split, write_dataset
from benchmarks.accuracy.score import headline
from delineate.config import Duration
from delineate.workflows.evaluate import EvaluateSettings, evaluate
from delineate.workflows.train import train
from delineate.workflows.training_setup import TrainSettings

SPLITS = {"nuclei": "nuclei-0", "camvid": "camvid"}


def data_of(dataset: str, work: Path) -> Path:
    """The dataset; written once."""
    folder = work / "data" / dataset
    write_dataset(load_split(SPLITS[dataset]), folder)
    return folder


def half_of(dataset: str, work: Path) -> Path:
    """Where the dataset with half of its labels lies."""
    return work / "data" / f"{dataset}-half"


def training_data(unit: Unit, work: Path, steps: int) -> Path:
    """What the unit is trained on; for own labels half of the steps are spent here."""
    full = data_of(unit.dataset, work)
    if unit.option.labels == "all":
        return full
    half = labelled_half(full, half_of(unit.dataset, work))
    if unit.option.labels == "half":
        return half
    first = trained(unit, half, work / unit.name / "first", steps // 2)
    return with_own_labels(full, first, work / unit.name / "data")


def bundle_of(unit: Unit, work: Path, steps: int) -> Path:
    """The bundle of a training of so many steps, trained unless it is there."""
    data = training_data(unit, work, steps)
    left = steps - steps // 2 if unit.option.labels == "own" else steps
    return trained(unit, data, work / unit.name / str(left), left)


def trained(unit: Unit, data: Path, out: Path, steps: int) -> Path:
    """Train unless it was done."""
    if not (out / "result.json").exists():
        train(
            data,
            out,
            changes={**unit.option.changes, "seed": unit.seed},
            settings=TrainSettings(Duration(steps=steps), force=True, canary=False),
        )
    result = json.loads((out / "result.json").read_text())
    return Path(result["bundle"])


def run(unit: Unit, work: Path, steps: int) -> dict[str, Any]:
    """Train and score."""
    bundle = bundle_of(unit if unit.option.tta is None else unit.baseline, work, steps)
    found = evaluate(
        bundle,
        data_of(unit.dataset, work),
        split="test",
        engine="onnxruntime",
        settings=EvaluateSettings(details=False, tta=unit.option.tta),
    )
    return {
        "unit": unit.name,
        "dataset": unit.dataset,
        "option": unit.option.name,
        "seed": unit.seed,
        "changes": dict(unit.option.changes),
        "steps": steps,
        "score": headline(found.scores),
        "mean_iou": found.scores.mean_iou,
        "date": datetime.now(UTC).date().isoformat(),
    }


def main() -> None:
    name, work, out, steps = sys.argv[1:]
    unit = next(unit for unit in units() if unit.name == name)
    unit.keep(run(unit, Path(work), int(steps)), Path(out))


if __name__ == "__main__":
    main()
