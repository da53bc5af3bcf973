"""What a training writes down: ``metrics.csv`` and TensorBoard events."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from delineate.data.files import write_text, writing

COLUMNS = (
    "step",
    "elapsed_s",
    "learning_rate",
    "loss",
    "images_per_s",
    "wait_share",  # of the time since the last such row, spent waiting for samples
    "val_miou",
    "val_dice",
)
Row = dict[str, int | float | None]


class RunLog:
    """Writes rows to a CSV file and to TensorBoard.

    Args:
        run: the run's folder.
        step: rows of later steps are dropped: they come again after a resume.
        on_row: given every row as well.

    Raises:
        OutputError: the disk is full, or the folder cannot be written.
    """

    def __init__(self, run: Path, step: int, on_row: Callable[[Row], None] | None = None) -> None:
        self._path = run / "metrics.csv"
        self._on_row = on_row
        kept = [row for row in read_metrics(run) if (row["step"] or 0) <= step]
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(_blank_none(row) for row in kept)
        write_text(self._path, text.getvalue())
        from torch.utils.tensorboard import SummaryWriter  # slow to import, and readers need none

        with writing(run):
            self._file = self._path.open("a", newline="", encoding="utf-8")
            self._csv = csv.DictWriter(self._file, COLUMNS, lineterminator="\n")
            self._board = SummaryWriter(str(run / "tensorboard"), purge_step=step + 1)

    def write(self, row: Row) -> None:
        """Write one row; columns that are left out stay empty.

        Raises:
            OutputError: the disk is full.
        """
        with writing(self._path):
            self._csv.writerow(_blank_none(row))
            self._file.flush()
            for name, value in row.items():
                if name != "step" and value is not None:
                    self._board.add_scalar(name, value, int(row["step"] or 0))
        if self._on_row is not None:
            self._on_row(row)

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with writing(self._path):
            self._file.close()
            self._board.close()


def _blank_none(row: Row) -> dict[str, str | int | float]:
    return {name: "" if value is None else value for name, value in row.items()}


def read_metrics(run: Path) -> list[Row]:
    """The rows of ``metrics.csv``, empty cells as None; a half-written last row is left out."""
    path = run / "metrics.csv"
    if not path.exists():
        return []
    whole, _, _ = path.read_text(encoding="utf-8").rpartition("\n")
    rows: list[Row] = []
    for raw in csv.DictReader(whole.splitlines()):
        try:
            row: Row = {n: float(cell) if (cell := raw.get(n)) else None for n in COLUMNS}
            rows.append({**row, "step": int(row["step"] or 0)})
        except (TypeError, ValueError, KeyError, OverflowError):
            break
    return rows
