"""``delineate join``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from delineate.cli.console import JsonOption, emit, extra


def join(
    run: Annotated[Path, typer.Argument(help="The run's folder, which all machines see.")],
    data: Annotated[
        Path | None, typer.Option(help="The dataset, where this machine has it elsewhere.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Take part in a training that another machine leads, by train's --nodes.

    Example: delineate join /shared/runs/first
    """
    with extra("train"):
        from delineate.workflows.join import join as join_run
    join_run(run, dataset=data)
    emit(
        {"run": str(run)},
        as_json=as_json,
        show=lambda console: console.print(f"took part in {run}, whose leader ends it"),
    )
