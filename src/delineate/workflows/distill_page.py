"""``OUT/report.html`` of a distillation: the student with its teacher, alone, and the teacher."""

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

_TITLES = {"distilled": "the student with its teacher", "alone": "the student alone"}


def write_distill_page(path: Path, *, title: str, document: Mapping[str, Any]) -> None:
    """Write the page of a distillation: whole or not at all.

    Args:
        path: the file.
        title: heading of the page.
        document: the content of ``distill.json``.
    """
    body = join([_cards(document), _trainings(document), _classes(document)])
    write_text(path, page(title, body, document["verdict"]))


def _cards(document: Mapping[str, Any]) -> Html:
    found, gain, teacher = document["trainings"], document["gain"], document["teacher"]
    cards = [
        card("mean IoU with the teacher", _miou(found["distilled"]), "of the student on val"),
    ]
    if gain is not None:
        note = f"{100 * gain['low']:+.1f} to {100 * gain['high']:+.1f}"
        cards.append(card("mean IoU alone", _miou(found["alone"]), "in the same time"))
        cards.append(card("the teacher brought", Html(f"{100 * gain['value']:+.1f} points"), note))
    miou = teacher["mean_iou"]
    cards.append(
        card("the teacher itself", number(float("nan") if miou is None else miou), teacher["name"])
    )
    return join(['<div class="cards">', *cards, "</div>"])


def _miou(training: Mapping[str, Any]) -> Html:
    value = training["validation"]["mean_iou"]
    return number(float("nan") if value is None else value)


def _trainings(document: Mapping[str, Any]) -> Html:
    rows = []
    for name, found in document["trainings"].items():
        miou = found["validation"]["mean_iou"]
        rows.append(
            f'<tr><th><a href="{name}/report.html">{escape(_TITLES[name])}</a></th>'
            f"{bar_cell(float('nan') if miou is None else miou)}"
            f'<td class="num">{found["steps"]:,}</td>'
            f'<td class="num">{found["elapsed_s"]:.0f} s</td></tr>'
        )
    table = Html(
        '<table class="list"><thead><tr><th>training</th><th class="num">mean IoU</th>'
        f'<th class="num">steps</th><th class="num">time</th></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>"
    )
    intro = Html(
        "Both had the same time, or number of steps. With a teacher a step takes longer, so in the "
        "same time there are fewer."
    )
    return section("The trainings", scroll(table, "The trainings"), intro)


def _classes(document: Mapping[str, Any]) -> Html:
    missing = document["teacher"]["classes_it_does_not_know"]
    if not missing:
        return Html("")
    words = f"The teacher does not know {', '.join(missing)}; these are learnt from labels alone."
    return section("Classes", Html(f"<p>{escape(words)}</p>"))
