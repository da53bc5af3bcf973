"""What holds for every command, and everything that can be wrong with what it is given."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from delineate.cli.main import app

COMMANDS = [
    (),
    ("demo",),
    ("data",),
    ("data", "import"),
    ("data", "check"),
    ("data", "synth"),
    ("data", "synth", "tissue"),
    ("data", "synth", "cells"),
    ("data", "synth", "shapes"),
    ("data", "export"),
    ("data", "stats"),
    ("plan",),
    ("train",),
    ("fit",),
    ("evaluate",),
    ("compress",),
    ("distill",),
    ("bench",),
    ("predict",),
    ("import-onnx",),
    ("serve",),
    ("runs",),
    ("join",),
]
Run = Callable[..., Any]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_help_shows_an_example(command: tuple[str, ...]) -> None:
    done = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
    assert done.exit_code == 0
    assert "Example: delineate " + " ".join(command[:1]) in done.stdout


def test_every_command_is_listed_above() -> None:
    found = {name.name for name in app.registered_commands}
    found |= {group.name for group in app.registered_groups}
    assert found == {command[0] for command in COMMANDS if command}


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (("train", "data", "-o", "run", "--speed", "9"), "no such option: --speed"),
        (("train", "data"), "missing option '--out'"),
        (("evaluate", "model.bundle"), "missing argument 'dataset'"),
        (("fly",), "no such command 'fly'"),
        (
            ("train", "data", "-o", "run", "--steps", "many"),
            "invalid value for '--steps': ",
        ),
    ],
)
def test_wrong_usage(delineate: Run, arguments: tuple[str, ...], found: str) -> None:
    done = delineate(*arguments)
    assert (done.status, done.out) == (2, "")
    assert "Traceback" not in done.err
    done = delineate(*arguments, "--json")
    assert done.status == 2
    error = done.document["error"]
    assert (error["kind"], error["mend"]) == ("UsageError", "--help lists the options.")
    assert error["found"].lower().startswith(found)  # the rest is the option parser's wording


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            "",
            "delineate train: says not how long. Add either --budget 30m or --steps 2000.",
        ),
        (
            "--steps 2 --budget 1m",
            "delineate train: says twice how long. Add either --budget 30m or --steps 2000.",
        ),
        (
            "--steps -3",
            "--steps: steps: Input should be greater than or equal to 1 (found -3).",
        ),
        ("--steps 0", "--steps: steps: Input should be greater than or equal to 1 (found 0)."),
        ("--budget 0s", "--budget: '0s' is no time to train in. Write 90s, 30m or 1h30m."),
        ("--budget soon", "--budget: 'soon' is no duration. Write 90s, 30m or 1h30m."),
        (
            "--steps 2 --crop 0",
            "the plan: crop_px: Input should be greater than or equal to 32 (found 0).",
        ),
        (
            "--steps 2 --batch-size 0",
            "the plan: batch_size: Input should be greater than or equal to 1 (found 0).",
        ),
        (
            "--steps 2 --learning-rate -1",
            "the plan: optimiser.learning_rate: Input should be greater than 0 (found -1.0).",
        ),
        (
            "--steps 2 --architecture vnet",
            "the plan: model.architecture: Input should be 'unet', 'unet++', 'attention-unet', "
            "'manet', 'linknet', 'fpn', 'pspnet', 'pan', 'upernet', 'deeplabv3', 'deeplabv3+', "
            "'deeplabv3-resnet101', 'segformer', 'fast-scnn' or 'ddrnet-23-slim' (found 'vnet').",
        ),
        (
            "--steps 2 --loss hinge",
            "the plan: loss.name: 'hinge' is no loss; the terms are ce, focal, ohem, "
            "dice, tversky, lovasz, boundary, as in ce+0.5*lovasz (found 'hinge').",
        ),
        ("--steps 2 --name a/b", "name: 'a/b' cannot be a bundle's name. Use letters, digits, "
         "dots, dashes and underscores, a letter or digit first."),
    ],
)  # fmt: skip
def test_impossible_options_of_train(
    wrong: Run, trained: Any, tmp_path: Path, options: str, message: str
) -> None:
    arguments = ("train", trained.dataset, "-o", tmp_path / "run", *options.split())
    assert wrong(*arguments) == message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("encoder", "start"),
    [
        ("resnet19", "encoder resnet19: no encoder of this name is known."),
        ("mit_b0", "encoder mit_b0: "),
    ],
)
def test_encoders_that_cannot_be_had(
    wrong: Run, trained: Any, tmp_path: Path, encoder: str, start: str
) -> None:
    arguments = ("train", trained.dataset, "-o", tmp_path / "run", "--steps", "2")
    message = wrong(*arguments, "--encoder", encoder)
    assert message.startswith(start)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--engine", "warp"),
            "engine 'warp' is unknown. Choose from auto, onnxruntime, openvino, tensorrt.",
        ),
        (
            ("--tile", "8"),
            "--tile, --overlap: tile_px: Input should be greater than or equal to 32 (found 8)",
        ),
        (
            ("--tile", "64", "--overlap", "60"),
            "--tile, --overlap: the whole: overlap_px is 60, more than half of "
            "tile_px 64; use 32 or less",
        ),
    ],
)
def test_impossible_options_of_predict(
    wrong: Run, trained: Any, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    inputs = trained.dataset / "val/images"
    arguments = ("predict", trained.bundle, inputs, "-o", tmp_path / "out", *options)
    assert wrong(*arguments).startswith(message)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--port", "70000"), "port 70000 is out of range. Choose one of 1 to 65535."),
        (
            ("--max-body-mb", "nan"),
            "delineate serve: max_body_bytes: Input should be greater than or equal to 1 (found "
            "0).",
        ),
        (
            ("--queue-length", "-1"),
            "delineate serve: queue_length: Input should be greater than or equal to 0 (found -1).",
        ),
    ],
)
def test_impossible_options_of_serve(
    wrong: Run, trained: Any, options: tuple[str, ...], message: str
) -> None:
    arguments = ("serve", trained.bundle, "--engine", "onnxruntime", *options)
    assert wrong(*arguments) == message


def test_a_port_in_use(wrong: Run, trained: Any) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        message = wrong("serve", trained.bundle, "--port", port)
    assert message.startswith(
        f"127.0.0.1:{port}: the port is in use. Stop the program that uses it, or take another: "
        "--port "
    )


@pytest.mark.parametrize(
    ("package", "name", "arguments"),
    [
        ("torch", "train", ("train", "data", "-o", "run", "--steps", "2")),
        ("fastapi", "serve", ("serve", "model.bundle")),
        ("prometheus_client", "serve", ("serve", "model.bundle")),
    ],
)
def test_a_missing_extra(process: Run, package: str, name: str, arguments: tuple[str, ...]) -> None:
    done = process(*arguments, "--json", before=f"sys.modules[{package!r}] = None")
    if name == "serve":  # which has no --json
        done = process(*arguments, before=f"sys.modules[{package!r}] = None")
    assert done.status == 2
    assert done.error == (
        f"this needs {package}, which is not installed. Install it with: pip install "
        f"'delineate[{name}]'"
    )


def test_tifffile_is_silent(delineate: Run) -> None:
    delineate("--help")
    handlers = logging.getLogger("tifffile").handlers
    assert any(isinstance(handler, logging.NullHandler) for handler in handlers)


def test_an_error_of_the_system(wrong: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    def fail(path: object) -> None:
        raise OSError(errno.EIO, "Input/output error", str(path))

    monkeypatch.setattr("delineate.cli.data_check.check_dataset", lambda path, **_: fail(path))
    assert wrong("data", "check", "somewhere") == "somewhere: Input/output error."


def test_a_mistake_of_our_own_keeps_its_traceback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from delineate.cli.main import main

    def fail(path: object, **_: object) -> None:
        raise ZeroDivisionError(path)

    monkeypatch.setattr("delineate.cli.data_check.check_dataset", fail)
    monkeypatch.setattr("sys.argv", ["delineate", "data", "check", "somewhere"])
    with pytest.raises(ZeroDivisionError):
        main()


@pytest.mark.parametrize("arguments", [("data", "check", "somewhere")])
def test_ctrl_c(
    delineate: Run, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    def interrupt(path: object, **_: object) -> None:
        raise KeyboardInterrupt(path)

    monkeypatch.setattr("delineate.cli.data_check.check_dataset", interrupt)
    done = delineate(*arguments)
    assert (done.status, done.out) == (130, "")
    assert done.err.splitlines()[-1] == "interrupted; files that were finished are kept"
    done = delineate(*arguments, "--json")
    assert done.status == 130
    assert done.document["error"]["kind"] == "Interrupted"
