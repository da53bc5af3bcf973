"""``delineate train --find``: learning rate and batch size before the training begins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from delineate.config import Duration
from delineate.evaluation.page import Html, escape, join, section
from delineate.workflows.dataset_plots import Axis, plot
from delineate.workflows.svg import dot, line, polyline, text

FIND = "find.json"
LONGEST_S = 60.0
BUDGET_SHARE = 0.05
_WIDTH, _HEIGHT = 560.0, 236.0
_COLOUR, _MARK = "#3b82f6", "#e8590c"


def limit_of(duration: Duration) -> float:
    """Seconds that the search may take: a minute, or 5 % of the budget where that is less."""
    if duration.budget_s is None:
        return LONGEST_S
    return min(LONGEST_S, BUDGET_SHARE * duration.budget_s)


def find_section(found: Mapping[str, Any]) -> Html:
    """The part of a run's page about the search.

    Args:
        found: the content of ``find.json``.
    """
    intro = Html(
        f"{escape(found['text'])}. The learning rate rose from step to step; where the smoothed "
        "loss fell fastest is marked, and where it had risen again by half of its fall. Chosen is "
        "the smaller of the first and a tenth of the second (Smith 2017, arXiv:1506.01186)."
    )
    body = join(['<div class="plots">', _ramp_plot(found), _speed_plot(found), "</div>"])
    return section("Learning rate and batch size", body, intro)


def _ramp_plot(found: Mapping[str, Any]) -> Html:
    ramp = found["ramp"]
    if not ramp:
        return Html("")
    start = ramp[0][2]
    lowest = min(smoothed for _, _, smoothed in ramp)
    top = start + 0.5 * max(start - lowest, 0.1 * start)
    x = Axis(ramp[0][0], max(ramp[-1][0], 10 * ramp[0][0]), 54.0, _WIDTH - 24, log=True)
    y = Axis(max(lowest - 0.1 * (top - lowest), 0.0), top, _HEIGHT - 30, 24.0)
    parts: list[str] = []
    for tick in y.ticks():
        parts += [
            line(x.start, y.at(tick), x.end, y.at(tick)),
            text(x.start - 6, y.at(tick) + 4, f"{tick:.3g}", "end"),
        ]
    parts += [text(x.at(tick), _HEIGHT - 10, f"{tick:.0e}", "middle") for tick in x.ticks()]
    raw = [(x.at(rate), y.at(max(loss, y.low))) for rate, loss, _ in ramp if loss <= top]
    smooth = [(x.at(rate), y.at(smoothed)) for rate, _, smoothed in ramp if smoothed <= top]
    parts += [polyline(raw, _COLOUR, width=1.0, opacity=0.35), polyline(smooth, _COLOUR)]
    parts += _marks(found, x, y)
    return plot("Loss over the learning rate", join(parts), _HEIGHT, width=_WIDTH)


def _marks(found: Mapping[str, Any], x: Axis, y: Axis) -> list[str]:
    names = {"steepest": "falls fastest", "diverged": "risen again"}
    parts: list[str] = []
    for key, words in names.items():
        if found[key] is not None:
            at = x.at(found[key])
            parts += [line(at, y.start, at, y.end), text(at, 14.0, words, "middle", faint=True)]
    rate = found["learning_rate"]
    losses = [smoothed for at, _, smoothed in found["ramp"] if at <= rate]
    if losses:
        parts.append(dot(x.at(rate), y.at(losses[-1]), _MARK, f"chosen: {rate:.2g}"))
    return parts


def _speed_plot(found: Mapping[str, Any]) -> Html:
    tried = [(float(size), speed) for size, speed in found["speeds"] if speed is not None]
    if not tried:
        return Html("")
    x = Axis(tried[0][0], max(tried[-1][0], 2 * tried[0][0]), 54.0, _WIDTH - 24, log=True)
    y = Axis(0.0, 1.1 * max(speed for _, speed in tried), _HEIGHT - 30, 24.0)
    parts: list[str] = []
    for tick in y.ticks():
        parts += [
            line(x.start, y.at(tick), x.end, y.at(tick)),
            text(x.start - 6, y.at(tick) + 4, f"{tick:.3g}", "end"),
        ]
    parts += [text(x.at(size), _HEIGHT - 10, f"{size:g}", "middle") for size, _ in tried]
    parts.append(polyline([(x.at(size), y.at(speed)) for size, speed in tried], _COLOUR))
    for size, speed in tried:
        colour = _MARK if size == found["batch_size"] else _COLOUR
        parts.append(dot(x.at(size), y.at(speed), colour, f"{size:g} crops: {speed:.3g} crops/s"))
    return plot("Crops a second over the batch size", join(parts), _HEIGHT, width=_WIDTH)
