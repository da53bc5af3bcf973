"""The ``delineate`` command."""

from __future__ import annotations

import errno
import sys

import typer

from delineate.cli import bundles, data, demo, evaluate, predict, serve, train
from delineate.cli.console import err, report_error
from delineate.errors import DelineateError, OutputError

app = typer.Typer(
    name="delineate",
    help="From labelled images to a segmentation model running in production.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    add_completion=True,
)
app.command("demo")(demo.demo)
app.add_typer(data.app, name="data")
app.command("train")(train.train)
app.command("evaluate")(evaluate.evaluate)
app.command("predict")(predict.predict)
app.command("import-onnx")(bundles.import_onnx)
app.command("serve")(serve.serve)


def main() -> None:
    """Run a command; errors become one line and an exit status."""
    as_json = "--json" in sys.argv
    try:
        status = app(standalone_mode=False)
    except DelineateError as error:
        report_error(error, as_json=as_json)
        status = error.exit_status
    except OSError as error:
        if error.errno == errno.EPIPE:
            status = 0
        else:
            full = error.errno == errno.ENOSPC
            what = "the disk is full" if full else f"{error.strerror or error}"
            report_error(OutputError(what, where=error.filename), as_json=as_json)
            status = 2
    except KeyboardInterrupt:
        err.print("interrupted; what was finished is kept")
        status = 130
    except Exception as error:
        # usage errors of the option parser carry their own exit code and wording
        if not hasattr(error, "exit_code") or not hasattr(error, "show"):
            raise
        error.show()
        status = int(error.exit_code)
    sys.exit(status if isinstance(status, int) else 0)
