"""``delineate runs``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from delineate.cli.console import ForceOption, JsonOption, emit, extra, plain_table
from delineate.data.files import refuse_existing


def runs(
    folders: Annotated[list[Path], typer.Argument(help="Folders that delineate train wrote.")],
    out: Annotated[Path | None, typer.Option(help="Write an HTML page there.")] = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Compare trainings: scores, time, and the settings in which they differ.

    Example: delineate runs runs/first runs/second --out compare.html
    """
    with extra("train"):
        from delineate.workflows.run_compare import (
            COLUMNS,
            OTHER_DATA,
            compare_runs,
            rows_of,
            write_comparison,
        )
        from delineate.workflows.run_page import show as shown

    if out is not None and not force:
        refuse_existing(out)
    found = compare_runs(folders)
    if out is not None:
        write_comparison(found, out)

    def show(console: Console) -> None:
        table = plain_table(*COLUMNS)
        for row in rows_of(found):
            table.add_row(*row)
        console.print(table)
        if not found.one_dataset:
            console.print(OTHER_DATA)
        if found.plan_differences:
            differences = plain_table("differs", *found.names)
            for name, values in found.plan_differences.items():
                differences.add_row(name, *map(shown, values))
            console.print()
            console.print(differences)
        if out is not None:
            console.print(f"page  {out}")

    emit(found.to_dict(), as_json=as_json, show=show)
