"""``OUT/report.html`` of a cross-validation: scores by fold and class."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path

from delineate.data.files import write_text
from delineate.data.palette import Colour
from delineate.evaluation.evaluate import Evaluation
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
    swatch,
)
from delineate.evaluation.scores import Scores
from delineate.workflows.parts import Done


def write_folds_page(
    path: Path,
    *,
    title: str,
    evaluation: Evaluation,
    done: Sequence[Done],
    colours: Sequence[Colour],
) -> None:
    """Write the page of a cross-validation: whole or not at all.

    Args:
        path: the file.
        title: heading of the page.
        evaluation: of all images together.
        done: the folds.
        colours: of the classes.
    """
    body = join([_cards(evaluation, done), _classes(evaluation.scores, done, colours), _runs(done)])
    write_text(path, page(title, body, "cross-validation on the images of train and val"))


def _cards(evaluation: Evaluation, done: Sequence[Done]) -> Html:
    scores, intervals = evaluation.scores, evaluation.details.intervals
    folds = [each.evaluation.scores.mean_iou for each in done]
    known = [miou for miou in folds if not math.isnan(miou)]  # nothing is labelled in some folds
    noted = ""
    if intervals is not None:
        low, high = intervals.mean_iou
        noted = f"95 % interval {low:.3f} to {high:.3f} over {intervals.units} {intervals.unit}"
    spread = f"standard deviation {statistics.stdev(known):.3f}" if len(known) > 1 else ""
    ends = f"{min(known):.3f} to {max(known):.3f}" if known else "–"
    return join(
        [
            '<div class="cards">',
            card("mean IoU, all images", number(scores.mean_iou), noted),
            card("mean Dice, all images", number(scores.mean_dice)),
            card("folds, mean IoU", Html(ends), spread),
            card("images", Html(f"{evaluation.n_images:,}"), "each scored once"),
            "</div>",
        ]
    )


def _classes(scores: Scores, done: Sequence[Done], colours: Sequence[Colour]) -> Html:
    folds = [each.evaluation.scores for each in done]
    head = join([f'<th class="num">{escape(each.part.folder)}</th>' for each in done])
    rows = [
        f"<tr><th>{swatch(colours[i])}{escape(name)}</th>{bar_cell(scores.iou[i])}"
        + "".join(bar_cell(fold.iou[i]) for fold in folds)
        + "</tr>"
        for i, name in enumerate(scores.classes)
    ]
    means = "".join(f'<td class="num">{number(fold.mean_iou)}</td>' for fold in (scores, *folds))
    table = Html(
        '<table class="list"><thead><tr><th>class</th><th class="num">all images</th>'
        f"{head}</tr></thead><tbody>{''.join(rows)}</tbody>"
        f"<tfoot><tr><th>mean</th>{means}</tr></tfoot></table>"
    )
    intro = Html(
        "Every image was predicted by the one network that had not seen it. In the column "
        "<em>all images</em> the pixels of all folds are added up before the score is taken. The "
        "ensemble in the bundle has seen every image, so its own score on them is not shown."
    )
    return section("IoU by class and fold", scroll(table, "IoU by class and fold"), intro)


def _runs(done: Sequence[Done]) -> Html:
    rows = []
    for each in done:
        val = each.part.data.split("val")
        groups = sorted({sample.group for sample in val if sample.group is not None})
        folder = escape(each.part.folder)
        rows.append(
            f'<tr><th><a href="{folder}/report.html">{folder}</a></th>'
            f'<td class="num">{len(val)}</td><td>{escape(", ".join(groups)) or "–"}</td>'
            f'<td class="num">{each.steps}</td><td class="num">{each.elapsed_s:.0f} s</td></tr>'
        )
    table = Html(
        '<table class="list"><thead><tr><th>fold</th><th class="num">images held out</th>'
        '<th>groups held out</th><th class="num">steps</th><th class="num">time</th></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>"
    )
    return section("The trainings", scroll(table, "The trainings"))
