"""Claim: at equal time delineate's default scores higher than nnU-Net and smp's example.

Equal time on the same two cores, from random weights, in the arithmetic each takes by itself.
Nuclei: 3 folds, 10 minutes each, foreground Dice. CamVid: trained without sequence 0006R0 and
scored on it, 30 minutes each, mIoU over 11 classes; delineate with two seeds.

A unit that has a result in ``results/accuracy`` is not run again: an interrupted benchmark goes
on where it stopped. ``--list`` shows what is there, ``--only nuclei/0/nnunet`` runs one unit,
``--only camvid/0/smp-unet`` one of the further peers. Nothing else may run on the machine.
"""

from __future__ import annotations

import argparse
import math
import shutil
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.accuracy import delineate_peer, nnunet, smp, table
from benchmarks.accuracy.datasets import Split, load_split, write_dataset
from benchmarks.accuracy.process import UnitError, warm_up
from benchmarks.accuracy.score import headline, score
from benchmarks.accuracy.units import KEPT, Unit, claimed, extra
from benchmarks.record import commit, processor
from delineate.errors import DelineateError


def train_and_predict(unit: Unit, data: Path, work: Path, budget_s: float) -> dict[str, Any]:
    """The unit's training; label maps of the test images are in ``work/predictions`` then."""
    log = work / "log.txt"
    match unit.peer:
        case "delineate":
            views = delineate_peer.VIEWS[unit.dataset]
            return delineate_peer.train_and_predict(data, work, budget_s, unit.seed, log, views)
        case "nnunet":
            return nnunet.train_and_predict(data, work, budget_s, log)
        case _:
            return smp.train_and_predict(data, work, budget_s, unit.seed, log, unit.peer)


def run(unit: Unit, root: Path, kept: Path, budget_s: float) -> None:
    """Run one unit from scratch and keep its result."""
    split: Split = load_split(unit.split)
    data = root / "data" / unit.split
    write_dataset(split, data)
    work = root / unit.name
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    found = train_and_predict(unit, data, work, budget_s)
    masks = data / "test" / "masks"
    scores = score(work / "predictions", masks, split.info)
    if "tta" in found:
        averaged = score(work / delineate_peer.AVERAGED, masks, split.info)
        found["tta"]["score"] = headline(averaged)
    result = {
        "unit": unit.name,
        "metric": "foreground Dice" if len(split.info.classes) == 2 else "mIoU",
        "score": headline(scores),
        "budget_s": budget_s,
        **found,
        "iou": {
            name: None if math.isnan(iou) else iou
            for name, iou in zip(scores.classes, scores.iou, strict=True)
        },
        "images": {part: len(getattr(split, part)) for part in ("train", "val", "test")},
        "split_sha256": split.sha256(),
        "processor": processor(),
        "commit": commit(),
        "date": datetime.now(UTC).date().isoformat(),
    }
    unit.keep(result, kept)
    print(f"{unit.name}: {result['score']:.4f}, {found['steps']} steps, {found['wall_s']} s")


def show(kept: Path) -> None:
    """What is there, and how long the rest takes."""
    missing_s = 0.0
    for unit in [*claimed(), *extra()]:
        result = unit.result(kept)
        if result is not None:
            said = f"{result['score']:.4f}  {result['steps']} steps  {result['wall_s']:.0f} s"
        elif unit in claimed():
            said = f"to do, about {unit.left_s / 60:.0f} min"
            missing_s += unit.left_s
        else:
            said = "runs when it is named with --only"
        print(f"{unit.name:24}{said}")
    print(f"left: about {missing_s / 60:.0f} min")


def run_missing(units: list[Unit], root: Path, kept: Path, seconds: float | None) -> list[str]:
    """Run what has no result yet; gives the names of the units that died."""
    died = []
    missing = [unit for unit in units if unit.result(kept) is None]
    if missing:
        warm_up(root / "warm-up.txt")
    for unit in missing:
        began = time.monotonic()
        print(f"{unit.name}: begun {datetime.now():%H:%M}", flush=True)
        try:
            run(unit, root, kept, unit.budget_s if seconds is None else seconds)
        except (UnitError, DelineateError) as error:
            died.append(unit.name)
            print(f"{unit.name}: failed after {time.monotonic() - began:.0f} s\n{error}")
    return died


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy", description=__doc__)
    parser.add_argument("--only", action="append", help="a unit, as in --list; may be repeated")
    parser.add_argument("--list", action="store_true", help="show what is there and what is left")
    work = Path(tempfile.gettempdir()) / "accuracy"
    parser.add_argument("--work", type=Path, default=work, help="folder for datasets and runs")
    tried = "another budget, to try the benchmark out; keeps no result"
    parser.add_argument("--try", type=float, dest="seconds", metavar="SECONDS", help=tried)
    return parser.parse_args()


def main() -> None:
    wanted = _arguments()
    kept = KEPT if wanted.seconds is None else wanted.work / "tried"
    if wanted.list:
        show(kept)
        return
    known = {unit.name: unit for unit in [*claimed(), *extra()]}
    unknown = [name for name in wanted.only or [] if name not in known]
    if unknown:
        sys.exit(f"there is no unit {', '.join(unknown)}; there are: {', '.join(known)}")
    units = [known[name] for name in wanted.only] if wanted.only else claimed()
    if wanted.seconds is not None:
        shutil.rmtree(kept, ignore_errors=True)
    died = run_missing(units, wanted.work, kept, wanted.seconds)
    if wanted.seconds is None and table.read(kept):
        table.publish(kept)
    if died:
        sys.exit(f"no result: {', '.join(died)}")


if __name__ == "__main__":
    main()
