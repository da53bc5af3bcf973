"""One unit in a process of its own: ``python -m benchmarks.ablation.unit NAME WORK OUT STEPS``.

The score is that of the test part: the first fold of nuclei, sequence 0006R0 of CamVid, at half
size. Trainings go by steps, so their scores do not depend on what else the machine does. The
seconds of a step do; they are measured apart, the option and the default by turns in this process.
"""

from __future__ import annotations

import json
import shutil
import statistics
import sys
import time
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from benchmarks.ablation.options import OPTIONS, SHRINK, Option, Unit, units
from benchmarks.ablation.pseudo import labelled_half, with_own_labels
from benchmarks.accuracy.datasets import load_split, write_dataset
from benchmarks.accuracy.process import THREADS
from benchmarks.accuracy.score import headline
from delineate.config import Duration
from delineate.workflows.evaluate import EvaluateSettings, evaluate
from delineate.workflows.train import train
from delineate.workflows.training_setup import TrainSettings

SPLITS = {"nuclei": "nuclei-0", "camvid": "camvid"}
TURNS = 3  # of the default and the option
TURN_STEPS, WARM_UP = 14, 4


class EnoughError(Exception):
    """Ends a training that was only timed."""


def data_of(dataset: str, work: Path) -> Path:
    """The dataset at half size; written once."""
    folder = work / "data" / f"{dataset}-by-{SHRINK}"
    write_dataset(load_split(SPLITS[dataset]), folder, shrink=SHRINK)
    return folder


def training_data(unit: Unit, work: Path, steps: int) -> Path:
    """What the unit is trained on; for own labels half of the steps are spent here."""
    full = data_of(unit.dataset, work)
    if unit.option.labels == "all":
        return full
    half = labelled_half(full, work / "data" / f"{full.name}-half")
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


def step_s(unit: Unit, option: Option, work: Path) -> float:
    """Median seconds of a few steps; what follows the last is not done."""
    ends: list[float] = []

    def watch(event: Any) -> None:
        if event.kind == "step":
            ends.append(time.perf_counter())
        if len(ends) > TURN_STEPS:
            raise EnoughError

    out = work / "timed"
    changes = {**option.changes, "validations": 1, "seed": unit.seed}
    try:
        train(
            data_of(unit.dataset, work),
            out,
            changes=changes,
            settings=TrainSettings(Duration(steps=10 * TURN_STEPS), force=True),
            watch=watch,
        )
    except EnoughError:
        shutil.rmtree(out)
    gaps = [after - before for before, after in pairwise(ends)]
    return statistics.median(gaps[WARM_UP:])


def relative_step_s(unit: Unit, work: Path) -> tuple[float, float]:
    """Seconds of the option's step, and its ratio to the default's: medians over the turns."""
    pairs = [
        (step_s(unit, OPTIONS[0], work), step_s(unit, unit.option, work)) for _ in range(TURNS)
    ]
    own_s = statistics.median(own for _, own in pairs)
    return own_s, statistics.median(own / default for default, own in pairs)


def run(unit: Unit, work: Path, steps: int) -> dict[str, Any]:
    """Train, time (the first seed alone) and score."""
    bundle = bundle_of(unit if unit.option.tta is None else unit.baseline, work, steps)
    found = evaluate(
        bundle,
        data_of(unit.dataset, work),
        split="test",
        engine="onnxruntime",
        settings=EvaluateSettings(details=False, tta=unit.option.tta),
    )
    result: dict[str, Any] = {
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
    if unit.seed == 0 and unit.option.changes:
        own_s, ratio = relative_step_s(unit, work)
        result |= {"step_s": round(own_s, 4), "step_ratio": round(ratio, 3)}
    return result


def main() -> None:
    name, work, out, steps = sys.argv[1:]
    torch.set_num_threads(THREADS)
    unit = next(unit for unit in units() if unit.name == name)
    unit.keep(run(unit, Path(work), int(steps)), Path(out))


if __name__ == "__main__":
    main()
