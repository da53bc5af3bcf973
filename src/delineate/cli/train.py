"""``delineate train``."""

from __future__ import annotations

import math
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer
from rich.console import Console

from delineate.cli.console import (
    ForceOption,
    Interrupted,
    JsonOption,
    counting,
    emit,
    err,
    extra,
    parse_duration,
)
from delineate.config import Duration, Plan, checked, load_yaml
from delineate.errors import SettingsError


def train(
    dataset: Annotated[Path, typer.Argument(help="A canonical dataset with train and val.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The run's folder.")],
    budget: Annotated[
        str | None, typer.Option(help="Time from start to bundle: 30m, 1h30m.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps, instead of a budget.")] = None,
    plan: Annotated[Path | None, typer.Option(help="A plan.yaml; other options change it.")] = None,
    architecture: Annotated[
        str | None, typer.Option(help="unet, unet++, attention-unet or deeplabv3+.")
    ] = None,
    encoder: Annotated[str | None, typer.Option(help="resnet18, efficientnet-b4, ...")] = None,
    encoder_weights: Annotated[
        str | None, typer.Option(help="none, imagenet (downloads), or a .safetensors file.")
    ] = None,
    loss: Annotated[str | None, typer.Option(help="ce, dice, ce+dice or focal.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Crops in a step.")] = None,
    crop: Annotated[int | None, typer.Option(help="Side of the training crop, pixels.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of weights and samples.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the bundle.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in OUT.")] = False,
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
    duration = _duration(budget, steps)
    changes: dict[str, Any] = {
        "model.architecture": architecture,
        "model.encoder": encoder,
        "model.encoder_weights": encoder_weights,
        "loss.name": loss,
        "batch_size": batch_size,
        "crop_px": crop,
        "optimiser.learning_rate": learning_rate,
        "seed": seed,
    }
    changes = {key: value for key, value in changes.items() if value is not None}
    if encoder_weights == "none":
        changes["model.encoder_weights"] = None
    base = None if plan is None else load_yaml(plan, Plan)
    with extra("train"):
        from delineate.workflows.train import TrainSettings
        from delineate.workflows.train import train as run_training
    settings = TrainSettings(
        duration=duration,
        resume=resume,
        force=force,
        canary=not no_canary,
        name=name,
        command=shlex.join(["delineate", *sys.argv[1:]]),
        spent_s=time.monotonic() - started,
    )
    with _how_to_resume(out), Watching() as watching, _after_a_step(watching) as watch:
        result = run_training(
            dataset, out, plan=base, changes=changes, settings=settings, watch=watch
        )

    def show(console: Console) -> None:
        from delineate.evaluation.report import format_table

        console.print(format_table(result.evaluation.scores))
        console.print(
            f"{result.steps} steps in {result.elapsed_s:.0f} s; graph and network agree on "
            f"{result.exported.agreement:.3%} of pixels\n"
            f"bundle  {result.bundle}\nreport  {result.run / 'report.html'}"
        )

    emit(result.to_dict(), as_json=as_json, show=show)


def _duration(budget: str | None, steps: int | None) -> Duration:
    if (budget is None) == (steps is None):
        raise SettingsError(
            "says not how long" if budget is None else "says twice how long",
            where="delineate train",
            mend="Add either --budget 30m or --steps 2000.",
        )
    if budget is None:
        return checked(Duration, {"steps": steps}, "--steps")
    seconds = parse_duration(budget)
    if seconds == 0:
        raise SettingsError(
            f"{budget!r} is no time to train in", where="--budget", mend="Write 90s, 30m or 1h30m."
        )
    return Duration(budget_s=seconds)


@contextmanager
def _how_to_resume(out: Path) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        if not (out / "plan.yaml").exists():
            raise Interrupted("nothing was written yet") from None
        words = [word for word in sys.argv[1:] if word not in ("--force", "--resume")]
        command = shlex.join(["delineate", *words, "--resume"])
        raise Interrupted(f"to go on: {command}") from None


@contextmanager
def _after_a_step(watch: Callable[[Any], None]) -> Iterator[Callable[[Any], None]]:
    """A watcher that obeys Ctrl-C when a step is done, so that none is lost; a second at once."""
    pressed = False

    def on_signal(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        if pressed or not training:
            signal.default_int_handler(number, frame)
        pressed = True
        err.print("stopping after this step; Ctrl-C once more stops at once")

    training = False  # the loop looks at ``pressed``; what comes before and after it does not

    def watcher(event: Any) -> None:
        nonlocal training
        training = event.fraction < 1 and event.kind not in ("reading", "stopped")
        watch(event)
        if pressed:
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield watch
        return
    before = signal.signal(signal.SIGINT, on_signal)
    try:
        yield watcher
    finally:
        signal.signal(signal.SIGINT, before)


class Watching:
    """Shows the loop's events: a bar on a terminal, a line now and then elsewhere."""

    def __init__(self) -> None:
        self._bar = counting("training, % done", 100) if err.is_terminal else None
        self._update: Any = None
        self._said = 0.0

    def __enter__(self) -> Any:
        if self._bar is not None:
            self._update = self._bar.__enter__()
        return self

    def __exit__(self, *details: Any) -> None:
        if self._bar is not None:
            self._bar.__exit__(*details)

    def __call__(self, event: Any) -> None:
        now = time.monotonic()
        if event.kind == "reading":
            if now - self._said > 15:
                self._said = now
                err.print(f"reading every image and mask once, {event.fraction:.0%} done")
            return
        if self._update is not None:
            self._update(event.fraction * 100)
        if event.kind == "validation":
            best = math.nan if event.best_miou is None else event.best_miou
            err.print(f"step {event.step}: mIoU on val {event.val_miou:.4f} (best {best:.4f})")
        elif event.kind == "stopped":
            err.print(f"step {event.step}: stopped, the score on val gets no better")
        elif now - self._said > 15:
            self._said = now
            err.print(
                f"step {event.step}: loss {event.loss:.4f}, {event.images_per_s:.1f} images/s, "
                f"{event.fraction:.0%} done, {event.remaining_s:.0f} s left"
            )
