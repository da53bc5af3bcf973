"""``delineate data``: datasets in and out, what is in them, and what is wrong with them."""

from __future__ import annotations

import typer

from delineate.cli.data_check import check
from delineate.cli.data_export import export
from delineate.cli.data_import import import_
from delineate.cli.data_stats import stats
from delineate.cli.data_synth import synth

app = typer.Typer(
    help="Datasets in and out of every label format, what is in them and what is wrong.\n\n"
    "Example: delineate data check DATASET",
    no_args_is_help=True,
)
app.command("import")(import_)
app.command("export")(export)
app.command("check")(check)
app.command("stats")(stats)
app.add_typer(synth, name="synth")
