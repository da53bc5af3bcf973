"""What the commands that train have in common."""

from __future__ import annotations

import shlex
import sys
from typing import Annotated

import typer

from delineate.cli.console import parse_duration
from delineate.config import Duration, checked
from delineate.errors import SettingsError

StepsOption = Annotated[int | None, typer.Option(help="Optimiser steps, instead of a budget.")]
SeedOption = Annotated[int | None, typer.Option(help="Seed of weights and samples.")]
NameOption = Annotated[str | None, typer.Option(help="Name of the bundle.")]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Go on with what is in OUT.")]


def duration_of(budget: str | None, steps: int | None, command: str) -> Duration:
    """How long to train, by one of the two options.

    Raises:
        SettingsError: none of them is given, or both, or it is no time to train in.
    """
    if (budget is None) == (steps is None):
        raise SettingsError(
            "says not how long" if budget is None else "says twice how long",
            where=f"delineate {command}",
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


def command_line() -> str:
    """The command as it was typed, for the record."""
    return shlex.join(["delineate", *sys.argv[1:]])
