"""What a step costs: ``python -m benchmarks.ablation.timing DATASET WORK OUT``.

All options take turns in this process, round by round, and each is compared with the default of
its round; nothing else may run on the machine.
"""

from __future__ import annotations

import shutil
import statistics
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.ablation.options import BASELINE, Unit, units
from benchmarks.ablation.unit import data_of
from delineate.config import Duration
from delineate.workflows.train import train
from delineate.workflows.training_setup import TrainSettings

ROUNDS = 3
STEPS, WARM_UP = 14, 4


class EnoughError(Exception):
    """Ends a training that was only timed."""


def untimed(dataset: str, kept: Path) -> list[Unit]:
    """The units whose step is still to be timed: the first seed of what changes the plan."""
    return [unit for unit in timed(dataset) if "step_ratio" not in (unit.result(kept) or {})]


def timed(dataset: str) -> list[Unit]:
    """The units that have a step of their own, by one seed each, the default left out."""
    own = [unit for unit in units() if unit.dataset == dataset and unit.seed == 0]
    return [unit for unit in own if unit.option.changes]


def step_s(unit: Unit, work: Path) -> float:
    """Median seconds of a few steps; what follows the last is not done."""
    ends: list[float] = []

    def watch(event: Any) -> None:
        if event.kind == "step":
            ends.append(time.perf_counter())
        if len(ends) > STEPS:
            raise EnoughError

    out = work / "timed"
    changes = {**unit.option.changes, "validations": 1, "seed": unit.seed}
    try:
        train(
            data_of(unit.dataset, work),
            out,
            changes=changes,
            settings=TrainSettings(Duration(steps=10 * STEPS), force=True),
            watch=watch,
        )
    except EnoughError:
        shutil.rmtree(out)
    gaps = [after - before for before, after in pairwise(ends)]
    return statistics.median(gaps[WARM_UP:])


def main() -> None:
    dataset, work, out = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    default = next(u for u in units() if u.dataset == dataset and u.option.name == BASELINE)
    wanted = untimed(dataset, out)
    rounds = [{unit: step_s(unit, work) for unit in (default, *wanted)} for _ in range(ROUNDS)]
    for unit in wanted:
        result = unit.result(out)
        assert result is not None, f"{unit.name} has not been trained"
        seconds = statistics.median(each[unit] for each in rounds)
        ratio = statistics.median(each[unit] / each[default] for each in rounds)
        unit.keep({**result, "step_s": round(seconds, 4), "step_ratio": round(ratio, 3)}, out)
        print(f"{unit.name}: {ratio:.3f} times the step of the default")


if __name__ == "__main__":
    main()
