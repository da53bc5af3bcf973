"""``delineate evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from delineate.cli.console import (
    DeviceOption,
    EngineOption,
    ForceOption,
    JsonOption,
    MapOption,
    counting,
    emit,
)
from delineate.data.dataset import Dataset
from delineate.data.files import refuse_existing


def evaluate(
    bundle: Annotated[Path, typer.Argument(help="A bundle, folder or .zip.")],
    dataset: Annotated[Path, typer.Argument(help="A canonical dataset.")],
    split: Annotated[str, typer.Option(help="train, val, test, ...")] = "val",
    engine: EngineOption = "auto",
    device: DeviceOption = "cpu",
    variant: Annotated[
        str, typer.Option(help="Which network of the bundle; auto takes the fastest that holds.")
    ] = "float32",
    class_map: MapOption = None,
    against: Annotated[
        Path | None, typer.Option(help="Another bundle, compared on the same images.")
    ] = None,
    tta: Annotated[
        str | None, typer.Option(help="Average over views of an image: flips or dihedral.")
    ] = None,
    tile: Annotated[int | None, typer.Option(help="Side of a tile, pixels.")] = None,
    overlap: Annotated[int | None, typer.Option(help="Overlap of tiles, pixels.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write an HTML report there.")] = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Score a bundle on a labelled dataset, alone or against another bundle.

    Example: delineate evaluate model.bundle DATASET --report report.html

    Example: delineate evaluate model.bundle DATASET --map car=vehicle,truck=vehicle,*=background

    Example: delineate evaluate old.bundle DATASET --against new.bundle
    """
    from delineate.bundle.load import load
    from delineate.evaluation.table import format_instances, format_table
    from delineate.workflows.evaluate import EvaluateSettings
    from delineate.workflows.evaluate import evaluate as run

    if report is not None and not force:
        refuse_existing(report)
    total = len(Dataset.open(dataset).split(split)) * (1 if against is None else 2)
    settings = EvaluateSettings(
        against=None if against is None else load(against, engine=engine, device=device),
        tta=tta,
        tile_px=tile,
        overlap_px=overlap,
    )
    with counting("evaluating", total) as update:
        found = run(
            load(bundle, engine=engine, device=device, variant=variant),
            dataset,
            split=split,
            class_map=class_map,
            report=report,
            on_progress=lambda done, _: update(done),
            settings=settings,
        )

    def show(console: Console) -> None:
        console.print(format_table(found.scores, found.details))
        if found.details.instances is not None:
            console.print(format_instances(found.details.instances))
        if found.comparison is not None:
            console.print(found.comparison.verdict())
        console.print(f"{found.n_images} images in {found.seconds:.1f} s")
        if report is not None:
            console.print(f"report  {report}")

    emit(found.to_dict(), as_json=as_json, show=show)
