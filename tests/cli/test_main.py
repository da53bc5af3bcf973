"""What holds for every command, and everything that can be wrong with what it is given."""

from __future__ import annotations

import logging
import shutil
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
    ("train",),
    ("evaluate",),
    ("predict",),
    ("import-onnx",),
    ("serve",),
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


def wrong(delineate: Run, *arguments: object) -> str:
    """The error of a command that ends with status 2, the same with ``--json``."""
    done = delineate(*arguments)
    assert (done.status, done.out) == (2, "")
    message: str = done.error
    if arguments[0] != "serve":
        again = delineate(*arguments, "--json")
        assert (again.status, again.error) == (2, message)
        error = again.document["error"]
        assert error["found"] in message
        assert (error["where"] or "") in message
        assert message.endswith(error["mend"])
    return message


@pytest.mark.parametrize(
    "arguments",
    [
        ("train", "DATA", "-o", "OUT", "--steps", "2"),
        ("evaluate", "BUNDLE", "DATA"),
        ("data", "check", "DATA"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_an_absent_dataset(
    delineate: Run, trained: Any, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    places = {"DATA": tmp_path / "no", "OUT": tmp_path / "out", "BUNDLE": trained.bundle}
    message = wrong(delineate, *(places.get(word, word) for word in arguments))
    assert message == f"{tmp_path / 'no'}: no such folder."
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_no_dataset(delineate: Run, tmp_path: Path) -> None:
    message = wrong(delineate, "train", tmp_path, "-o", tmp_path / "run", "--steps", "2")
    assert message.startswith(f"{tmp_path}: is no dataset: it has no dataset.yaml.")


def test_no_val(delineate: Run, make_dataset: Run, tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data", val=0)
    message = wrong(delineate, "train", data, "-o", tmp_path / "run", "--steps", "2")
    assert message == f"{data}: has no split 'val'. Use one of: train (4 images)."


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("crop: 32", "crop: Extra inputs are not permitted (found 32)."),
        (
            "model: {encodr: resnet18}",
            "model.encodr: Extra inputs are not permitted (found 'resnet18').",
        ),
        ("- 1", "holds a list, not a mapping of fields."),
        ("batch_size: two", "batch_size: Input should be a valid integer, unable to parse"),
        ("{", "is no readable YAML ("),
        ("\x00", "is no readable YAML ("),
    ],
)
def test_a_wrong_plan(delineate: Run, trained: Any, tmp_path: Path, text: str, found: str) -> None:
    plan = tmp_path / "plan.yaml"
    plan.write_text(text)
    out = tmp_path / "run"
    done = delineate("train", trained.dataset, "-o", out, "--steps", "2", "--plan", plan)
    assert done.status == 2
    first = done.err.removeprefix("error: ")
    assert first.startswith(f"{plan}: {found}")
    assert "Traceback" not in done.err
    assert not out.exists()


def test_an_absent_plan(delineate: Run, trained: Any, tmp_path: Path) -> None:
    arguments = ("train", trained.dataset, "-o", tmp_path / "run", "--steps", "2")
    message = wrong(delineate, *arguments, "--plan", tmp_path / "plan.yaml")
    assert message == f"{tmp_path / 'plan.yaml'}: no such file."


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
            "the plan: model.architecture: Input should be 'unet', 'unet++', 'attention-unet' or "
            "'deeplabv3+' (found 'vnet').",
        ),
        (
            "--steps 2 --loss hinge",
            "the plan: loss.name: Input should be 'ce', 'dice', 'ce+dice' or 'focal' (found "
            "'hinge').",
        ),
        ("--steps 2 --name a/b", "name: 'a/b' cannot be a bundle's name. Use letters, digits, "
         "dots, dashes and underscores, a letter or digit first."),
    ],
)  # fmt: skip
def test_impossible_options_of_train(
    delineate: Run, trained: Any, tmp_path: Path, options: str, message: str
) -> None:
    arguments = ("train", trained.dataset, "-o", tmp_path / "run", *options.split())
    assert wrong(delineate, *arguments) == message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("encoder", "start"),
    [
        ("resnet19", "encoder resnet19: no encoder of this name is known."),
        ("mit_b0", "encoder mit_b0: "),
    ],
)
def test_encoders_that_cannot_be_had(
    delineate: Run, trained: Any, tmp_path: Path, encoder: str, start: str
) -> None:
    arguments = ("train", trained.dataset, "-o", tmp_path / "run", "--steps", "2")
    message = wrong(delineate, *arguments, "--encoder", encoder)
    assert message.startswith(start)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--engine", "warp"),
            "engine 'warp' is unknown. Choose from auto, onnxruntime, openvino.",
        ),
        (
            ("--tile", "8"),
            "--tile, --overlap: tile_px: Input should be greater than or equal to 32 (found 8)",
        ),
        (
            ("--tile", "64", "--overlap", "60"),
            "--tile, --overlap: the whole: Value error, overlap_px is 60, more than half of "
            "tile_px 64; use 32 or less",
        ),
    ],
)
def test_impossible_options_of_predict(
    delineate: Run, trained: Any, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    inputs = trained.dataset / "val/images"
    arguments = ("predict", trained.bundle, inputs, "-o", tmp_path / "out", *options)
    assert wrong(delineate, *arguments).startswith(message)
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
    delineate: Run, trained: Any, options: tuple[str, ...], message: str
) -> None:
    arguments = ("serve", trained.bundle, "--engine", "onnxruntime", *options)
    assert wrong(delineate, *arguments) == message


def test_a_port_in_use(delineate: Run, trained: Any) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        message = wrong(delineate, "serve", trained.bundle, "--port", port)
    assert message.startswith(
        f"127.0.0.1:{port}: the port is in use. Stop the program that uses it, or take another: "
        "--port "
    )


@pytest.mark.parametrize("command", ["evaluate", "predict", "serve"])
def test_an_altered_bundle(delineate: Run, trained: Any, tmp_path: Path, command: str) -> None:
    bundle = tmp_path / "altered.bundle"
    shutil.copytree(trained.bundle, bundle)
    network = bytearray((bundle / "model.onnx").read_bytes())
    network[len(network) // 2] ^= 1
    (bundle / "model.onnx").write_bytes(network)
    rest = {
        "evaluate": (trained.dataset,),
        "predict": (trained.dataset / "val/images", "-o", tmp_path / "out"),
        "serve": (),
    }
    message = wrong(delineate, command, bundle, *rest[command])
    assert message.startswith(f"{bundle}: model.onnx was altered: its SHA-256 is ")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["evaluate", "predict", "serve"])
def test_an_absent_bundle(delineate: Run, trained: Any, tmp_path: Path, command: str) -> None:
    rest = {
        "evaluate": (trained.dataset,),
        "predict": (trained.dataset / "val/images", "-o", tmp_path / "out"),
        "serve": (),
    }
    message = wrong(delineate, command, tmp_path / "no.bundle", *rest[command])
    assert message == (
        f"{tmp_path / 'no.bundle'}: no such bundle. delineate train writes RUN/NAME.bundle."
    )


@pytest.fixture
def data(trained: Any, tmp_path: Path) -> Path:
    """A copy of the dataset, to be spoilt."""
    shutil.copytree(trained.dataset, tmp_path / "data")
    return tmp_path / "data"


def train_and_evaluate(delineate: Run, trained: Any, data: Path) -> list[str]:
    out = data.parent / "run"
    messages = [
        wrong(delineate, "train", data, "-o", out, "--steps", "2"),
        wrong(delineate, "evaluate", trained.bundle, data, "--split", "train"),
    ]
    assert not out.exists()
    return messages


def test_a_truncated_image(delineate: Run, trained: Any, data: Path) -> None:
    image = data / "train/images/train1.png"
    image.write_bytes(image.read_bytes()[:400])
    for message in train_and_evaluate(delineate, trained, data):
        assert message.startswith(f"{image}: is ")


def test_text_by_the_name_of_an_image(delineate: Run, trained: Any, data: Path) -> None:
    image = data / "train/images/train1.png"
    image.write_text("a shopping list")
    for message in train_and_evaluate(delineate, trained, data):
        assert message == (
            f"{image}: is text (it starts with 'a shopping list'), not an image that can be read. "
            "Convert it to PNG, TIFF, JPEG, WebP or BMP."
        )


def test_a_huge_image(delineate: Run, trained: Any, data: Path, claim: bytes) -> None:
    image = data / "train/images/train1.png"
    image.write_bytes(claim)
    for message in train_and_evaluate(delineate, trained, data):
        assert message == (
            f"{image}: is 60000 x 60000 pixels (width x height), more than the limit of 268435456 "
            "pixels. Cut it into parts, or raise the pixel limit to 3600000000."
        )


@pytest.fixture
def claim() -> bytes:
    """A small PNG whose header claims a large image."""
    import struct
    import zlib

    def chunk(kind: bytes, content: bytes) -> bytes:
        checked = kind + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(99)))
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


def test_an_unknown_class_in_a_mask(delineate: Run, trained: Any, data: Path, plan: Path) -> None:
    import cv2
    import numpy as np

    mask = data / "train/masks/train1.png"
    cv2.imwrite(str(mask), np.full((48, 40), 7, np.uint8))
    found = f"{mask}: has the id 7 (1920 pixels), and the classes go from 0 to 2."
    message = wrong(delineate, "evaluate", trained.bundle, data, "--split", "train")
    assert message.startswith(found)
    done = delineate("train", data, "-o", data.parent / "run", "--steps", "9", "--plan", plan)
    assert done.status == 2
    assert done.error.startswith(found)


def test_a_mask_of_another_size(delineate: Run, trained: Any, data: Path) -> None:
    import cv2
    import numpy as np

    mask = data / "val/masks/val1.png"
    cv2.imwrite(str(mask), np.zeros((48, 41), np.uint8))
    message = wrong(delineate, "evaluate", trained.bundle, data)
    assert message == (
        f"{mask}: is 41 x 48 pixels (width x height), and its image val1.png is 40 x 48. Export "
        "the mask at 40 x 48, without interpolation."
    )


def test_a_corrupt_checkpoint(delineate: Run, trained: Any, tmp_path: Path) -> None:
    run = tmp_path / "first"
    shutil.copytree(trained.run, run)
    last = run / "checkpoints/last.safetensors"
    content = bytearray(last.read_bytes())
    content[-5] ^= 8
    last.write_bytes(content)
    message = wrong(delineate, "train", trained.dataset, "-o", run, "--steps", "2", "--resume")
    assert message == (
        f"{last}: was altered: its SHA-256 does not match. Delete it; --resume then starts the "
        "steps anew."
    )


def test_a_folder_that_cannot_be_written(
    delineate: Run, trained: Any, read_only: Path, plan: Path
) -> None:
    out = read_only / "out"
    why = "Read-only file system"
    arguments = ("train", trained.dataset, "-o", out, "--steps", "2", "--plan", plan)
    message = wrong(delineate, *arguments)
    assert message.replace("Permission denied", why) == f"{out}: cannot be made ({why})."
    message = wrong(delineate, "predict", trained.bundle, trained.dataset / "val/images", "-o", out)
    found = message.replace("Permission denied", why)
    assert found == f"{out / 'val0.png'}: cannot be written ({why})."
    message = wrong(delineate, "data", "synth", "tissue", "-n", "1", "--size", "64", out)
    assert message.replace("Permission denied", why) == f"{out}: cannot be written ({why})."


def test_a_full_disk(delineate: Run, trained: Any, small_disk: Path, plan: Path) -> None:
    mend = "the disk is full. Free some space and run the command again."
    run = small_disk / "run"
    done = delineate("train", trained.dataset, "-o", run, "--steps", "1", "--plan", plan)
    assert done.status == 2
    assert done.error == f"{run / 'checkpoints/best.safetensors'}: {mend}"
    assert list((run / "checkpoints").iterdir()) == []
    out = small_disk / "tissue"
    message = wrong(delineate, "data", "synth", "tissue", "-n", "9", "--size", "256", out)
    assert message.endswith(mend)
    assert not out.exists()


def test_a_full_disk_while_predicting(delineate: Run, trained: Any, small_disk: Path) -> None:
    (small_disk / "filler").write_bytes(bytes(252 * 1024))
    out = small_disk / "out"
    inputs = trained.dataset / "val/images"
    message = wrong(delineate, "predict", trained.bundle, inputs, "-o", out, "--probabilities")
    assert message.endswith("the disk is full. Free some space and run the command again.")
    assert not out.exists() or list(out.iterdir()) == []


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


def test_an_error_of_the_system(delineate: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    def fail(path: object) -> None:
        raise OSError(errno.EIO, "Input/output error", str(path))

    monkeypatch.setattr("delineate.cli.data.check_dataset", lambda path, **_: fail(path))
    assert wrong(delineate, "data", "check", "somewhere") == "somewhere: Input/output error."


def test_a_mistake_of_our_own_keeps_its_traceback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from delineate.cli.main import main

    def fail(path: object, **_: object) -> None:
        raise ZeroDivisionError(path)

    monkeypatch.setattr("delineate.cli.data.check_dataset", fail)
    monkeypatch.setattr("sys.argv", ["delineate", "data", "check", "somewhere"])
    with pytest.raises(ZeroDivisionError):
        main()


@pytest.mark.parametrize("arguments", [("data", "check", "somewhere")])
def test_ctrl_c(
    delineate: Run, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    def interrupt(path: object, **_: object) -> None:
        raise KeyboardInterrupt(path)

    monkeypatch.setattr("delineate.cli.data.check_dataset", interrupt)
    done = delineate(*arguments)
    assert (done.status, done.out) == (130, "")
    assert done.err.splitlines()[-1] == "interrupted; what was finished is kept"
    done = delineate(*arguments, "--json")
    assert done.status == 130
    assert done.document["error"]["kind"] == "Interrupted"
