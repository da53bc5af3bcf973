"""Claim: networks that fit a budget can be ranked before they are trained on the data at hand.

Each candidate of ``delineate plan`` is trained from random weights, for two numbers of steps, on
the sequence split of CamVid and on the first fold of nuclei, and scored on what was held out. The
heavy ones see images at half their resolution, the light ones whole. Trainings go by steps, so
their scores do not depend on what else the machine does. A unit that has a row is not run again;
the rows are the package's own table, ``src/delineate/planning/measured.json``, by which plan ranks.

``--list`` shows the units, ``--only camvid/fpn`` runs those whose names begin so.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from benchmarks.accuracy.datasets import load_split, write_dataset
from benchmarks.accuracy.process import THREADS
from delineate.config import Duration, ModelSettings, Plan, load_yaml
from delineate.data.dataset import Dataset
from delineate.data.masks import read_mask
from delineate.planning.candidates import FAMILIES, LOGITS_STRIDE, candidate
from delineate.planning.ceilings import STRIDES, stride_ceilings
from delineate.planning.prior import CROP_PIXELS
from delineate.workflows.evaluate import EvaluateSettings, evaluate
from delineate.workflows.train import train
from delineate.workflows.training_setup import TrainSettings

TABLE = Path(__file__).parents[1] / "src/delineate/planning/measured.json"
STEPS = {"camvid": (200, 600), "nuclei-0": (100, 300)}
_WRITING = Lock()
LIGHT = ("fast-scnn", "ddrnet-23-slim")  # and whatever stands on MobileNet-V2


@dataclass(frozen=True)
class Unit:
    """A training: which network, on what, for how many steps."""

    dataset: str
    model: ModelSettings
    steps: int

    @property
    def name(self) -> str:
        words = candidate(self.model).name.replace(" ", "-").replace("/", "").lower()
        return f"{self.dataset}/{words}/{self.steps}"


def units() -> list[Unit]:
    """The short trainings of all come first."""
    found = [
        Unit(dataset, model, steps)
        for dataset, lengths in STEPS.items()
        for model in models()
        for steps in lengths
    ]
    return sorted(found, key=lambda unit: unit.steps != STEPS[unit.dataset][0])


def models() -> list[ModelSettings]:
    found = []
    for family in FAMILIES:
        light = family.architecture in LIGHT or family.encoder == "mobilenet_v2"
        found.append(candidate(family.model_copy(update={"downscale": 1 if light else 2})).model)
    return found


def data_of(dataset: str, work: Path) -> Path:
    """Its folder; written once."""
    folder = work / "data" / dataset
    write_dataset(load_split(dataset), folder)
    return folder


def ceiling(data: Path, stride: int) -> float:
    """Of the test part, as for a fingerprint."""
    dataset = Dataset.open(data)
    masks = (read_mask(s.mask) for s in dataset.split("test") if s.mask is not None)
    values = stride_ceilings(masks, len(dataset.info.classes))[STRIDES.index(stride)]
    known = [float(value) for value in values if value == value]
    return sum(known) / len(known)


def run(unit: Unit, work: Path) -> dict[str, Any]:
    """Train and score."""
    data = data_of(unit.dataset, work)
    changes: dict[str, Any] = {
        f"model.{name}": value for name, value in unit.model.model_dump().items()
    }
    changes["model.deep_supervision"] = unit.model.architecture == "ddrnet-23-slim"
    out = work / "runs" / unit.name.replace("/", "-")
    settings = TrainSettings(Duration(steps=unit.steps), force=True, canary=False)
    made = train(data, out, changes={**changes, "validations": 2}, settings=settings)
    scores = evaluate(
        made.bundle, data, split="test", settings=EvaluateSettings(details=False)
    ).scores
    plan = load_yaml(made.run / "plan.yaml", Plan)
    stride = LOGITS_STRIDE[unit.model.architecture] * unit.model.downscale
    return {
        "model": unit.model.model_dump(mode="json"),
        "dataset": unit.dataset,
        "ceiling": round(ceiling(data, stride), 4),
        "crops": round(unit.steps * plan.batch_size * plan.crop_px**2 / CROP_PIXELS, 1),
        "miou": round(scores.mean_iou, 4),
        "steps": unit.steps,
        "commit": commit(),
    }


def commit() -> str:
    """The commit that is measured; the table that grows meanwhile is no change."""
    git = ["git", "-C", str(TABLE.parent)]
    name = subprocess.run(
        [*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()
    others = [":/", f":(exclude,top){TABLE.relative_to(Path(__file__).parents[1])}"]
    changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", *others], check=False)
    return f"{name}+changes" if changed.returncode else name


def table() -> dict[str, Any]:
    if not TABLE.exists():
        return {"made_by": "python -m benchmarks.candidates", "trainings": {}}
    found: dict[str, Any] = json.loads(TABLE.read_text())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.candidates",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", default="", help="how the names of the units begin")
    parser.add_argument("--list", action="store_true", help="show what is there")
    parser.add_argument("--one", help="run this unit here, and print its row")
    work = Path(tempfile.gettempdir()) / "candidates"
    parser.add_argument("--work", type=Path, default=work, help="folder for datasets and runs")
    wanted = parser.parse_args()
    if wanted.one is not None:
        unit = next(unit for unit in units() if unit.name == wanted.one)
        print(json.dumps(run(unit, wanted.work)))
        return
    rows = table()["trainings"]
    if wanted.list:
        for unit in units():
            row = rows.get(unit.name)
            print(f"{unit.name:48}" + ("to do" if row is None else f"{row['miou']:.4f}"))
        return
    missing = [u for u in units() if u.name not in rows and u.name.startswith(wanted.only)]
    for dataset in {unit.dataset for unit in missing}:
        data_of(dataset, wanted.work)
    # two at a time with a thread each: no score depends on it, and it takes less time
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(lambda unit: keep(unit, wanted.work), missing))


def keep(unit: Unit, work: Path) -> None:
    """Run a unit in a process of its own with one thread, and write its row."""
    command = [sys.executable, "-m", "benchmarks.candidates", "--one", unit.name]
    done = subprocess.run(
        [*command, "--work", str(work)],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
    )
    if done.returncode != 0:
        print(f"{unit.name}: died with {done.returncode}")
        return
    row = json.loads(done.stdout.splitlines()[-1])
    with _WRITING:
        found = table()
        found["trainings"][unit.name] = row
        TABLE.write_text(json.dumps(found, indent=1) + "\n")
    print(f"{unit.name}: {row['miou']:.4f}", flush=True)


if __name__ == "__main__":
    main()
