"""``delineate plan``."""

from __future__ import annotations

import re
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from delineate.cli.console import (
    DeviceOption,
    EngineOption,
    ForceOption,
    JsonOption,
    ThreadsOption,
    checked_ms,
    emit,
    err,
    extra,
    parse_duration,
    parse_size,
    plain_table,
)
from delineate.cli.training_options import duration_of
from delineate.cli.watching import Watching
from delineate.errors import SettingsError

if TYPE_CHECKING:
    from delineate.workflows.plan import Planned

_UNITS = {"kb": 2**10, "mb": 2**20, "gb": 2**30}


def plan(
    dataset: Annotated[Path, typer.Argument(help="A canonical dataset with a labelled train.")],
    p95_ms: Annotated[float, typer.Option(help="What 95 % of the calls may take, milliseconds.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The plan; a page and a JSON go beside it.")
    ] = Path("plan.yaml"),
    device: DeviceOption = "cpu",
    engine: EngineOption = "auto",
    threads: ThreadsOption = None,
    end_to_end: Annotated[
        bool,
        typer.Option("--end-to-end", help="The budget covers decoding and encoding as well."),
    ] = False,
    memory: Annotated[
        str | None, typer.Option(help="Peak of a process that runs it: 500MB, 2GB.")
    ] = None,
    image_size: Annotated[
        str | None, typer.Option(help="What is timed, HEIGHTxWIDTH; the median of train otherwise.")
    ] = None,
    train_budget: Annotated[
        str, typer.Option(help="How long the training may take: 30m, 1h30m.")
    ] = "30m",
    limit: Annotated[
        str, typer.Option(help="For looking at candidates and timing them, about: 90s, 4m.")
    ] = "4m",
    curve: Annotated[
        Path | None, typer.Option(help="The folder of train --curve, whose verdict is told too.")
    ] = None,
    tries: Annotated[
        int, typer.Option("--try", help="Really train so many of the best, by halving.")
    ] = 0,
    budget_of_tries: Annotated[
        str | None,
        typer.Option("--budget", help="Of --try: 2h for all trainings, a minute each at least."),
    ] = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Choose a network that fits a latency budget, by timing candidates on this machine.

    Latency does not depend on the weights, so nothing is trained, unless --try asks for it. Exit
    status 1 when nothing fits.

    Example: delineate plan DATASET --p95-ms 30

    Example: delineate plan DATASET --p95-ms 100 --end-to-end --memory 1GB --image-size 1024x1024

    Example: delineate plan DATASET --p95-ms 30 --try 4 --budget 2h
    """
    with extra("train"):
        from delineate.planning.choice import Budget
        from delineate.workflows.plan import PlanSettings
        from delineate.workflows.plan import plan as run

    budget = Budget(checked_ms(p95_ms), end_to_end, None if memory is None else parse_bytes(memory))
    settings = PlanSettings(
        engine=engine,
        device=device,
        threads=threads,
        image_hw=None if image_size is None else parse_size(image_size),
        train_s=_training_s(train_budget),
        limit_s=parse_duration(limit, "--limit"),
        curve=curve,
        tries=tries,
        tried_for=None if budget_of_tries is None else duration_of(budget_of_tries, None, "plan"),
    )

    def tell(line: str) -> None:
        err.print(line, highlight=False, markup=False)

    with Watching() if tries else nullcontext() as watch:
        found = run(
            dataset, budget, out=out, force=force, settings=settings, tell=tell, watch=watch
        )
    emit(found.to_dict(), as_json=as_json, show=lambda console: _show(console, found))
    if found.choice.row is None:
        raise typer.Exit(1)


def _training_s(text: str) -> float:
    found = parse_duration(text, "--train-budget")
    if found == 0:
        raise SettingsError(
            "there is no training in no time", where="--train-budget", mend="Give 30m, or more."
        )
    return found


def parse_bytes(text: str) -> int:
    """Bytes of ``500MB`` or ``2GB``, in powers of 1024.

    Raises:
        SettingsError: the text is no amount.
    """
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*(kb|mb|gb)", text.strip().lower())
    if match is None or float(match[1]) == 0:
        raise SettingsError(
            f"{text!r} is no amount of memory", where="--memory", mend="Write 500MB or 2GB."
        )
    return int(float(match[1]) * _UNITS[match[2]])


def _show(console: Console, found: Planned) -> None:
    table = plain_table("network", "p50 ms", "p95 ms", "whole", "MB", "mIoU", "fits")
    for row in found.rows:
        p50, p95 = (f"{row.network.quantile(q).value:.1f}" for q in (0.5, 0.95))
        table.add_row(
            row.name,
            p50,
            p95,
            f"{row.end_to_end.quantile(0.95).value:.1f}",
            "-" if row.memory_bytes is None else f"{row.memory_bytes / 2**20:.0f}",
            "-" if row.expected is None else f"{row.expected.miou:.3f}",
            "no" if row.reasons else "yes",
        )
    if found.rows:
        _show_rows(console, table, found)
    for item in found.left_out:
        console.print(f"not timed: {item.name} ({item.reason})")
    for sentence in (*found.choice.why, *found.advice):
        console.print(sentence)
    if found.files:
        console.print(f"plan  {found.files['plan']}  (delineate train DATASET --plan it)")
        console.print(f"page  {found.files['page']}")


def _show_rows(console: Console, table: Table, found: Planned) -> None:
    console.print(table)
    height, width = found.image_hw
    engines = " and ".join(sorted({row.contender.engine for row in found.rows}))
    console.print(
        f"One image of {height} x {width} px on {engines}, in turns. whole: p95 with decoding and "
        "encoding. MB: of a process. mIoU: as expected, for the order alone."
    )
