"""``ablation.json`` and the page of the documentation that shows it."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.ablation.options import BASELINE, DATASETS, OPTIONS, SEEDS, STEPS, units
from benchmarks.record import ROOT, write

PAGE = ROOT / "docs" / "explanation" / "ablation.md"
CLAIM = "what does not help within a short training is off by default"
HEAD = f"""# What each option is worth

Short trainings of {STEPS} steps with {len(SEEDS)} seeds, from random weights, each with one change
of the default plan. *nuclei*: points of foreground Dice on the first fold; *camvid*: points of mIoU
over 11 classes on sequence 0006R0, which is not trained on. The numbers are the difference from
the default with the same seed: the mean, and each seed's in parentheses. A difference smaller than
the gap between the seeds shows nothing. *step* is the time of a step over that of the default.

`python -m benchmarks.ablation` writes this page.
"""

Results = Mapping[str, Mapping[str, Any]]


def read(kept: Path) -> dict[str, dict[str, Any]]:
    """Every result that is there, by the name of its unit."""
    found = {unit.name: unit.result(kept) for unit in units()}
    return {name: result for name, result in found.items() if result is not None}


def gains(results: Results, dataset: str, option: str) -> dict[int, float]:
    """Points above the default of the same seed, for each seed that both have."""
    of = {(r["dataset"], r["option"], r["seed"]): float(r["score"]) for r in results.values()}
    return {
        seed: 100 * (of[dataset, option, seed] - of[dataset, BASELINE, seed])
        for seed in SEEDS
        if (dataset, option, seed) in of and (dataset, BASELINE, seed) in of
    }


def figures(results: Results) -> dict[str, float]:
    """The default's score, each option's mean gain in points and the ratio of its steps."""
    flat: dict[str, float] = {}
    for result in results.values():
        name = result["unit"].rsplit("/", 1)[0].replace("/", "_")
        if result["option"] == BASELINE:
            flat[f"score_{name}_seed{result['seed']}"] = round(result["score"], 4)
            continue
        points = gains(results, result["dataset"], result["option"])
        if points:
            flat[f"points_{name}"] = round(statistics.fmean(points.values()), 2)
        if "step_ratio" in result:
            flat[f"step_ratio_{name}"] = result["step_ratio"]
    return flat


def page(results: Results) -> str:
    """The Markdown page."""
    heads = [head for dataset in DATASETS for head in (dataset, f"step, {dataset}")]
    rows = ["| option | " + " | ".join(heads) + " |", "|" + " --- |" * (len(heads) + 1)]
    rows.append(f"| default (score) | {' | '.join(_default(results, d) for d in DATASETS)} |")
    for option in OPTIONS[1:]:
        cells = [cell for d in DATASETS for cell in _cells(results, d, option.name)]
        rows.append(f"| {option.name} | {' | '.join(cells)} |")
    return HEAD + "\n" + "\n".join(rows) + "\n"


def _default(results: Results, dataset: str) -> str:
    chosen = [r for r in results.values() if (r["dataset"], r["option"]) == (dataset, BASELINE)]
    return ", ".join(f"{r['score']:.4f}" for r in chosen) + " | 1"


def _cells(results: Results, dataset: str, option: str) -> tuple[str, str]:
    points = gains(results, dataset, option)
    if not points:
        return "", ""
    each = ", ".join(f"{value:+.1f}" for value in points.values())
    gain = f"{statistics.fmean(points.values()):+.1f} ({each})"
    chosen = (r for r in results.values() if (r["dataset"], r["option"]) == (dataset, option))
    ratio = next((r["step_ratio"] for r in chosen if "step_ratio" in r), None)
    return gain, "" if ratio is None else f"{ratio:.2f}"


def publish(kept: Path) -> None:
    """Write both."""
    results = read(kept)
    details = {"steps": STEPS, "units": results}
    write("ablation", CLAIM, figures(results), {}, details)
    PAGE.write_text(page(results))
