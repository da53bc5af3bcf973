"""The ``delineate`` command."""

from __future__ import annotations

import errno
import logging
import sys

import typer

from delineate.cli import (
    bench,
    bundles,
    compress,
    data,
    demo,
    distill,
    evaluate,
    fit,
    join,
    plan,
    predict,
    runs,
    serve,
    train,
)
from delineate.cli.console import Interrupted, emit_error, err, report_error
from delineate.errors import DelineateError, OutputError

INTERRUPTED = 130  # 128 and the number of SIGINT, as shells have it

app = typer.Typer(
    name="delineate",
    help="From labelled images to a segmentation model running in production.\n\n"
    "Example: delineate train DATASET -o runs/first --budget 30m, then "
    "delineate predict runs/first/first.bundle photos/ -o masks",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    add_completion=True,
)
app.command("demo")(demo.demo)
app.add_typer(data.app, name="data")
app.command("plan")(plan.plan)
app.command("train")(train.train)
app.command("fit")(fit.fit)
app.command("join")(join.join)
app.command("runs")(runs.runs)
app.command("evaluate")(evaluate.evaluate)
app.command("predict")(predict.predict)
app.command("compress")(compress.compress)
app.command("distill")(distill.distill)
app.command("bench")(bench.bench)
app.command("import-onnx")(bundles.import_onnx)
app.command("serve")(serve.serve)


def main() -> None:
    """Run a command; errors become one line and an exit status."""
    # it warns about tags of the files it reads; what is wrong with a file is in our own errors
    logging.getLogger("tifffile").addHandler(logging.NullHandler())
    sys.exit(_run(as_json="--json" in sys.argv))


def _run(*, as_json: bool) -> int:
    try:
        status = app(standalone_mode=False)
        if status == INTERRUPTED:  # what typer makes of Ctrl-C
            return _interrupted("files that were finished are kept", as_json=as_json)
    except DelineateError as error:
        report_error(error, as_json=as_json)
        return error.exit_status
    except OSError as error:
        full = error.errno == errno.ENOSPC
        what = "the disk is full" if full else f"{error.strerror or error}"
        mend = "Free some space and run the command again." if full else ""
        report_error(OutputError(what, where=error.filename, mend=mend), as_json=as_json)
        return OutputError.exit_status
    except Interrupted as error:
        return _interrupted(error.mend, as_json=as_json)
    except (KeyboardInterrupt, typer.Abort):
        return _interrupted("files that were finished are kept", as_json=as_json)
    except Exception as error:
        # usage errors of the option parser carry their own exit code and wording
        if not hasattr(error, "exit_code") or not hasattr(error, "show"):
            raise
        error.show()
        if as_json:
            found = error.format_message() if hasattr(error, "format_message") else str(error)
            emit_error("UsageError", found, mend="--help lists the options.")
        return int(error.exit_code)
    return status if isinstance(status, int) else 0


def _interrupted(mend: str, *, as_json: bool) -> int:
    err.print(f"interrupted; {mend}", highlight=False, markup=False)
    if as_json:
        emit_error("Interrupted", "interrupted", mend=mend)
    return INTERRUPTED
