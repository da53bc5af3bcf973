"""The page of a bench: the table, and a plot of any two figures, drawn by Plotly in the browser."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from delineate.evaluation.page import (
    Html,
    card,
    escape,
    interactive_page,
    join,
    number,
    scroll,
    section,
)

# key, words, what its value is divided by, and whether more is better
COSTS = (
    ("network_p95_ms", "p95 of the network, ms", 1, False),
    ("network_p50_ms", "p50 of the network, ms", 1, False),
    ("network_p99_ms", "p99 of the network, ms", 1, False),
    ("end_to_end_p95_ms", "p95 from file to mask, ms", 1, False),
    ("images_per_s", "images/s at saturation", 1, True),
    ("peak_bytes", "peak memory of a process, MB", 2**20, False),
    ("file_bytes", "size on disk, MB", 2**20, False),
    ("start_s", "start-up, s", 1, False),
    ("joules_per_image", "joules for an image", 1, False),
)
SCORES = (("miou", "mean IoU"), ("dice", "mean Dice"), ("boundary_iou", "boundary IoU"))

Rows = Sequence[Mapping[str, Any]]


def bench_page(document: Mapping[str, Any]) -> Html:
    """The page as text; it needs nothing from outside, Plotly's script included.

    Args:
        document: as :meth:`delineate.workflows.bench_result.Bench.to_dict` gives it.
    """
    from plotly.offline import get_plotlyjs

    rows: Rows = document["contenders"]
    words = join([f"<p>{escape(sentence)}</p>" for sentence in document["verdict"]])
    height, width = rows[0]["image_hw"]
    body = join(
        [
            _cards(document),
            section("What it says", words),
            section("Any two figures", _plot(), _plot_intro()),
            section("Contenders", _table(document), _table_intro(document, height, width)),
            _left_out(document["left_out"]),
        ]
    )
    title = f"Bench on {document['dataset']}, {document['split']}"
    subtitle = f"{document['images']} images, {document['device']}"
    nonce = secrets.token_hex(16)
    scripts = (get_plotlyjs(), _script(document))
    return interactive_page(title, body, subtitle, scripts=scripts, nonce=nonce)


def _cards(document: Mapping[str, Any]) -> Html:
    rows: Rows = document["contenders"]
    best = rows[0]
    fastest = min(rows, key=lambda row: row["network_p95_ms"])
    busiest = max(rows, key=lambda row: row["images_per_s"])
    cards = [
        card("most accurate", number(_or_nan(best["miou"])), best["name"]),
        card("fastest, p95", Html(f"{fastest['network_p95_ms']:.1f} ms"), fastest["name"]),
        card("most images/s", Html(f"{busiest['images_per_s']:.1f}"), busiest["name"]),
    ]
    return join(['<div class="cards">', *cards, "</div>"])


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else float(value)


def _plot_intro() -> Html:
    return Html(
        "Orange: nothing is better in both. The dashed line is the budget, where there is one. "
        "Point at a dot for its name and figures; drag to look closer, click twice to come back."
    )


def _plot() -> Html:
    return Html(
        '<div class="card"><p class="choices"><label>up <select id="up"></select></label> '
        '<label>across <select id="across"></select></label></p>'
        '<div id="plot" style="height:26rem"></div></div>'
    )


def _table_intro(document: Mapping[str, Any], height: int, width: int) -> Html:
    energy = f" No joules: {escape(document['no_energy'])}." if document["no_energy"] else ""
    return Html(
        f"One image of {height} x {width} px (height x width) in turns of random order. p50, p95, "
        "p99: milliseconds of the network alone, from pixels to labels. File to mask: with "
        "decoding, tiles and encoding. Images/s: at saturation, by the best of one call, several "
        "at a time, and batches. Memory and start-up: of a process that does nothing else. "
        "Behind: mean IoU less that of the first, in points, with its 95 % interval over images."
        + energy
    )


def _table(document: Mapping[str, Any]) -> Html:
    heads = ["mIoU", "behind", "Dice", "boundary", "p50", "p95", "p99", "file to mask p95"]
    heads += ["images/s", "memory", "start-up", "disk"]
    if not document["no_energy"]:
        heads.append("joules")
    head = "<th>contender</th>" + "".join(f'<th class="num">{name}</th>' for name in heads)
    lines = [_line(row, document) for row in document["contenders"]]
    body = join(
        [f'<table class="list"><thead><tr>{head}</tr></thead><tbody>', *lines, "</tbody></table>"]
    )
    return scroll(body, "contenders")


def _line(row: Mapping[str, Any], document: Mapping[str, Any]) -> Html:
    cells = [
        number(_or_nan(row["miou"])),
        _behind(row["behind_best"]),
        number(_or_nan(row["dice"])),
        number(_or_nan(row["boundary_iou"])),
        *(f"{row[f'network_p{q}_ms']:.1f}" for q in (50, 95, 99)),
        f"{row['end_to_end_p95_ms']:.1f}",
        f"{row['images_per_s']:.1f}",
        "–" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 2**20:.0f} MB",
        "–" if row["start_s"] is None else f"{row['start_s']:.1f} s",
        f"{row['file_bytes'] / 2**20:.1f} MB",
    ]
    if not document["no_energy"]:
        joules = row["joules_per_image"]
        cells.append("–" if joules is None else f"{joules:.3g}")
    name = escape(row["name"])
    if row["name"] in document["front"]:
        name = Html(f"<strong>{name}</strong>")
    numbers = "".join(f'<td class="num">{cell}</td>' for cell in cells)
    return Html(f'<tr><td style="white-space:nowrap">{name}</td>{numbers}</tr>')


def _behind(found: Mapping[str, Any] | None) -> str:
    if found is None or found["difference"] is None or None in found["interval"]:
        return "–"
    low, high = found["interval"]
    return f"{100 * found['difference']:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def _left_out(left_out: Mapping[str, str]) -> Html:
    if not left_out:
        return Html("")
    lines = [
        f"<tr><td>{escape(name)}</td><td>{escape(why)}</td></tr>" for name, why in left_out.items()
    ]
    body = join(
        [
            '<table class="list"><thead><tr><th>contender</th><th>why not</th></tr></thead><tbody>',
            *lines,
            "</tbody></table>",
        ]
    )
    return section("What does not run here", body)


def _script(document: Mapping[str, Any]) -> str:
    rows: Rows = document["contenders"]
    costs = [cost for cost in COSTS if any(row[cost[0]] is not None for row in rows)]
    data = {
        "rows": [
            {name: row[name] for name in ("name", *(c[0] for c in costs), *(s[0] for s in SCORES))}
            for row in rows
        ],
        "costs": costs,
        "scores": SCORES,
        "budget": document["p95_ms"],
    }
    # no text can end the script it stands in
    return _DRAW.replace("DATA", json.dumps(data).replace("<", "\\u003c"))


_DRAW = """
const data = DATA;
const up = document.getElementById("up"), across = document.getElementById("across");
for (const [box, items] of [[up, data.scores], [across, data.costs]])
  items.forEach(([key, words], i) => box.add(new Option(words, i)));
function front(points, more) {
  const order = [...points].sort((a, b) => (more ? b.x - a.x : a.x - b.x) || b.y - a.y);
  const found = [];
  for (const p of order) if (!found.length || p.y > found[found.length - 1].y) found.push(p);
  return found;
}
function draw() {
  const [score, scoreWords] = data.scores[up.value];
  const [cost, costWords, unit, more] = data.costs[across.value];
  const points = data.rows
    .filter(row => row[score] !== null && row[cost] !== null)
    .map(row => ({x: row[cost] / unit, y: row[score], name: row.name}));
  const best = front(points, more), xs = points.map(p => p.x);
  const ink = getComputedStyle(document.body).color;
  const grid = "rgba(128,128,128,.2)";
  const low = Math.min(...xs), high = Math.max(...xs);
  const ticks = [];
  for (let power = -6; power < 13; power++)
    for (const step of [1, 2, 5])
      if (step * 10 ** power > low / 3 && step * 10 ** power < 3 * high)
        ticks.push(step * 10 ** power);
  const budget = cost === "network_p95_ms" && data.budget !== null
    ? [{type: "line", x0: data.budget, x1: data.budget, yref: "paper", y0: 0, y1: 1,
        line: {color: "#e8590c", width: 1, dash: "dash"}}]
    : [];
  const trace = (list, extra) =>
    ({x: list.map(p => p.x), y: list.map(p => p.y), text: list.map(p => p.name),
      hovertemplate: "%{text}<br>%{x:.4g}, %{y:.4f}<extra></extra>", ...extra});
  const others = points.filter(p => !best.includes(p));
  Plotly.react("plot", [
    trace(others, {mode: "markers", marker: {size: 9, color: "#4c6ef5"}}),
    trace(best, {mode: "lines+markers+text", textposition: "top center",
                 line: {color: "rgba(128,128,128,.6)", width: 1.5},
                 marker: {size: 10, color: "#e8590c"}}),
  ], {
    showlegend: false, margin: {l: 60, r: 20, t: 20, b: 50}, font: {color: ink},
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", hovermode: "closest",
    shapes: budget, modebar: {bgcolor: "rgba(0,0,0,0)"},
    xaxis: {title: {text: costWords}, gridcolor: grid, zeroline: false,
            ...(low > 0 && high > 8 * low
              ? {type: "log", tickvals: ticks, ticktext: ticks.map(t => String(+t.toPrecision(1)))}
              : {type: "linear"})},
    yaxis: {title: {text: scoreWords}, gridcolor: grid, zeroline: false},
  }, {responsive: true, displaylogo: false});
}
up.onchange = across.onchange = draw;
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
draw();
"""
