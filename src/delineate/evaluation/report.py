"""An Evaluation for people: a page to open in a browser."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from delineate.data.files import write_text
from delineate.data.overlay import (
    FALSE_ALARM,
    MISSED,
    WRONG,
    displayable,
    error_map,
    overlay,
    thumbnail,
    thumbnail_labels,
)
from delineate.data.palette import Colour, is_background
from delineate.errors import SettingsError
from delineate.evaluation.confusion import Confusion
from delineate.evaluation.details import Details
from delineate.evaluation.evaluate import Evaluation, ImageScore, Predict, Read
from delineate.evaluation.intervals import Interval
from delineate.evaluation.page import (
    Html,
    bar_cell,
    card,
    escape,
    facts,
    join,
    number,
    page,
    picture,
    scroll,
    section,
    swatch,
)
from delineate.evaluation.report_details import (
    calibration_section,
    comparison_section,
    detail_cards,
    instance_section,
    intervals_note,
    range_text,
)
from delineate.evaluation.scores import Scores

_PICTURE_SIDE_PX = 420
_ALPHA = 0.5
# A larger table is slower to draw than to read; the classes with the most true pixels are shown.
_MATRIX_CLASSES = 48
_MISTAKES = 8
# Up to here the legend stays in sight while one scrolls; a longer one would hide the pictures.
_STICKY_LEGEND = 14


def write_report(
    evaluation: Evaluation,
    path: Path,
    *,
    title: str,
    colours: Sequence[Colour],
    read: Read,
    predict: Predict,
    provenance: Mapping[str, object],
) -> None:
    """Write a self-contained HTML page about ``evaluation``: whole or not at all.

    The images it shows are read and predicted once more, because an Evaluation holds none.

    Args:
        evaluation: what to show.
        path: the file, overwritten when it is there.
        title: heading of the page.
        colours: (red, green, blue) of each class by id, each 0 to 255.
        read, predict: those that ``evaluation`` was made with.
        provenance: what was evaluated and with what, in the order shown: bundle, dataset, date,
            and so on. A value that is a mapping (software and versions) becomes one line.

    Raises:
        SettingsError: there is not one colour for each class.
        OutputError: ``path`` cannot be written.
    """
    classes = evaluation.scores.classes
    if len(colours) != len(classes):
        raise SettingsError(
            f"{len(colours)} colours for {len(classes)} classes",
            where="colours",
            mend="Give one (red, green, blue) for each class.",
        )
    details = evaluation.details
    parts = [_headline(evaluation), _class_section(evaluation.scores, colours, details)]
    if evaluation.comparison is not None:
        parts.append(comparison_section(evaluation.comparison))
    if details.instances is not None:
        parts.append(instance_section(details.instances, evaluation.n_images))
    if len(classes) > 1:
        parts.append(_confusion_section(evaluation.confusion))
    if details.calibration is not None:
        parts.append(calibration_section(details.calibration))
    drawing = _Drawing(evaluation.confusion, colours, read, predict)
    parts.append(_image_sections(evaluation, drawing))
    parts.append(_provenance_section(evaluation, provenance))
    subtitle = f"{evaluation.n_images:,} images, {len(classes)} classes"
    write_text(path, page(title, join(parts), subtitle))


def _headline(evaluation: Evaluation) -> Html:
    scores = evaluation.scores
    cards = []
    if len(scores.classes) == 2:
        name = scores.classes[1]
        cards.append(card(f"Dice of {name}", number(scores.foreground_dice)))
        cards.append(card(f"IoU of {name}", number(scores.foreground_iou)))
    found = evaluation.details.intervals
    ranges = (None, None) if found is None else (found.mean_iou, found.mean_dice)
    cards.append(card("Mean IoU", number(scores.mean_iou), _note(scores.iou, ranges[0])))
    cards.append(card("Mean Dice", number(scores.mean_dice), _note(scores.dice, ranges[1])))
    cards.append(card("Pixel accuracy", number(scores.pixel_accuracy)))
    if len(scores.classes) > 2:
        cards.append(
            card("Frequency-weighted IoU", number(scores.frequency_weighted_iou), "by true pixels")
        )
    cards.append(detail_cards(evaluation.details))
    milliseconds = 1000 * evaluation.predict_seconds / evaluation.n_images
    cards.append(
        card(
            "Time per image",
            Html(f"{milliseconds:.{0 if milliseconds >= 100 else 1}f} ms"),
            f"in the predictor; {100 * evaluation.outside_share:.0f} % of the run outside it",
        )
    )
    return Html(f'<div class="cards">{join(cards)}</div>\n')


def _note(values: Sequence[float], interval: Interval | None) -> str:
    n = sum(not math.isnan(v) for v in values)
    over = f"over {n} of {len(values)} classes" if n < len(values) else f"over {n} classes"
    between = range_text(interval)
    return f"{between}, {over}" if between else over


def _class_section(scores: Scores, colours: Sequence[Colour], details: Details) -> Html:
    boundary, intervals = details.boundary, details.intervals
    rows = []
    for i, name in enumerate(scores.classes):
        between = "" if intervals is None else range_text(intervals.iou[i])
        cells = [bar_cell(scores.iou[i], between), bar_cell(scores.dice[i])]
        cells += [] if boundary is None else [bar_cell(boundary.iou[i])]
        cells += [bar_cell(scores.precision[i]), bar_cell(scores.recall[i])]
        rows.append(
            f'<tr><th scope="row">{swatch(colours[i])}{escape(name)}</th>{join(cells)}'
            f'<td class="num">{_percent(scores.true_share[i])}</td></tr>\n'
        )
    heads = ["IoU", "Dice", "Boundary IoU", "Precision", "Recall", "True pixels"]
    means = [number(scores.mean_iou), number(scores.mean_dice)]
    if boundary is None:
        heads.remove("Boundary IoU")
    else:
        means.append(number(boundary.mean_iou))
    foot = join([f'<td class="num">{mean}</td>' for mean in means])
    table = Html(
        '<table class="list"><thead><tr><th scope="col">Class</th>'
        + join([f'<th scope="col" class="num">{head}</th>' for head in heads])
        + f'</tr></thead>\n<tbody>{join(rows)}</tbody>\n<tfoot><tr><th scope="row">Mean</th>'
        f"{foot}<td></td><td></td><td></td></tr></tfoot></table>"
    )
    note = None if intervals is None else escape(f"Below an IoU: {intervals_note(intervals)}.")
    body = join([scroll(table, "Scores of each class"), _DEFINITIONS])
    return section("Classes", body, note)


_DEFINITIONS = Html(
    "<details><summary>How these figures are counted</summary><p>All pixels of all images are "
    "counted together, so that every pixel weighs the same; ignored pixels count nowhere. With "
    "<em>found</em>, <em>falsely claimed</em> and <em>missed</em> pixels of a class: IoU = found "
    "/ (found + falsely claimed + missed); Dice = 2 found / (2 found + falsely claimed + missed); "
    "precision = found / (found + falsely claimed); recall = found / (found + missed). A dash "
    "means that a score is undefined, such as the IoU of a class that is in neither truth nor "
    "prediction; means leave it out. Boundary IoU compares only the pixels near the outline of "
    "each class, within 2 % of the image's diagonal.</p></details>"
)


def _percent(share: float) -> Html:
    return number(share) if math.isnan(share) else Html(f"{100 * share:.2f} %")


def _confusion_section(confusion: Confusion) -> Html:
    counts, classes = confusion.counts, confusion.classes
    order = list(range(len(classes)))
    intro = "Each row is a true class and sums to 100 %: where did its pixels go?"
    if len(classes) > _MATRIX_CLASSES:
        largest = np.argsort(-counts.sum(axis=1), kind="stable")[:_MATRIX_CLASSES]
        order = sorted(int(i) for i in largest)
        intro += f" Shown are the {_MATRIX_CLASSES} of {len(classes)} classes with most pixels."
    body = [scroll(_matrix(counts, classes, order), "Confusion matrix")]
    if len(classes) > 2:
        body.append(_mistakes(counts, classes))
    return section("Confusion", Html(f'<div class="pair">{join(body)}</div>'), escape(intro))


def _matrix(counts: np.ndarray, classes: Sequence[str], order: Sequence[int]) -> Html:
    true = counts.sum(axis=1)
    few = len(order) <= 4
    kind = "level" if few else "turned"
    heads = [
        f'<th scope="col" title="{escape(classes[j])}">'
        f'<span class="{kind}">{escape(classes[j])}</span></th>'
        for j in order
    ]
    rows = []
    for i in order:
        cells = [_matrix_cell(int(counts[i, j]), int(true[i]), i == j) for j in order]
        name = escape(classes[i])
        rows.append(f'<tr><th scope="row" title="{name}">{name}</th>{join(cells)}</tr>\n')
    cell_rem = 6.0 if few else 2.6 if len(order) <= 16 else 2.0
    return Html(
        f'<table class="matrix" style="--cell:{cell_rem}rem">'
        "<caption>Rows: truth. Columns: prediction. Percent of the true pixels.</caption>"
        f'<thead><tr><td class="blank"></td>{join(heads)}</tr></thead>\n'
        f"<tbody>{join(rows)}</tbody></table>"
    )


def _matrix_cell(pixels: int, true: int, diagonal: bool) -> Html:
    if true == 0:
        return Html('<td class="blank">–</td>')
    share = pixels / true
    # 100 means all pixels and an empty cell none; what lies close to either says so.
    percent = round(100 * share)
    text = "" if pixels == 0 else "<1" if percent == 0 else str(percent)
    if percent == 100 and pixels < true:
        text = ">99"
    conditions = {"right": diagonal, "strong": share > 0.9, "faint": text == "<1"}
    kinds = [name for name, on in conditions.items() if on]
    kind = f' class="{" ".join(kinds)}"' if kinds else ""
    return Html(f'<td{kind} style="--v:{share:.3f}" title="{pixels:,} px">{escape(text)}</td>')


def _mistakes(counts: np.ndarray, classes: Sequence[str]) -> Html:
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    true = counts.sum(axis=1)
    largest = np.argsort(-wrong, axis=None, kind="stable")[:_MISTAKES]
    pairs = [divmod(int(flat), len(classes)) for flat in largest]
    rows = [
        f'<tr><th scope="row">{escape(classes[i])}</th><td>{escape(classes[j])}</td>'
        f'<td class="num">{wrong[i, j]:,}</td>'
        f'<td class="num">{100 * wrong[i, j] / true[i]:.1f} %</td></tr>'
        for i, j in pairs
        if wrong[i, j] > 0
    ]
    if not rows:
        return Html("")
    table = Html(
        '<table class="list"><thead><tr><th scope="col">Truth</th><th scope="col">Predicted</th>'
        '<th scope="col" class="num">Pixels</th><th scope="col" class="num">Of that truth</th>'
        f"</tr></thead><tbody>{join(rows)}</tbody></table>"
    )
    box = scroll(table, "Most frequent mistakes")
    return Html(f'<div class="rest"><h3>Most frequent mistakes</h3>{box}</div>')


class _Drawing:
    """Image, truth, prediction and errors of a sample side by side."""

    def __init__(
        self, confusion: Confusion, colours: Sequence[Colour], read: Read, predict: Predict
    ) -> None:
        self.classes = confusion.classes
        self.ignore_index = confusion.ignore_index
        self.colours = colours
        self.read = read
        self.predict = predict
        # A tint over a background only hides the image.
        background = len(self.classes) == 2 or is_background(self.classes[0])
        ignored = () if self.ignore_index is None else (self.ignore_index,)
        self.untinted = (*((0,) if background else ()), *ignored)

    def case(self, row: ImageScore) -> Html:
        image, truth = self.read(row.sample)
        labels = self.predict(image)
        rgb = thumbnail(displayable(image), _PICTURE_SIDE_PX)
        truth = thumbnail_labels(truth, _PICTURE_SIDE_PX)
        labels = thumbnail_labels(labels, _PICTURE_SIDE_PX)
        panels = {
            "Image": rgb,
            "Truth": overlay(rgb, truth, self.colours, _ALPHA, self.untinted),
            "Prediction": overlay(rgb, labels, self.colours, _ALPHA, self.untinted),
            "Errors": error_map(rgb, truth, labels, self.ignore_index, len(self.classes)),
        }
        figures = [
            f"<figure>{picture(shown, f'{what}: {row.sample.name}')}"
            f"<figcaption>{what}</figcaption></figure>"
            for what, shown in panels.items()
        ]
        return Html(
            f'<article class="case"><header><h3>{escape(row.sample.name)}</h3>'
            f"<span>mean IoU <strong>{number(row.mean_iou)}</strong></span></header>"
            f'<div class="panels">{join(figures)}</div></article>\n'
        )

    def legend(self) -> Html:
        shown = [
            (colour, name)
            for i, (colour, name) in enumerate(zip(self.colours, self.classes, strict=True))
            if i not in self.untinted
        ]
        if len(self.classes) == 2:
            shown += [(MISSED, "error: missed"), (FALSE_ALARM, "error: falsely claimed")]
        else:
            shown.append((WRONG, "error: wrong class"))
        if self.ignore_index is not None:
            shown.append(((60, 60, 60), "error picture: ignored"))
        items = [f"<li>{swatch(colour)}{escape(name)}</li>" for colour, name in shown]
        kind = "legend few" if len(items) <= _STICKY_LEGEND else "legend"
        return Html(f'<ul class="{kind}">{join(items)}</ul>\n')


def _image_sections(evaluation: Evaluation, drawing: _Drawing) -> Html:
    parts = []
    # One section element for each, so that the sticky legend ends with its pictures.
    for heading, rows in (
        ("Worst images", evaluation.worst),
        ("Best images", evaluation.best),
    ):
        if rows:
            cases = join([drawing.legend(), *(drawing.case(row) for row in rows)])
            parts.append(section(heading, cases, _RANKED))
    return join(parts)


_RANKED = Html(
    "Ranked by the mean IoU of each image by itself, over the classes in its truth or prediction."
)


def _provenance_section(evaluation: Evaluation, provenance: Mapping[str, object]) -> Html:
    images = f"{evaluation.n_images:,}"
    if evaluation.n_unscored:
        images += f", {evaluation.n_unscored:,} of them without a score (all pixels ignored)"
    rows = {
        **provenance,
        "Images": images,
        "Pixels counted": f"{evaluation.scores.pixels:,}",
        "Time": f"{evaluation.seconds:.1f} s, {evaluation.predict_seconds:.1f} s in the "
        f"predictor, {evaluation.wait_seconds:.1f} s waiting for files",
    }
    ignore_index = evaluation.confusion.ignore_index
    if ignore_index is not None:
        rows["Ignore index"] = ignore_index
    return section("Provenance", facts(rows))
