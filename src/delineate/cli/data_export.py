"""``delineate data export``: labels out in other formats."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from delineate.cli.console import ForceOption, JsonOption, emit, plain_table, progress_of
from delineate.data.exporting.export import export_dataset
from delineate.data.exporting.settings import ExportFormat, ExportReport, ExportSettings


def export(
    dataset: Annotated[Path, typer.Argument(help="A dataset: a folder with dataset.yaml.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write.")],
    label_format: Annotated[ExportFormat, typer.Option("--format", help="How labels are stored.")],
    split: Annotated[
        list[str] | None, typer.Option(help="Which split; repeat it for several. All if left out.")
    ] = None,
    instances: Annotated[
        bool, typer.Option("--instances/--no-instances", help="Write object ids, if there are any.")
    ] = True,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Threads; as many as processors if left out.")
    ] = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write a dataset in another format: nothing is lost, or it is refused.

    Example: delineate data export DATASET --format coco -o OUT
    """
    settings = ExportSettings(
        dataset=dataset,
        out=out,
        format=label_format,
        splits=tuple(split) if split else None,
        instances=instances,
        force=force,
        workers=workers,
    )
    with progress_of("exporting") as progress:
        report = export_dataset(settings, progress=progress)
    emit(asdict(report), as_json=as_json, show=lambda console: _show(console, report))


def _show(console: Console, report: ExportReport) -> None:
    table = plain_table("split", "images")
    for split, count in report.samples.items():
        table.add_row(split, f"{count:,}")
    console.print(table)
    objects = f", {report.objects:,} objects" if report.objects else ""
    console.print(f"{report.path}: {report.format}{objects}", highlight=False)
    for note in report.notes:
        console.print(f"note: {note}", highlight=False)
