"""``delineate demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from delineate.cli.console import ForceOption, JsonOption, emit, err, parse_duration, plain_table
from delineate.cli.watching import Watching
from delineate.data.files import refuse_existing
from delineate.errors import MissingExtraError


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for everything.")] = Path("demo"),
    budget: Annotated[str, typer.Option(help="Time for training, export included.")] = "330s",
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Run every stage once on generated tissue, in a few minutes on a CPU.

    Example: delineate demo --out demo, then open demo/index.html
    """
    try:
        from delineate.workflows.demo import DemoSettings
        from delineate.workflows.demo import demo as run
    except ImportError as error:
        raise MissingExtraError(error.name or "PyTorch", "all") from error
    if not force:
        refuse_existing(out)
    with Watching() as watch:
        found = run(
            out,
            settings=DemoSettings(budget_s=parse_duration(budget)),
            force=force,
            say=lambda line: err.print(line),
            watch=watch,
        )

    def show(console: Console) -> None:
        table = plain_table("on stains and scanners never trained on", "Dice of tumour")
        table.add_row("the network", f"{found.dice['network']:.3f}")
        table.add_row("control: Otsu's threshold", f"{found.dice['otsu']:.3f}")
        table.add_row("control: colour alone", f"{found.dice['colour']:.3f}")
        console.print(table)
        console.print(
            f"done in {sum(found.seconds.values()):.0f} s\npage    {found.page}\n"
            f"bundle  {found.training.bundle}"
        )

    emit(found.to_dict(), as_json=as_json, show=show)
