"""Plots of a run: curves over steps and minutes, scores of classes over time, where time went."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from delineate.data.palette import Colour
from delineate.evaluation.page import Html, escape, join, number, swatch
from delineate.training.history import HistoryRow
from delineate.workflows.dataset_plots import Axis, plot
from delineate.workflows.svg import dot, line, polyline, text

PLOT_STYLE = """
.plots { display: grid; gap: 1rem; align-items: start;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 27rem), 1fr)); }
.plot { margin: 0; padding: .8rem 1rem; background: var(--card); border: 1px solid var(--line);
  border-radius: .6rem; break-inside: avoid; }
.plot figcaption { font-weight: 600; margin-bottom: .3rem; overflow-wrap: anywhere; }
.plot svg { display: block; width: 100%; height: auto; }
.heat td { text-align: right; padding: .3rem .6rem; min-width: 3.4rem;
  border: 1px solid var(--card);
  background: color-mix(in srgb, var(--right) calc(var(--v, 0) * 62%), var(--card)); }
.heat th, .heat td { white-space: nowrap; }
.heat thead th { padding: .4rem .6rem; text-align: right; font-size: .8125rem; font-weight: 500;
  color: var(--muted); }
.heat tbody th { padding: .3rem .9rem; text-align: left; font-weight: 500; }
.heat .edge { background: none; border-left: 2px solid var(--line); }
.heat .top { font-weight: 700; }
.heat tfoot th { padding: .3rem .9rem; text-align: left; }
.heat tfoot td { font-weight: 600; }
.timebar { display: flex; height: 1.9rem; border-radius: .45rem; overflow: hidden; gap: 1px; }
.timebar span { min-width: 2px; }
"""

SERIES = (
    "#3b82f6",
    "#e8590c",
    "#2f9e44",
    "#ae3ec9",
    "#e03131",
    "#0c8599",
    "#f08c00",
    "#868e96",
)
"""Colours of curves, told apart on light and dark paper."""

_TIMES = {
    "step": ("forward, backward and update", "#3b82f6"),
    "wait": ("waiting for data", "#e03131"),
    "validation": ("validation", "#2f9e44"),
    "checkpoint": ("checkpoints", "#f08c00"),
    "page": ("this page", "#ae3ec9"),
    "export": ("export and report", "#0c8599"),
    "other": ("reading the data at the start, and the rest", "#868e96"),
}
_WIDTH, _HEIGHT = 560.0, 236.0
_LETTER_PX = 6.8
_MOST_POINTS = 300  # of one curve; more are averaged, so that the page stays small
_MOST_COLUMNS = 12  # validations in the table of classes
_FEW = 40  # a curve with so many points shows each
_OUTLIER = 3.0  # times what 98 % of the values stay below: then the rest is drawn at the top

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Curve:
    """One line of a plot: (x, y) in order of x; a faint one lies behind the others."""

    name: str
    colour: str
    points: Points
    faint: bool = False


def curves_plot(
    title: str,
    curves: Sequence[Curve],
    *,
    x_name: str,
    minutes: Points = (),
    top: float | None = None,
) -> Html:
    """Curves over one axis from 0; nothing where there is no point.

    Args:
        title: with the unit of y.
        curves: those that are empty are left out.
        x_name: what x counts, ``step`` or ``min``.
        minutes: (x, minutes) in order of x, for a second row of ticks.
        top: end of the y axis; by the values when left out.
    """
    drawn = [curve for curve in curves if curve.points]
    if not drawn:
        return Html("")
    high = _top([y for curve in drawn for _, y in curve.points]) if top is None else top
    if any(y > high * 1.001 for curve in drawn for _, y in curve.points):
        title += f", drawn up to {high:.3g}"
    x_most = max(curve.points[-1][0] for curve in drawn)
    bottom = 40.0 if minutes else 26.0
    x = Axis(0.0, max(x_most, 1e-9), 54.0, _WIDTH - 40)
    y = Axis(0.0, max(high, 1e-12), _HEIGHT - bottom, 34.0)
    keys = _keys(drawn) if len(drawn) > 1 else Html("")
    parts = [_grid(x, y, x_name), _minute_ticks(x, minutes), keys]
    for curve in sorted(drawn, key=lambda curve: not curve.faint):
        places = [(x.at(a), y.at(b)) for a, b in thinned(curve.points)]
        faint = {"width": 1.0, "opacity": 0.35} if curve.faint else {}
        parts.append(polyline(places, curve.colour, **faint))
        if not curve.faint and len(curve.points) <= _FEW:
            parts += [
                dot(x.at(a), y.at(b), curve.colour, f"{curve.name} {b:.4g} at {a:,.4g} {x_name}")
                for a, b in curve.points
            ]
    return plot(title, join(parts), _HEIGHT, width=_WIDTH)


def _top(values: list[float]) -> float:
    """The end of an axis for ``values``: a few that are far off do not flatten the rest."""
    most = max(values)
    usual = sorted(values)[int(0.98 * (len(values) - 1))]
    return 1.05 * (usual if 0 < usual * _OUTLIER < most else most)


def thinned(points: Points) -> Points:
    """At most 300 of the points, each the mean of its neighbours; the last one stays."""
    if len(points) <= _MOST_POINTS:
        return points
    stride = math.ceil(len(points) / (_MOST_POINTS - 1))
    groups = [points[first : first + stride] for first in range(0, len(points), stride)]
    means = [(sum(a for a, _ in g) / len(g), sum(b for _, b in g) / len(g)) for g in groups]
    return [*means, points[-1]]


def smoothed(points: Points) -> list[tuple[float, float]]:
    """Exponential moving average over a twentieth of the points, without a bias to its start."""
    decay = 1 - 2 / (max(5.0, len(points) / 20) + 1)
    total = weight = 0.0
    found = []
    for a, b in points:
        total, weight = decay * total + b, decay * weight + 1
        found.append((a, total / weight))
    return found


def _grid(x: Axis, y: Axis, x_name: str) -> Html:
    parts = [line(x.start, y.at(t), x.end, y.at(t)) for t in y.ticks()]
    parts += [text(x.start - 6, y.at(t) + 4, f"{t:.4g}", "end") for t in y.ticks()]
    parts += [line(x.at(t), y.end, x.at(t), y.start) for t in x.ticks()]
    parts += [text(x.at(t), y.start + 16, f"{t:,.4g}", "middle") for t in x.ticks()]
    return join([*parts, text(x.end + 36, y.start + 16, x_name, "end")])


def _minute_ticks(x: Axis, minutes: Points) -> Html:
    """A second row: the minutes that had gone by at each tick of steps."""
    if not minutes:
        return Html("")
    parts = [text(x.end + 36, _HEIGHT - 8, "min", "end", faint=True)]
    digits = 1 if minutes[-1][1] < 100 else 0
    for tick in x.ticks():
        shown = f"{_between(minutes, tick):.{digits}f}"
        parts.append(text(x.at(tick), _HEIGHT - 8, shown, "middle", faint=True))
    return join(parts)


def _between(points: Points, at: float) -> float:
    """The value of the broken line through ``points`` and (0, 0) at ``at``."""
    right = bisect_left(points, (at, -math.inf))
    if right == len(points):
        return points[-1][1]
    (x0, y0), (x1, y1) = points[right - 1] if right else (0.0, 0.0), points[right]
    return y1 if x1 == x0 else y0 + (y1 - y0) * (at - x0) / (x1 - x0)


def _keys(curves: Sequence[Curve]) -> Html:
    parts, left = [], 54.0
    for curve in curves:
        faint = 0.45 if curve.faint else 1.0
        if left + 30 + _LETTER_PX * len(curve.name) > _WIDTH:
            parts.append(text(left, 20.0, "…", "start"))
            break
        parts.append(polyline([(left, 16.0), (left + 18, 16.0)], curve.colour, opacity=faint))
        parts.append(text(left + 24, 20.0, curve.name, "start"))
        left += 42 + _LETTER_PX * len(curve.name)
    return join(parts)


def class_table(history: Sequence[HistoryRow], colours: Mapping[str, Colour]) -> Html:
    """IoU of each class at up to twelve validations, shaded by value; the best of a row is bold.

    Args:
        history: at least one validation.
        colours: of the classes by name; those that are missing get no square.
    """
    rows = _spread(history)
    heads = join(f'<th scope="col">{row.step:,}</th>' for row in rows)
    minutes = join(f"<th>{row.elapsed_s / 60:.1f} min</th>" for row in rows)
    body = []
    for one in history[-1].scores["classes"]:
        name = one["name"]
        share = "–" if one["true_share"] is None else f"{100 * one['true_share']:.2g} %"
        mark = swatch(colours[name]) if name in colours else ""
        values = [row.iou[name] for row in rows]
        body.append(
            f'<tr><th scope="row">{mark}{escape(name)}</th>{_shaded(values)}'
            f'<td class="edge">{share}</td></tr>\n'
        )
    return Html(
        '<table class="heat"><thead><tr><th scope="col" style="text-align:left">step</th>'
        f'{heads}<th scope="col">true pixels</th></tr><tr><th></th>{minutes}<th></th></tr></thead>'
        f"<tbody>{join(body)}</tbody><tfoot><tr><th>mean</th>{_shaded([r.miou for r in rows])}"
        '<td class="edge"></td></tr></tfoot></table>'
    )


def _spread(history: Sequence[HistoryRow]) -> list[HistoryRow]:
    """At most twelve rows, evenly spread, first and last among them."""
    if len(history) <= _MOST_COLUMNS:
        return list(history)
    last = _MOST_COLUMNS - 1
    return [history[round(i * (len(history) - 1) / last)] for i in range(_MOST_COLUMNS)]


def _shaded(values: Sequence[float | None]) -> Html:
    best = max((value for value in values if value is not None), default=None)
    cells = []
    for value in values:
        kind = ' class="top"' if value is not None and value == best and len(values) > 1 else ""
        shown = number(math.nan if value is None else value)
        cells.append(f'<td{kind} style="--v:{value or 0:.3f}">{shown}</td>')
    return join(cells)


def time_bar(seconds: Mapping[str, float]) -> Html:
    """A bar of where the time went and its legend.

    Args:
        seconds: by the names of :class:`Validation`, and ``export``; others stand for themselves.
    """
    total = sum(seconds.values())
    if total <= 0:
        return Html("")
    order = {name: place for place, name in enumerate(_TIMES)}
    parts, keys = [], []
    for name, value in sorted(seconds.items(), key=lambda one: order.get(one[0], len(order))):
        label, colour = _TIMES.get(name, (name, "#868e96"))
        shown = f"{label}: {value:,.1f} s, {100 * value / total:.1f} %"
        if value > 0:
            width = f"flex:{value / total:.5f} 1 0;background:{colour}"
            parts.append(f'<span style="{width}" title="{escape(shown)}"></span>')
        keys.append(
            f'<li><span class="swatch" style="background:{colour}"></span>{escape(shown)}</li>'
        )
    return Html(
        f'<div class="timebar" role="img" aria-label="Where the time went">{join(parts)}</div>'
        f'<ul class="legend" style="margin-top:.75rem">{join(keys)}</ul>'
    )
