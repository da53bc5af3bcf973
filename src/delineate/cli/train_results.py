"""What the terminal shows when a training, or several, have come to their end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rich.console import Console

Show = Callable[[Console], None]


def run_shown(result: Any) -> Show:
    """Of ``workflows.train.TrainResult``."""

    def show(console: Console) -> None:
        from delineate.evaluation.table import format_table

        console.print(format_table(result.evaluation.scores, details=result.evaluation.details))
        console.print(
            f"{result.steps} steps in {result.elapsed_s:.0f} s; graph and network agree on "
            f"{result.exported.agreement:.3%} of pixels\n"
            f"bundle  {result.bundle}\nreport  {result.run / 'report.html'}"
        )

    return show


def folds_shown(result: Any) -> Show:
    """Of ``workflows.folds.FoldsResult``."""

    def show(console: Console) -> None:
        from delineate.evaluation.table import format_table

        console.print(format_table(result.scores, details=result.evaluation.details))
        of_folds = ", ".join(f"{done.evaluation.scores.mean_iou:.3f}" for done in result.done)
        console.print(
            "every image by the network that has not seen it; mean IoU of the folds "
            f"{of_folds}\n"
            f"bundle  {result.bundle} (all {len(result.done)} networks in one)\n"
            f"report  {result.run / 'report.html'}"
        )

    return show


def curve_shown(result: Any) -> Show:
    """Of ``workflows.curve.CurveResult``."""

    def show(console: Console) -> None:
        console.print(result.verdict)
        console.print(f"bundle  {result.bundle}\nreport  {result.run / 'report.html'}")

    return show
