"""``delineate train``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from delineate.cli.console import ForceOption, JsonOption, emit, extra
from delineate.cli.train_results import curve_shown, folds_shown, run_shown
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
from delineate.errors import SettingsError


def train(
    dataset: Annotated[Path, typer.Argument(help="A canonical dataset with train and val.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The run's folder.")],
    budget: Annotated[
        str | None, typer.Option(help="Time from start to bundle: 30m, 1h30m.")
    ] = None,
    steps: StepsOption = None,
    plan: Annotated[Path | None, typer.Option(help="A plan.yaml; other options change it.")] = None,
    architecture: Annotated[
        str | None, typer.Option(help="unet, deeplabv3+, segformer, fast-scnn, ...")
    ] = None,
    encoder: Annotated[str | None, typer.Option(help="resnet18, efficientnet-b4, ...")] = None,
    encoder_weights: Annotated[
        str | None, typer.Option(help="none, imagenet (downloads), or a .safetensors file.")
    ] = None,
    loss: Annotated[str | None, typer.Option(help="ce+dice, ce+0.5*lovasz, focal, ...")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Crops in a step.")] = None,
    crop: Annotated[int | None, typer.Option(help="Side of the training crop, pixels.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
    seed: SeedOption = None,
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="The same bits in every run on a machine.")
    ] = False,
    find: Annotated[
        bool, typer.Option("--find", help="Find learning rate and batch size first.")
    ] = False,
    folds: Annotated[
        int | None, typer.Option(help="Cross-validate; ends in an ensemble's bundle.")
    ] = None,
    curve: Annotated[
        bool, typer.Option("--curve", help="Would more labels help, or a larger network?")
    ] = False,
    devices: Annotated[int, typer.Option(help="GPUs, or processes on a CPU.")] = 1,
    nodes: Annotated[int, typer.Option(help="Machines; the others run delineate join.")] = 1,
    rendezvous: Annotated[
        str | None, typer.Option(help="HOST:PORT where the machines meet, one of them.")
    ] = None,
    mlflow: Annotated[str | None, typer.Option(help="Address of an MLflow server.")] = None,
    name: NameOption = None,
    resume: ResumeOption = False,
    no_canary: Annotated[
        bool, typer.Option("--no-canary", help="Put no labelled images into the bundle.")
    ] = False,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train a network on a dataset; ends in a bundle.

    Example: delineate train DATASET -o runs/first --budget 30m
    """
    started = time.monotonic()
    duration = duration_of(budget, steps, "train")
    changes: dict[str, Any] = {
        "model.architecture": architecture,
        "model.encoder": encoder,
        "model.encoder_weights": encoder_weights,
        "loss.name": loss,
        "batch_size": batch_size,
        "crop_px": crop,
        "optimiser.learning_rate": learning_rate,
        "seed": seed,
        "deterministic": deterministic or None,
    }
    changes = {key: value for key, value in changes.items() if value is not None}
    if encoder_weights == "none":
        changes["model.encoder_weights"] = None
    base = None if plan is None else load_yaml(plan, Plan)
    with extra("train"):
        from delineate.workflows.train import TrainSettings
    settings = TrainSettings(
        duration=duration,
        resume=resume,
        force=force,
        canary=not no_canary,
        name=name,
        find=find,
        devices=devices,
        nodes=nodes,
        rendezvous=rendezvous,
        mlflow=mlflow,
        command=command_line(),
        spent_s=time.monotonic() - started,
    )
    _refuse_together(folds, curve=curve, nodes=nodes)
    with how_to_resume(out), Watching() as watching, after_a_step(watching) as watch:
        common: dict[str, Any] = {
            "plan": base,
            "changes": changes,
            "settings": settings,
            "watch": watch,
        }
        if folds is not None:
            from delineate.workflows.folds import train_folds

            result: Any = train_folds(dataset, out, folds=folds, **common)
            show = folds_shown(result)
        elif curve:
            from delineate.workflows.curve import train_curve

            result = train_curve(dataset, out, **common)
            show = curve_shown(result)
        else:
            from delineate.workflows.train import train as train_one

            result = train_one(dataset, out, **common)
            show = run_shown(result)
    emit(result.to_dict(), as_json=as_json, show=show)


def _refuse_together(folds: int | None, *, curve: bool, nodes: int) -> None:
    if nodes > 1 and (folds is not None or curve):
        raise SettingsError(
            f"{'--curve' if curve else '--folds'} holds several trainings, and machines join one",
            where="--nodes",
            mend="Leave --nodes out; --devices goes with it.",
        )
    if folds is not None and curve:
        raise SettingsError(
            "--folds and --curve are two answers to two questions",
            where="delineate train",
            mend="Run one after the other.",
        )
