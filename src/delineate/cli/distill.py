"""``delineate distill``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from delineate.cli.console import ForceOption, JsonOption, emit, extra
from delineate.cli.training_options import (
    NameOption,
    ResumeOption,
    SeedOption,
    StepsOption,
    command_line,
    duration_of,
)
from delineate.cli.watching import Watching, after_a_step, how_to_resume
from delineate.config import Plan, load_yaml

if TYPE_CHECKING:
    from delineate.workflows.distill import Distilled


def distill(
    teacher: Annotated[Path, typer.Argument(help="A bundle, or a run that holds one.")],
    dataset: Annotated[Path, typer.Argument(help="A canonical dataset with train and val.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder of the whole.")],
    budget: Annotated[
        str | None, typer.Option(help="Time of each training, start to bundle: 30m, 1h30m.")
    ] = None,
    steps: StepsOption = None,
    plan: Annotated[Path | None, typer.Option(help="The student's plan.yaml.")] = None,
    architecture: Annotated[str | None, typer.Option(help="Of the student.")] = None,
    encoder: Annotated[str | None, typer.Option(help="Of the student.")] = None,
    pixels: Annotated[
        float | None, typer.Option(help="Weight of the soft classes of each pixel.")
    ] = None,
    temperature: Annotated[float | None, typer.Option(help="Of the soft classes.")] = None,
    channels: Annotated[
        float | None, typer.Option(help="Weight of where each class lies; 3 is usual.")
    ] = None,
    unlabelled: Annotated[
        Path | None, typer.Option(help="A folder of images that only the teacher judges.")
    ] = None,
    seed: SeedOption = None,
    only: Annotated[
        bool, typer.Option("--only", help="Do not train the student alone beside it.")
    ] = False,
    name: NameOption = None,
    resume: ResumeOption = False,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train a small network with a large one as its teacher, and the same network alone beside it.

    Example: delineate distill large.bundle DATASET -o runs/student --budget 30m

    Example: delineate distill large.bundle DATASET -o runs/student --steps 2000 --plan plan.yaml
    """
    started = time.monotonic()
    duration = duration_of(budget, steps, "distill")
    changes: dict[str, Any] = {
        "model.architecture": architecture,
        "model.encoder": encoder,
        "distillation.pixels": pixels,
        "distillation.temperature": temperature,
        "distillation.channels": channels,
        "seed": seed,
    }
    changes = {key: value for key, value in changes.items() if value is not None}
    base = None if plan is None else load_yaml(plan, Plan)
    with extra("train"):
        from delineate.workflows.distill import distill as run
        from delineate.workflows.train import TrainSettings
    settings = TrainSettings(
        duration=duration,
        resume=resume,
        force=force,
        name=name,
        unlabelled=unlabelled,
        command=command_line(),
        spent_s=time.monotonic() - started,
    )
    with how_to_resume(out), Watching() as watching, after_a_step(watching) as watch:
        found = run(
            teacher,
            dataset,
            out,
            plan=base,
            changes=changes,
            settings=settings,
            compare=not only,
            watch=watch,
        )
    emit(found.to_dict(), as_json=as_json, show=lambda console: _show(console, found))


def _show(console: Console, found: Distilled) -> None:
    from delineate.evaluation.table import format_table

    evaluation = found.student.evaluation
    console.print(format_table(evaluation.scores, details=evaluation.details))
    console.print(found.verdict)
    console.print(f"bundle  {found.bundle}\nreport  {found.run / 'report.html'}")
