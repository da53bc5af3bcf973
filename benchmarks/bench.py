"""Claim: one command shows what a network brings over classical methods, and what it costs.

On the first fold of nuclei (the split of ``benchmarks.accuracy``) the default network is trained
for ten minutes from random weights, every classical method is fitted, and ``delineate bench``
measures all of them on the images that none has seen. Nothing else may run on the machine.

The picture goes to ``docs/images/bench.png``. ``--bundle`` names a network that is there already.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from benchmarks.accuracy.datasets import load_split, write_dataset
from benchmarks.record import ROOT, write
from delineate.bundle.classical import METHODS
from delineate.config import Duration
from delineate.workflows.bench import bench
from delineate.workflows.bench_result import Bench, BenchSettings
from delineate.workflows.fit import FitSettings, fit
from delineate.workflows.train import TrainSettings, train

PICTURE = ROOT / "docs/images/bench.png"
BUDGET_S = 600.0


def tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def bundles(data: Path, work: Path, network: Path | None) -> list[Path]:
    """The network, and every method."""
    if network is None:
        settings = TrainSettings(Duration(budget_s=BUDGET_S), force=True, name="u-net")
        network = train(data, work / "u-net", settings=settings).bundle
    found = [network]
    for method in METHODS:
        out = work / f"{method}.bundle"
        found.append(fit(data, out, method=method, settings=FitSettings(force=True)).bundle)
    return found


def figures(found: Bench) -> dict[str, float]:
    """By contender, with words joined by underscores."""
    rows = {}
    for row in found.to_dict()["contenders"]:
        name = row["name"].replace(" on ", "_").replace("-", "_")
        rows |= {
            f"miou_{name}": round(row["miou"], 4),
            f"p50_ms_{name}": round(row["network_p50_ms"], 2),
            f"images_per_s_{name}": round(row["images_per_s"], 1),
        }
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench", description=__doc__)
    parser.add_argument("--bundle", type=Path, help="a network trained on this fold")
    work = Path(tempfile.gettempdir()) / "bench"
    parser.add_argument("--work", type=Path, default=work, help="folder for data and bundles")
    wanted = parser.parse_args()
    data = wanted.work / "nuclei"
    write_dataset(load_split("nuclei-0"), data)
    found = bench(
        bundles(data, wanted.work, wanted.bundle),
        data,
        out=wanted.work / "bench.html",
        force=True,
        settings=BenchSettings(split="test"),
        tell=tell,
    )
    shutil.copy(found.files["picture"], PICTURE)
    document = found.to_dict()
    document.pop("files")
    for row in document["contenders"]:
        row["bundle"] = Path(row["bundle"]).name
    write(
        "bench",
        "one command shows what a network brings over classical methods, and what it costs",
        figures(found),
        dict.fromkeys(METHODS, "delineate fit"),
        {"bench": document},
    )


if __name__ == "__main__":
    main()
