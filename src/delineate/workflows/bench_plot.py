"""The picture of a bench: accuracy over latency, with the front, as a PNG."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

FRONT, OTHER, LINE = "#e8590c", "#4c6ef5", "#adb5bd"
LOGARITHMIC = 8.0  # times as slow as the fastest, from which on the axis is logarithmic


def bench_plot(document: Mapping[str, Any]) -> bytes:
    """The PNG.

    Args:
        document: as :meth:`delineate.workflows.bench_result.Bench.to_dict` gives it.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = [row for row in document["contenders"] if row["miou"] is not None]
    front = [row for name in document["front"] for row in rows if row["name"] == name]
    figure = Figure(figsize=(9.0, 5.4), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    if len(front) > 1:
        xs, ys = _places(front)
        axes.plot(xs, ys, color=LINE, linewidth=1.4, zorder=1)
    for row in rows:
        chosen = row["name"] in document["front"]
        x, y = row["network_p95_ms"], row["miou"]
        low, high = row["miou_interval"] or (None, None)
        if low is not None and high is not None:
            axes.plot([x, x], [low, high], color=FRONT if chosen else OTHER, alpha=0.35, zorder=1)
        axes.plot([x], [y], "o", color=FRONT if chosen else OTHER, markersize=6, zorder=2)
        axes.annotate(
            row["name"],
            (x, y),
            xytext=(7, 6 if chosen else -12),
            textcoords="offset points",
            fontsize=8.5,
            color="#212529" if chosen else "#868e96",
        )
    times = [row["network_p95_ms"] for row in rows]
    if times and max(times) > LOGARITHMIC * min(times):
        axes.set_xscale("log")
        steps = [step * 10.0**power for power in range(-4, 7) for step in (1, 2, 5)]
        axes.set_xticks([x for x in steps if min(times) / 2 < x < 2 * max(times)])
        axes.minorticks_off()
    if times:
        left, right = axes.get_xlim()
        axes.set_xlim(left, right * 1.5 if axes.get_xscale() == "log" else right * 1.25)
    budget_ms = document["p95_ms"]
    if budget_ms is not None:
        axes.axvline(budget_ms, color=FRONT, linestyle="--", linewidth=1, zorder=0)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("p95 of one image, ms (network alone)")
    axes.set_ylabel("mean IoU, with its 95 % interval")
    axes.set_title(f"{document['dataset']}, {document['split']}: {document['images']} images")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _places(rows: Sequence[Mapping[str, Any]]) -> tuple[list[float], list[float]]:
    return [row["network_p95_ms"] for row in rows], [row["miou"] for row in rows]
