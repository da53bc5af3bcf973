"""Claim: an option that costs complexity helps within a short training, or is off by default.

Every unit (dataset, option, seed) is a training of 300 steps in a process of its own. A unit that
has a result in ``results/ablation`` is not run again. ``--list`` shows what is there,
``--only nuclei/ema`` runs the units whose names begin so.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.ablation import table, timing
from benchmarks.ablation.options import DATASETS, KEPT, STEPS, Unit, units
from benchmarks.ablation.pseudo import labelled_half
from benchmarks.ablation.unit import data_of, half_of
from benchmarks.accuracy.process import THREADS, UnitError, python, run


def run_missing(wanted: list[Unit], work: Path, kept: Path, steps: int) -> list[str]:
    """Run what has no result yet, then time steps; gives the names of the units that died.

    Trainings go by steps, so two at a time with a thread each do no harm and take less time than
    one after the other; what evaluates a training of others waits for them.
    """
    for dataset in DATASETS:
        labelled_half(data_of(dataset, work), half_of(dataset, work))
    missing = [unit for unit in wanted if unit.result(kept) is None]
    died = []
    for tta in (False, True):
        some = [unit for unit in missing if (unit.option.tta is not None) is tta]
        with ThreadPoolExecutor(THREADS) as pool:
            ran = pool.map(lambda unit: _run(unit, work, kept, steps), some)
            died += [unit.name for unit, well in zip(some, ran, strict=True) if not well]
    for dataset in DATASETS:
        if timing.untimed(dataset, kept) and all(u.result(kept) for u in timing.timed(dataset)):
            command = [python(), "-m", "benchmarks.ablation.timing", dataset, work, kept]
            run(command, work / "logs" / f"{dataset}-timing.txt")
    return died


def _run(unit: Unit, work: Path, kept: Path, steps: int) -> bool:
    """One unit in a process of its own with one thread; whether it went well."""
    began = time.monotonic()
    command = [python(), "-m", "benchmarks.ablation.unit", unit.name, work, kept, str(steps)]
    log = work / "logs" / f"{unit.name.replace('/', '-')}.txt"
    try:
        run(command, log, {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"})
    except UnitError as error:
        print(f"{unit.name}: {error}", flush=True)
        return False
    score = (unit.result(kept) or {})["score"]
    print(f"{unit.name}: {score:.4f} in {time.monotonic() - began:.0f} s", flush=True)
    return True


def show(kept: Path) -> None:
    """What is there."""
    for unit in units():
        result = unit.result(kept)
        print(f"{unit.name:44}" + ("to do" if result is None else f"{result['score']:.4f}"))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ablation", description=__doc__)
    parser.add_argument("--only", action="append", help="how the names of the units begin")
    parser.add_argument("--list", action="store_true", help="show what is there")
    work = Path(tempfile.gettempdir()) / "ablation"
    parser.add_argument("--work", type=Path, default=work, help="folder for datasets and runs")
    tried = "another number, to try the benchmark out; keeps no result"
    parser.add_argument("--try", type=int, dest="steps", metavar="STEPS", help=tried)
    wanted = parser.parse_args()
    kept = KEPT if wanted.steps is None else wanted.work / "tried"
    if wanted.list:
        show(kept)
        return
    begins = tuple(wanted.only or ("",))
    chosen = [unit for unit in units() if unit.name.startswith(begins)]
    if not chosen:
        sys.exit(f"no unit begins with {' or '.join(begins)}; see --list")
    if wanted.steps is not None:
        shutil.rmtree(kept, ignore_errors=True)
    died = run_missing(chosen, wanted.work, kept, wanted.steps or STEPS)
    if wanted.steps is None and table.read(kept):
        table.publish(kept)
    if died:
        sys.exit(f"no result: {', '.join(died)}")


if __name__ == "__main__":
    main()
