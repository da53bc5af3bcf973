"""Claim: an option that costs complexity helps within a short training, or is off by default.

Every unit (dataset, option, seed) is a training of 300 steps at half size, in a process of its
own. A unit that has a result in ``results/ablation`` is not run again. ``--list`` shows what is
there, ``--only nuclei/ema`` runs the units whose names begin so.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.ablation import table
from benchmarks.ablation.options import KEPT, STEPS, Unit, units
from benchmarks.accuracy.process import UnitError, python, run


def run_missing(wanted: list[Unit], work: Path, kept: Path, steps: int) -> list[str]:
    """Run what has no result yet; gives the names of the units that died."""
    died = []
    for unit in wanted:
        if unit.result(kept) is not None:
            continue
        began = time.monotonic()
        print(f"{unit.name}: begun", flush=True)
        log = work / "logs" / f"{unit.name.replace('/', '-')}.txt"
        command = [python(), "-m", "benchmarks.ablation.unit", unit.name, work, kept]
        try:
            run([*command, str(steps)], log)
        except UnitError as error:
            died.append(unit.name)
            print(error)
        else:
            result = unit.result(kept) or {}
            print(f"{unit.name}: {result['score']:.4f} in {time.monotonic() - began:.0f} s")
    return died


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
