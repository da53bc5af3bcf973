"""``delineate fit``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from delineate.cli.console import ForceOption, JsonOption, emit, err
from delineate.cli.training_options import NameOption
from delineate.words import plural


def fit(
    dataset: Annotated[Path, typer.Argument(help="A canonical dataset with train and val.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The bundle, a folder or .zip.")],
    method: Annotated[
        str,
        typer.Option(help="otsu, multi-otsu, colour, kmeans, grabcut, watershed or forest."),
    ],
    foreground: Annotated[
        str | None,
        typer.Option(help="The class that otsu, grabcut and watershed look for."),
    ] = None,
    images: Annotated[int, typer.Option(help="Of train, at most.")] = 60,
    name: NameOption = None,
    no_canary: Annotated[
        bool, typer.Option("--no-canary", help="Put no labelled images into the bundle.")
    ] = False,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Fit a classical method to a dataset in seconds; ends in a bundle like any other.

    Example: delineate fit DATASET -o forest.bundle --method forest

    Example: delineate fit DATASET -o cells.bundle --method watershed --foreground cell
    """
    from delineate.evaluation.table import format_table
    from delineate.workflows.fit import FitSettings
    from delineate.workflows.fit import fit as run

    settings = FitSettings(
        foreground=foreground, images=images, name=name, canary=not no_canary, force=force
    )

    def tell(line: str) -> None:
        err.print(line, highlight=False, markup=False)

    found = run(dataset, out, method=method, settings=settings, tell=tell)

    def show(console: Console) -> None:
        console.print(format_table(found.evaluation.scores, details=found.evaluation.details))
        console.print(
            f"{found.method}, fitted to {plural(found.images, 'image')} in {found.fit_s:.2g} s"
        )
        console.print(f"bundle  {found.bundle}")

    emit(found.to_dict(), as_json=as_json, show=show)
