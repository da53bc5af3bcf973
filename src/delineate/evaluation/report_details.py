"""Sections of a report beyond the confusion matrix: comparison, calibration, single objects."""

from __future__ import annotations

import math

from delineate.evaluation.calibration import CalibrationScores
from delineate.evaluation.comparison import Comparison, Difference
from delineate.evaluation.details import Details
from delineate.evaluation.instances import InstanceScores
from delineate.evaluation.intervals import Interval, Intervals
from delineate.evaluation.page import (
    Html,
    bar_cell,
    card,
    escape,
    join,
    number,
    scroll,
    section,
)

# The plot's inside, in the units of its view box
_SIDE = 300
_LEFT, _TOP, _RIGHT, _BELOW = 48, 12, 12, 44


def range_text(interval: Interval | None) -> str:
    """``0.51 to 0.57``; nothing where the score or its interval is undefined."""
    if interval is None or math.isnan(interval[0]):
        return ""
    return f"{interval[0]:.2f} to {interval[1]:.2f}"


def intervals_note(intervals: Intervals) -> str:
    """What the intervals are, in a line."""
    return (
        f"{100 * intervals.level:.0f} % intervals: bootstrap over {intervals.units:,} "
        f"{intervals.unit}, {intervals.resamples:,} draws"
    )


def detail_cards(details: Details) -> Html:
    """Headline figures of what was measured."""
    cards = []
    if details.boundary is not None:
        share = 100 * details.boundary.width_share
        note = f"within {share:g} % of the diagonal"
        cards.append(card("Boundary IoU", number(details.boundary.mean_iou), note))
    if details.calibration is not None:
        error = number(details.calibration.error)
        cards.append(card("Calibration error", error, "expected, 0 is best"))
    if details.instances is not None:
        found = details.instances
        note = f"AP 0.5 {found.mean(found.ap50):.3f}"
        cards.append(card("Panoptic quality", number(found.mean(found.pq)), note))
    return join(cards)


def comparison_section(comparison: Comparison) -> Html:
    """Both scores, their difference and its interval."""
    named = {"Mean IoU": comparison.mean_iou, "Mean Dice": comparison.mean_dice}
    named |= {
        f"IoU of {name}": found
        for name, found in zip(comparison.scores.classes, comparison.iou, strict=True)
    }
    rows = [_difference_row(name, found) for name, found in named.items()]
    table = Html(
        '<table class="list"><thead><tr><th scope="col">Score</th>'
        f'<th scope="col" class="num">{escape(comparison.a)}</th>'
        f'<th scope="col" class="num">{escape(comparison.b)}</th>'
        '<th scope="col" class="num">Difference, points</th>'
        '<th scope="col" class="num">95 % interval</th>'
        '<th scope="col" class="num">Draws in which the second is better</th></tr></thead>\n'
        f"<tbody>{join(rows)}</tbody></table>"
    )
    intro = (
        f"{comparison.verdict()}. Both were scored on the same images; the interval is a paired "
        f"bootstrap over {comparison.units:,} {comparison.unit}, {comparison.resamples:,} draws."
    )
    return section("Comparison", scroll(table, "Comparison of two models"), escape(intro))


def _difference_row(name: str, found: Difference) -> Html:
    low, high = found.interval
    undefined = math.isnan(low)
    text = "–" if undefined else f"{100 * low:+.1f} to {100 * high:+.1f}"
    share = "–" if math.isnan(found.share_better) else f"{100 * found.share_better:.0f} %"
    gap = "–" if math.isnan(found.value) else f"{100 * found.value:+.1f}"
    shown = f"<strong>{gap}</strong>" if found.clear else gap
    return Html(
        f'<tr><th scope="row">{escape(name)}</th><td class="num">{number(found.a)}</td>'
        f'<td class="num">{number(found.b)}</td><td class="num">{shown}</td>'
        f'<td class="num">{text}</td><td class="num">{share}</td></tr>\n'
    )


def instance_section(found: InstanceScores, images: int) -> Html:
    """Panoptic quality and average precision of each class that has objects."""
    rows = [
        f'<tr><th scope="row">{escape(found.classes[i])}</th>{bar_cell(found.pq[i])}'
        f"{bar_cell(found.sq[i])}{bar_cell(found.rq[i])}{bar_cell(found.ap50[i])}"
        f'{bar_cell(found.ap[i])}<td class="num">{found.true_objects[i]:,}</td>'
        f'<td class="num">{found.predicted_objects[i]:,}</td></tr>\n'
        for i in found.scored
    ]
    heads = ("PQ", "SQ", "RQ", "AP 0.5", "AP 0.5:0.95", "True objects", "Predicted")
    columns = join([f'<th scope="col" class="num">{head}</th>' for head in heads])
    means = join(
        [
            f'<td class="num">{number(found.mean(values))}</td>'
            for values in (found.pq, found.sq, found.rq, found.ap50, found.ap)
        ]
    )
    table = Html(
        f'<table class="list"><thead><tr><th scope="col">Class</th>{columns}</tr></thead>\n'
        f'<tbody>{join(rows)}</tbody><tfoot><tr><th scope="row">Mean</th>{means}'
        "<td></td><td></td></tr></tfoot></table>"
    )
    some = "" if found.images == images else f" {found.images:,} of {images:,} images have them."
    intro = (
        "A predicted object is a connected region of its class, so two that touch are one. PQ is "
        "panoptic quality, SQ times RQ; AP is that of the 2018 Data Science Bowl, found / (found "
        f"+ falsely claimed + missed) objects, averaged over the images.{some}"
    )
    return section("Objects", scroll(table, "Scores of objects"), escape(intro))


def calibration_section(found: CalibrationScores) -> Html:
    """A reliability diagram: how often a label is right, by how sure the network was."""
    rows = [
        f'<tr><td class="num">{100 * c:.1f} %</td><td class="num">{100 * a:.1f} %</td>'
        f'<td class="num">{100 * s:.2f} %</td></tr>\n'
        for c, a, s in zip(found.confidence, found.accuracy, found.share, strict=True)
        if s > 0
    ]
    table = Html(
        '<table class="list"><thead><tr><th scope="col" class="num">Mean confidence</th>'
        '<th scope="col" class="num">Labels that are right</th>'
        f'<th scope="col" class="num">Pixels</th></tr></thead><tbody>{join(rows)}</tbody></table>'
    )
    box = scroll(table, "Bins of confidence")
    body = Html(f'<div class="pair">{_diagram(found)}<div class="rest">{box}</div></div>')
    intro = (
        "Is a label right as often as the network is sure of it? Bars on the dashed line: yes; "
        "below it, the network is too sure; above it, not sure enough. The expected calibration "
        f"error, {found.error:.3f}, is the mean distance from the line over all pixels; darker "
        "bars hold more of them."
    )
    return section("Calibration", body, escape(intro))


def _diagram(found: CalibrationScores) -> Html:
    bins = len(found.share)
    most = max(found.share)
    bars, width = [], _SIDE / bins
    for i, (accuracy, share) in enumerate(zip(found.accuracy, found.share, strict=True)):
        if not share > 0:
            continue
        height = accuracy * _SIDE
        opacity = 0.25 + 0.75 * math.sqrt(share / most)
        bars.append(
            f'<rect x="{_LEFT + i * width + 1:.1f}" y="{_TOP + _SIDE - height:.1f}" '
            f'width="{width - 2:.1f}" height="{height:.1f}" fill-opacity="{opacity:.2f}">'
            f"<title>{100 * share:.2f} % of the pixels, {100 * accuracy:.1f} % right</title></rect>"
        )
    marks = []
    for i in range(0, 6):
        at = _SIDE * i / 5
        marks.append(
            f'<text x="{_LEFT + at:.0f}" y="{_TOP + _SIDE + 18}" text-anchor="middle">'
            f'{20 * i}</text><text x="{_LEFT - 8}" y="{_TOP + _SIDE - at + 4:.0f}" '
            f'text-anchor="end">{20 * i}</text>'
        )
    middle = _TOP + _SIDE / 2
    return Html(
        f'<svg class="reliability" viewBox="0 0 {_LEFT + _SIDE + _RIGHT} {_TOP + _SIDE + _BELOW}" '
        'role="img" aria-label="Reliability diagram">'
        f'<rect class="frame" x="{_LEFT}" y="{_TOP}" width="{_SIDE}" height="{_SIDE}"></rect>'
        f'<g class="bars">{join(bars)}</g><path class="ideal" d="M{_LEFT} {_TOP + _SIDE}'
        f'L{_LEFT + _SIDE} {_TOP}"></path>{join(marks)}'
        f'<text x="{_LEFT + _SIDE / 2}" y="{_TOP + _SIDE + 38}" text-anchor="middle">'
        "confidence, %</text>"
        f'<text x="14" y="{middle}" text-anchor="middle" transform="rotate(-90 14 {middle})">'
        "right labels, %</text></svg>"
    )
