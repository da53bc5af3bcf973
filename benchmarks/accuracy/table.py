"""The figures and the table of all units that are there."""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.accuracy.units import BUDGET_S, EXTRA_PEERS, FOLDS, PEERS, claimed, extra
from benchmarks.record import ROOT, write

PAGE = ROOT / "docs" / "explanation" / "accuracy.md"
TTA = "delineate, --tta"  # not a training of its own
METRIC = {"nuclei": "dice", "camvid": "miou"}
NUMBERED = {"nuclei": "fold", "camvid": "seed"}
CLAIM = (
    "in the same time on the same two cores, from random weights, delineate's default reaches a "
    "higher score than nnU-Net v2 2D and the published example of segmentation-models-pytorch"
)
PEER_NAMES = {
    "delineate": "`delineate train` with nothing but `--budget`; its export is inside the time",
    TTA: "the same network, its answers averaged over mirrored views (and turned ones, nuclei)",
    "nnunet": "nnU-Net v2 2D by its own planner, iterations reduced to the time; planning, "
    "preprocessing and prediction (mirrored, its default) outside the time",
    "smp": "segmentation-models-pytorch's example notebooks (FPN), batches of 8, with "
    "delineate's augmentation, cosine over the time; prediction outside the time",
    "smp-unet": "the same with the library's example for CPUs: U-Net on ResNet-34",
}

Results = Mapping[str, Mapping[str, Any]]


def read(kept: Path) -> dict[str, dict[str, Any]]:
    """Every result that is there, by the name of its unit.

    Raises:
        RuntimeError: two results of one split saw other files, or other processors.
    """
    found: dict[str, dict[str, Any]] = {}
    splits: dict[str, tuple[str, tuple[str, str]]] = {}
    for unit in [*claimed(), *extra()]:
        result = unit.result(kept)
        if result is None:
            continue
        own = (result["split_sha256"], result["processor"])
        name, other = splits.setdefault(unit.split, (unit.name, own))
        if own != other:
            raise RuntimeError(
                f"{unit.name} and {name} were trained on other files or processors; delete the "
                f"older of them in {kept} and run it again"
            )
        found[unit.name] = result
    return found


def scores(results: Results, dataset: str, peer: str) -> dict[int, float]:
    """The score of each fold or seed that is there."""
    trained = "delineate" if peer == TTA else peer
    names = (name.split("/") for name in results)
    numbers = sorted(int(n) for d, n, p in names if (d, p) == (dataset, trained))
    found = {n: results[f"{dataset}/{n}/{trained}"] for n in numbers}
    if peer == TTA:
        return {n: result["tta"]["score"] for n, result in found.items() if "tta" in result}
    return {n: result["score"] for n, result in found.items()}


def figures(results: Results) -> dict[str, float]:
    """Mean scores where every fold or seed is there, and each unit's score, steps and time."""
    flat: dict[str, float] = {}
    wanted = [unit.name for unit in claimed()]
    for dataset, metric in METRIC.items():
        for peer in (*PEERS, TTA, *EXTRA_PEERS):
            there = scores(results, dataset, peer)
            trained = "delineate" if peer == TTA else peer
            count = sum(name.startswith(f"{dataset}/") and name.endswith(f"/{trained}")
                        for name in wanted)  # fmt: skip
            if len(there) == (count or (FOLDS if dataset == "nuclei" else 1)):
                name = f"{metric}_{_word(peer)}_{dataset}"
                flat[name] = round(statistics.fmean(there.values()), 4)
    for name, result in results.items():
        dataset, number, peer = name.split("/")
        place = f"{dataset}_{NUMBERED[dataset]}{number}"
        end = f"{_word(peer)}_{place}"
        flat[f"{METRIC[dataset]}_{end}"] = round(result["score"], 4)
        if "tta" in result:
            flat[f"{METRIC[dataset]}_{_word(TTA)}_{place}"] = round(result["tta"]["score"], 4)
        flat[f"steps_{end}"] = result["steps"]
        flat[f"wall_s_{end}"] = result["wall_s"]
    return flat


def _word(peer: str) -> str:
    return peer.replace(", --", "_").replace("-", "_")


def table(results: Results) -> str:
    """A Markdown table: a row for each unit, the means last."""
    heads = ("data", "fold or seed", "peer", "score", "steps", "seconds", "processor")
    rows = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    for name, result in results.items():
        dataset, number, peer = name.split("/")
        steps, wall_s, chip = result["steps"], result["wall_s"], result["processor"]
        row = (dataset, number, peer, f"{result['score']:.4f}", steps, wall_s, chip)
        rows.append("| " + " | ".join(str(cell) for cell in row) + " |")
        if "tta" in result:
            rows.append(f"| {dataset} | {number} | {TTA} | {result['tta']['score']:.4f} | | | |")
    for dataset in METRIC:
        for peer in (*PEERS, TTA, *EXTRA_PEERS):
            there = list(scores(results, dataset, peer).values())
            if len(there) > 1:
                spread = f"{statistics.fmean(there):.4f} ± {statistics.stdev(there):.4f}"
                rows.append(f"| {dataset} | mean of {len(there)} | {peer} | {spread} | | | |")
    return "\n".join(rows)


def class_table(results: Results) -> str:
    """IoU of each class on CamVid: a row for each class, a column for each unit."""
    there = {name: result for name, result in results.items() if name.startswith("camvid/")}
    if not there:
        return "No unit of CamVid has run yet."
    heads = [f"{peer}, seed {number}" for _, number, peer in (name.split("/") for name in there)]
    classes: Sequence[str] = list(next(iter(there.values()))["iou"])
    rows = ["| class | " + " | ".join(heads) + " |", "|" + " --- |" * (len(heads) + 1)]
    for label in classes:
        cells = [_cell(result["iou"][label]) for result in there.values()]
        rows.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def update_page(page: Path, tables: Mapping[str, str]) -> None:
    """Replace what lies between ``<!-- NAME -->`` and ``<!-- end of NAME -->`` in ``page``."""
    text = page.read_text()
    for name, table_text in tables.items():
        start, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        pattern = re.compile(f"{re.escape(start)}.*?{re.escape(end)}", re.DOTALL)
        text, count = pattern.subn(lambda _: f"{start}\n{table_text}\n{end}", text)  # noqa: B023
        if count != 1:
            raise RuntimeError(f"{page} has no place {start}")
    page.write_text(text)


def publish(kept: Path) -> None:
    """Write ``accuracy.json`` and the tables of the page."""
    results = read(kept)
    peers = {peer: PEER_NAMES[peer] for peer in PEER_NAMES if _has(results, peer)}
    details = {"budget_s": BUDGET_S, "units": results}
    write("accuracy", CLAIM, figures(results), peers, details)
    update_page(PAGE, {"units": table(results), "classes": class_table(results)})


def _has(results: Results, peer: str) -> bool:
    if peer == TTA:
        return any("tta" in result for result in results.values())
    return any(name.endswith(f"/{peer}") for name in results)
