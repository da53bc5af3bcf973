"""``delineate runs``: several runs side by side, as figures and as a page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from delineate.data.files import write_text
from delineate.errors import SettingsError
from delineate.evaluation.page import Html, escape, join, number, page, scroll, section
from delineate.workflows.run_page import duration, hardware, show
from delineate.workflows.run_plots import PLOT_STYLE, SERIES, Curve, curves_plot, smoothed
from delineate.workflows.run_record import RunRecord, read_run

_STYLE = (
    PLOT_STYLE
    + """
.list td { overflow-wrap: anywhere; }
.list td.top { font-weight: 700; }
.line { display: inline-block; width: 1.1em; height: .22em; margin-right: .5em;
  border-radius: .2em; vertical-align: .25em; }
"""
)


@dataclass(frozen=True)
class Comparison:
    """Runs side by side.

    Attributes:
        names: of the runs, each different.
        records: of the runs, in the order given.
    """

    names: tuple[str, ...]
    records: tuple[RunRecord, ...]

    @cached_property
    def plan_differences(self) -> dict[str, list[Any]]:
        """The settings in which the runs differ: a value for each run, None where it has none."""
        return _differing([record.plan for record in self.records])

    @cached_property
    def hardware_differences(self) -> dict[str, list[Any]]:
        """What of hardware and versions differs: a value for each run."""
        made = []
        for record in self.records:
            known = record.environment
            versions = {"Python": known.get("python"), "Commit": known.get("commit")}
            made.append({**hardware(record), **versions, **known.get("packages", {})})
        return _differing(made)

    @property
    def one_dataset(self) -> bool:
        """Whether all runs saw the same images and masks: else their scores do not compare."""
        hashes = {record.note.get("dataset_sha256") for record in self.records}
        return len(hashes) == 1

    def to_dict(self) -> dict[str, Any]:
        """For JSON; what is undefined or not known is None."""
        return {
            "same_dataset": self.one_dataset,
            "runs": [
                {"name": name, **_figures(record)}
                for name, record in zip(self.names, self.records, strict=True)
            ],
            "plan_differences": self.plan_differences,
            "environment_differences": self.hardware_differences,
        }


def compare_runs(runs: Sequence[Path]) -> Comparison:
    """Read runs to compare.

    Raises:
        SettingsError: a folder holds no run, or is named twice.
    """
    resolved = [path.resolve() for path in runs]
    twice = next((path for path in resolved if resolved.count(path) > 1), None)
    if twice is not None:
        raise SettingsError("is named twice", where=twice, mend="Name each run once.")
    records = tuple(read_run(path) for path in runs)
    return Comparison(_names(resolved), records)


def _names(paths: Sequence[Path]) -> tuple[str, ...]:
    """The last parts of the paths, as many as tell them apart."""
    for parts in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["/".join(path.parts[-parts:]) for path in paths]
        if len(set(names)) == len(names):
            break
    return tuple(names)


def _differing(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: [row.get(name) for row in rows] for name in names}
    return {n: values for n, values in columns.items() if any(v != values[0] for v in values)}


def _figures(record: RunRecord) -> dict[str, Any]:
    step, miou = record.best or (None, None)
    result = record.result
    rates = [row["images_per_s"] for row in record.metrics if row["images_per_s"] is not None]
    return {
        "run": str(record.path),
        "finished": result is not None,
        "best_miou": miou,
        "best_step": step,
        "bundle_miou": None if result is None else result["validation"]["mean_iou"],
        "bundle_dice": None if result is None else result["validation"]["mean_dice"],
        "elapsed_s": round(record.elapsed_s, 2),
        "steps": record.steps,
        "images_per_s": round(sum(rates) / len(rates), 2) if rates else None,
        "wait_share": None if record.wait_share is None else round(record.wait_share, 4),
        "class_iou": record.history[-1].iou if record.history else None,
    }


COLUMNS = (
    "run",
    "done",
    "best mIoU",
    "at step",
    "bundle mIoU",
    "time",
    "steps",
    "images/s",
    "waited",
)


def rows_of(comparison: Comparison) -> list[tuple[str, ...]]:
    """A row of words for each run, under :data:`COLUMNS`; a dash is not known yet."""
    rows: list[tuple[str, ...]] = []
    for run in comparison.to_dict()["runs"]:
        waited = run["wait_share"]
        rows.append(
            (
                run["name"],
                "yes" if run["finished"] else "no",
                _or_dash(run["best_miou"], ".4f"),
                _or_dash(run["best_step"], ",d"),
                _or_dash(run["bundle_miou"], ".4f"),
                duration(run["elapsed_s"]),
                f"{run['steps']:,}",
                _or_dash(run["images_per_s"], ".1f"),
                "-" if waited is None else f"{100 * waited:.1f} %",
            )
        )
    return rows


def _or_dash(value: int | float | None, shape: str) -> str:
    return "-" if value is None else format(value, shape)


def write_comparison(comparison: Comparison, out: Path) -> None:
    """Write the comparison to ``out``: one HTML file that needs no network.

    Raises:
        OutputError: it cannot be written.
    """
    parts = [
        Html(f"<style>{_STYLE}</style>"),
        _overview(comparison),
        _curves(comparison),
        _classes(comparison),
        _differences("Plans", comparison.plan_differences, comparison, "All settings are equal."),
        _differences(
            "Hardware and versions",
            comparison.hardware_differences,
            comparison,
            "All that is known is equal.",
        ),
    ]
    write_text(out, page("Runs compared", join(parts), ", ".join(comparison.names)))


def _colour(index: int) -> str:
    return SERIES[index % len(SERIES)]


def _named(index: int, name: str) -> Html:
    line = f'<span class="line" style="background:{_colour(index)}"></span>'
    return Html(f"{line}{escape(name)}")


def _overview(comparison: Comparison) -> Html:
    heads = join(f'<th scope="col" class="num">{escape(name)}</th>' for name in COLUMNS[1:])
    body = []
    for index, (name, *cells) in enumerate(rows_of(comparison)):
        shown = join(f'<td class="num">{escape(cell)}</td>' for cell in cells)
        body.append(f'<tr><th scope="row">{_named(index, name)}</th>{shown}</tr>')
    table = Html(
        f'<table class="list"><thead><tr><th scope="col">run</th>{heads}</tr></thead>'
        f"<tbody>{join(body)}</tbody></table>"
    )
    warning = Html("") if comparison.one_dataset else Html(f"<strong>{OTHER_DATA}</strong>")
    return section("Scores and time", scroll(table, "Scores and time"), warning)


OTHER_DATA = "The runs were trained on different datasets, so their scores do not compare."


def _curves(comparison: Comparison) -> Html:
    def curves(column: str, x: str, *, smooth: bool) -> list[Curve]:
        scale = 60.0 if x == "elapsed_s" else 1.0
        found = []
        for index, (name, record) in enumerate(
            zip(comparison.names, comparison.records, strict=True)
        ):
            points = [
                (float(row[x] or 0) / scale, float(row[column] or 0))
                for row in record.metrics
                if row[column] is not None and row[column] == row[column]
            ]
            found.append(Curve(name, _colour(index), smoothed(points) if smooth else points))
        return found

    plots = [
        curves_plot(f"{what} over {words}", curves(column, x, smooth=smooth), x_name=unit, top=top)
        for what, column, smooth, top in (
            ("mIoU on val", "val_miou", False, 1.0),
            ("Loss, smoothed,", "loss", True, None),
        )
        for words, x, unit in (("time", "elapsed_s", "min"), ("steps", "step", "step"))
    ]
    intro = "Losses compare only between plans with the same loss."
    return section("Curves", Html(f'<div class="plots">{join(plots)}</div>'), escape(intro))


def _classes(comparison: Comparison) -> Html:
    last = [r.history[-1].iou if r.history else {} for r in comparison.records]
    names = dict.fromkeys(name for row in last for name in row)
    if not names:
        return Html("")
    body = []
    for name in names:
        values = [row.get(name) for row in last]
        known = {value for value in values if value is not None}
        best = max(known) if len(known) > 1 else None
        body.append(
            f'<tr><th scope="row">{escape(name)}</th>{join(_score(v, best) for v in values)}</tr>'
        )
    table = _table(comparison, "class", body)
    intro = "IoU at the last validation; the best of a class is bold."
    return section("Classes", scroll(table, "IoU of each class"), escape(intro))


def _score(value: float | None, best: float | None) -> Html:
    kind = "num top" if value is not None and value == best else "num"
    return Html(f'<td class="{kind}">{number(math.nan if value is None else value)}</td>')


def _differences(
    heading: str, rows: Mapping[str, Sequence[Any]], comparison: Comparison, none: str
) -> Html:
    if not rows:
        return section(heading, Html(f"<p>{escape(none)}</p>"))
    body = [
        f'<tr><th scope="row">{escape(name)}</th>'
        f"{join(f'<td>{escape(show(value))}</td>' for value in values)}</tr>"
        for name, values in rows.items()
    ]
    table = _table(comparison, "", body)
    return section(heading, scroll(table, heading), escape("Only what differs."))


def _table(comparison: Comparison, corner: str, body: Sequence[str]) -> Html:
    kind = ' class="num"' if corner else ""
    heads = join(
        f'<th scope="col"{kind}>{_named(index, name)}</th>'
        for index, name in enumerate(comparison.names)
    )
    return Html(
        f'<table class="list"><thead><tr><th scope="col">{corner}</th>{heads}</tr></thead>'
        f"<tbody>{join(body)}</tbody></table>"
    )
