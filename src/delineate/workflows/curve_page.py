"""``OUT/report.html`` of a learning curve: the curve, the verdict and the trainings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from delineate.data.files import write_text
from delineate.evaluation.page import (
    Html,
    bar_cell,
    card,
    escape,
    join,
    number,
    page,
    scroll,
    section,
)
from delineate.workflows.dataset_plots import Axis, plot
from delineate.workflows.svg import dot, line, polyline, text

_WIDTH, _HEIGHT = 720.0, 340.0
_MEASURED, _FIT, _LARGER = "#3b82f6", "#868e96", "#e8590c"
_TITLES = {
    "quarter": "a quarter of train",
    "half": "half of train",
    "full": "all of train",
    "larger": "all of train, larger network",
}


def write_curve_page(path: Path, *, title: str, document: Mapping[str, Any]) -> None:
    """Write the page of a learning curve: whole or not at all.

    Args:
        path: the file.
        title: heading of the page.
        document: the content of ``curve.json``.
    """
    intro = Html(
        "Dots are trainings, with the 95 % interval over the images of val. The line is the "
        "median of the power laws that fit them, the band the middle 95 %, with the luck of a "
        "training counted in. To the right of the last dot it is a forecast."
    )
    body = join(
        [
            _cards(document),
            section("Mean IoU over the number of training images", _curve(document), intro),
            _trainings(document),
        ]
    )
    write_text(path, page(title, body, document["verdict"]))


def _cards(document: Mapping[str, Any]) -> Html:
    labels, network = document["labels"], document["network"]
    doubled, gain = labels["doubled"], labels["gain"]
    full = labels["measured"][-1]
    cards = [
        card("mean IoU now", number(full["value"]), f"{labels['images'][-1]:,} training images"),
        card(
            "with twice the labels",
            number(doubled["value"]),
            f"{doubled['low']:.3f} to {doubled['high']:.3f}",
        ),
        card("gain of twice the labels", _points(gain["value"]), _range(gain)),
    ]
    if network is not None:
        note = f"{network['name']}: {_range(network['gain'])}"
        cards.append(card("gain of a larger network", _points(network["gain"]["value"]), note))
    return join(['<div class="cards">', *cards, "</div>"])


def _points(gain: float) -> Html:
    return Html(f"{100 * gain:+.1f} points")


def _range(gain: Mapping[str, float]) -> str:
    return f"{100 * gain['low']:+.1f} to {100 * gain['high']:+.1f}"


def _curve(document: Mapping[str, Any]) -> Html:
    labels, network = document["labels"], document["network"]
    curve, measured = labels["curve"], labels["measured"]
    ends = [each[side] for each in (*curve, *measured) for side in ("low", "high")]
    low, high = min(ends), max(ends)
    room = max(0.05 * (high - low), 0.01)
    x = Axis(0.9 * labels["sizes"][0], 1.1 * labels["sizes"][-1], 60.0, _WIDTH - 30, log=True)
    y = Axis(max(low - room, 0.0), min(high + room, 1.0), _HEIGHT - 52, 20.0)
    parts: list[str] = [_axes(labels, x, y)]
    places = [(x.at(float(n)), each) for n, each in zip(labels["sizes"], curve, strict=True)]
    band = [(at, y.at(each["high"])) for at, each in places]
    band += [(at, y.at(each["low"])) for at, each in reversed(places)]
    outline = " ".join(f"{a:.1f},{b:.1f}" for a, b in band)
    parts.append(f'<polygon points="{outline}" fill="{_FIT}" fill-opacity=".18"/>')
    parts.append(polyline([(at, y.at(each["value"])) for at, each in places], _FIT))
    for n, each in zip(labels["images"], measured, strict=True):
        tip = f"{n:,} images: mIoU {each['value']:.3f} ({each['low']:.3f} to {each['high']:.3f})"
        at = x.at(float(n))
        ends_at = [(at, y.at(each["low"])), (at, y.at(each["high"]))]
        parts += [polyline(ends_at, _MEASURED), dot(at, y.at(each["value"]), _MEASURED, tip)]
    keys = [("measured", _MEASURED), ("power law", _FIT)]
    if network is not None:
        value = measured[-1]["value"] + network["gain"]["value"]
        tip = f"{network['name']}: mIoU {value:.3f}"
        parts.append(dot(x.at(float(labels["images"][-1])), y.at(value), _LARGER, tip))
        keys.append(("larger network", _LARGER))
    parts.append(_keys(keys))
    return plot("Mean IoU on val", join(parts), _HEIGHT, width=_WIDTH)


def _axes(labels: Mapping[str, Any], x: Axis, y: Axis) -> Html:
    parts: list[str] = []
    for tick in y.ticks():
        parts += [
            line(x.start, y.at(tick), x.end, y.at(tick)),
            text(x.start - 8, y.at(tick) + 4, f"{tick:.3g}", "end"),
        ]
    last = labels["images"][-1]
    for n in (*labels["images"], 2 * last, 4 * last):
        at = x.at(float(n))
        parts += [
            line(at, y.start, at, y.end),
            text(at, y.start + 18, f"{n:,}", "middle", faint=n > last),
        ]
    parts.append(text((x.start + x.end) / 2, _HEIGHT - 8, "training images", "middle", faint=True))
    return join(parts)


def _keys(keys: list[tuple[str, str]]) -> Html:
    parts: list[str] = []
    for row, (name, colour) in enumerate(keys):
        at = 34.0 + 18 * row
        parts += [dot(72.0, at - 4, colour, name), text(82.0, at, name, "start")]
    return join(parts)


def _trainings(document: Mapping[str, Any]) -> Html:
    rows = []
    for name in ("quarter", "half", "full", "larger"):
        found = document["trainings"].get(name)
        if found is None:
            continue
        missing = ", ".join(document["missing_classes"].get(name, ())) or "–"
        miou = found["validation"]["mean_iou"]
        rows.append(
            f'<tr><th><a href="{name}/report.html">{escape(_TITLES[name])}</a></th>'
            f'<td class="num">{found["images"]:,}</td>'
            f"{bar_cell(float('nan') if miou is None else miou)}"
            f'<td class="num">{found["steps"]:,}</td>'
            f'<td class="num">{found["elapsed_s"]:.0f} s</td><td>{escape(missing)}</td></tr>'
        )
    table = Html(
        '<table class="list"><thead><tr><th>training</th><th class="num">images</th>'
        '<th class="num">mean IoU</th><th class="num">steps</th><th class="num">time</th>'
        f"<th>classes it lacks</th></tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )
    intro = Html("Each had the same time, or number of steps, and was scored on the same val.")
    return section("The trainings", scroll(table, "The trainings"), intro)
