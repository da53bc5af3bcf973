"""An Evaluation in the terminal."""

from __future__ import annotations

import math

from rich.table import Table
from rich.text import Text

from delineate.evaluation.details import Details
from delineate.evaluation.instances import InstanceScores
from delineate.evaluation.intervals import Interval
from delineate.evaluation.report_details import intervals_note, range_text
from delineate.evaluation.scores import Scores

_NOTHING = Details()


def format_table(scores: Scores, details: Details = _NOTHING) -> Table:
    """One row for each class, means and overall scores below; ``0.539 (0.51 to 0.57)``."""
    boundary, intervals, calibration = details.boundary, details.intervals, details.calibration
    of_means = (None, None) if intervals is None else (intervals.mean_iou, intervals.mean_dice)
    table = _table("class")
    # a range stays in one line; 80 columns hold all of it
    mean_iou = _with_range(scores.mean_iou, of_means[0])
    table.add_column("IoU", mean_iou, justify="right", no_wrap=True)
    table.add_column("Dice", _plain(scores.mean_dice), justify="right")
    if boundary is not None:
        table.add_column("boundary\nIoU", _plain(boundary.mean_iou), justify="right")
    table.add_column("precision", justify="right")
    table.add_column("recall", justify="right")
    table.add_column("% of\npixels", justify="right")
    for i, name in enumerate(scores.classes):
        table.add_row(
            Text(name),  # not markup: a class may be called [bold]
            _with_range(scores.iou[i], None if intervals is None else intervals.iou[i]),
            _plain(scores.dice[i]),
            *([] if boundary is None else [_plain(boundary.iou[i])]),
            _plain(scores.precision[i]),
            _plain(scores.recall[i]),
            _plain(scores.true_share[i] * 100, 2),
        )
    lines = [
        f"pixel accuracy {_plain(scores.pixel_accuracy)}, "
        f"frequency-weighted IoU {_plain(scores.frequency_weighted_iou)}",
        f"{scores.pixels:,} pixels",
    ]
    if calibration is not None:
        lines.append(f"expected calibration error {_plain(calibration.error)}")
    if intervals is not None:
        lines.insert(0, f"mean Dice {_with_range(scores.mean_dice, of_means[1])}")
        lines.append(intervals_note(intervals))
    table.caption = "\n".join(lines)
    return table


def format_instances(found: InstanceScores) -> Table:
    """Panoptic quality and average precision of each class that has objects."""
    columns = {"PQ": found.pq, "SQ": found.sq, "RQ": found.rq}
    columns |= {"AP 0.5": found.ap50, "AP 0.5:0.95": found.ap}
    table = _table("objects of")
    for name, values in columns.items():
        table.add_column(name, _plain(found.mean(values)), justify="right")
    table.add_column("true", justify="right")
    table.add_column("predicted", justify="right")
    for i in found.scored:
        table.add_row(
            Text(found.classes[i]),
            *(_plain(values[i]) for values in columns.values()),
            f"{found.true_objects[i]:,}",
            f"{found.predicted_objects[i]:,}",
        )
    table.caption = (
        "objects are connected regions; PQ at IoU > 0.5\n"
        "AP = found / (found + wrong + missed), as in DSB-2018"
    )
    return table


def _table(first: str) -> Table:
    """Without lines, as all tables of the commands, and with a row of means."""
    table = Table(
        box=None,
        pad_edge=False,
        header_style="bold",
        footer_style="bold",
        show_footer=True,
        caption_justify="left",
    )
    table.add_column(first, "mean", overflow="fold")
    return table


def _plain(value: float, digits: int = 3) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def _with_range(value: float, interval: Interval | None) -> str:
    between = range_text(interval)
    return f"{_plain(value)} ({between})" if between else _plain(value)
