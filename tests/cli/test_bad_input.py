"""Files and folders that are not what they should be: one line, status 2, nothing half-written."""

from __future__ import annotations

import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

Run = Callable[..., Any]


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
    wrong: Run, trained: Any, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    places = {"DATA": tmp_path / "no", "OUT": tmp_path / "out", "BUNDLE": trained.bundle}
    message = wrong(*(places.get(word, word) for word in arguments))
    assert message == f"{tmp_path / 'no'}: no such folder."
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_no_dataset(wrong: Run, tmp_path: Path) -> None:
    message = wrong("train", tmp_path, "-o", tmp_path / "run", "--steps", "2")
    assert message.startswith(f"{tmp_path}: is no dataset: it has no dataset.yaml.")


def test_no_val(wrong: Run, make_dataset: Run, tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data", val=0)
    message = wrong("train", data, "-o", tmp_path / "run", "--steps", "2")
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


def test_an_absent_plan(wrong: Run, trained: Any, tmp_path: Path) -> None:
    arguments = ("train", trained.dataset, "-o", tmp_path / "run", "--steps", "2")
    message = wrong(*arguments, "--plan", tmp_path / "plan.yaml")
    assert message == f"{tmp_path / 'plan.yaml'}: no such file."


@pytest.mark.parametrize(
    ("devices", "found"),
    [
        (0, "--devices: 0 cannot train anything. Use 1 or more."),
        (9999, "--devices: 9999 are wanted, and "),
    ],
)
def test_devices_that_are_not_there(
    wrong: Run, trained: Any, tmp_path: Path, devices: int, found: str
) -> None:
    arguments = ("train", trained.dataset, "-o", tmp_path / "run", "--steps", "2")
    assert wrong(*arguments, "--devices", devices).startswith(found)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["evaluate", "predict", "serve"])
def test_an_altered_bundle(wrong: Run, trained: Any, tmp_path: Path, command: str) -> None:
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
    message = wrong(command, bundle, *rest[command])
    assert message.startswith(f"{bundle}: model.onnx was altered: its SHA-256 is ")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["evaluate", "predict", "serve"])
def test_an_absent_bundle(wrong: Run, trained: Any, tmp_path: Path, command: str) -> None:
    rest = {
        "evaluate": (trained.dataset,),
        "predict": (trained.dataset / "val/images", "-o", tmp_path / "out"),
        "serve": (),
    }
    message = wrong(command, tmp_path / "no.bundle", *rest[command])
    assert message == (
        f"{tmp_path / 'no.bundle'}: no such bundle. delineate train writes RUN/NAME.bundle."
    )


@pytest.fixture
def data(trained: Any, tmp_path: Path) -> Path:
    """A copy of the dataset, to be spoilt."""
    shutil.copytree(trained.dataset, tmp_path / "data")
    return tmp_path / "data"


def train_and_evaluate(wrong: Run, trained: Any, data: Path) -> list[str]:
    out = data.parent / "run"
    messages = [
        wrong("train", data, "-o", out, "--steps", "2"),
        wrong("evaluate", trained.bundle, data, "--split", "train"),
    ]
    assert not out.exists()
    return messages


def test_a_truncated_image(wrong: Run, trained: Any, data: Path) -> None:
    image = data / "train/images/train1.png"
    image.write_bytes(image.read_bytes()[:400])
    for message in train_and_evaluate(wrong, trained, data):
        assert message.startswith(f"{image}: is ")


def test_text_by_the_name_of_an_image(wrong: Run, trained: Any, data: Path) -> None:
    image = data / "train/images/train1.png"
    image.write_text("a shopping list")
    for message in train_and_evaluate(wrong, trained, data):
        assert message == (
            f"{image}: is text (it starts with 'a shopping list'), not an image that can be read. "
            "Convert it to PNG, TIFF, JPEG, WebP or BMP."
        )


def test_a_huge_image(wrong: Run, trained: Any, data: Path, claim: bytes) -> None:
    image = data / "train/images/train1.png"
    image.write_bytes(claim)
    for message in train_and_evaluate(wrong, trained, data):
        assert message == (
            f"{image}: is 60000 x 60000 pixels (width x height), more than the limit of 268435456 "
            "pixels. Cut it into parts. The limit of delineate serve and of read_image is a "
            "setting, which would have to be 3600000000."
        )


@pytest.fixture
def claim() -> bytes:
    """A small PNG whose header claims a large image."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checked = kind + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(99)))
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


def test_an_unknown_class_in_a_mask(
    delineate: Run, wrong: Run, trained: Any, data: Path, plan: Path
) -> None:
    mask = data / "train/masks/train1.png"
    cv2.imwrite(str(mask), np.full((48, 40), 7, np.uint8))
    found = f"{mask}: has the id 7 (1920 pixels), and the classes go from 0 to 2."
    message = wrong("evaluate", trained.bundle, data, "--split", "train")
    assert message.startswith(found)
    done = delineate("train", data, "-o", data.parent / "run", "--steps", "9", "--plan", plan)
    assert done.status == 2
    assert done.error.startswith(found)


def test_a_mask_of_another_size(wrong: Run, trained: Any, data: Path) -> None:
    mask = data / "val/masks/val1.png"
    cv2.imwrite(str(mask), np.zeros((48, 41), np.uint8))
    message = wrong("evaluate", trained.bundle, data)
    assert message == (
        f"{mask}: is 41 x 48 pixels (width x height), and its image val1.png is 40 x 48. Export "
        "the mask at 40 x 48, without interpolation."
    )


def test_a_corrupt_checkpoint(wrong: Run, trained: Any, tmp_path: Path) -> None:
    run = tmp_path / "first"
    shutil.copytree(trained.run, run)
    last = run / "checkpoints/last.safetensors"
    content = bytearray(last.read_bytes())
    content[-5] ^= 8
    last.write_bytes(content)
    message = wrong("train", trained.dataset, "-o", run, "--steps", "2", "--resume")
    assert message == (
        f"{last}: was altered: its SHA-256 does not match. Delete it; --resume then starts the "
        "steps anew."
    )


def test_a_folder_that_cannot_be_written(
    wrong: Run, trained: Any, read_only: Path, plan: Path
) -> None:
    out = read_only / "out"
    why = "Read-only file system"
    arguments = ("train", trained.dataset, "-o", out, "--steps", "2", "--plan", plan)
    message = wrong(*arguments)
    assert message.replace("Permission denied", why) == f"{out}: cannot be made ({why})."
    message = wrong("predict", trained.bundle, trained.dataset / "val/images", "-o", out)
    found = message.replace("Permission denied", why)
    assert found == f"{out / 'val0.png'}: cannot be written ({why})."
    message = wrong("data", "synth", "tissue", "-n", "1", "--size", "64", out)
    assert message.replace("Permission denied", why) == f"{out}: cannot be written ({why})."


def test_a_full_disk(
    delineate: Run, wrong: Run, trained: Any, small_disk: Path, plan: Path
) -> None:
    mend = "the disk is full. Free some space and run the command again."
    run = small_disk / "run"
    done = delineate("train", trained.dataset, "-o", run, "--steps", "1", "--plan", plan)
    assert done.status == 2
    assert done.error == f"{run / 'checkpoints/last.safetensors'}: {mend}"
    assert list((run / "checkpoints").iterdir()) == []
    out = small_disk / "tissue"
    message = wrong("data", "synth", "tissue", "-n", "9", "--size", "256", out)
    assert message.endswith(mend)
    assert not out.exists()


def test_a_full_disk_while_predicting(wrong: Run, trained: Any, small_disk: Path) -> None:
    (small_disk / "filler").write_bytes(bytes(252 * 1024))
    out = small_disk / "out"
    inputs = trained.dataset / "val/images"
    message = wrong("predict", trained.bundle, inputs, "-o", out, "--probabilities")
    assert message.endswith("the disk is full. Free some space and run the command again.")
    assert not out.exists() or list(out.iterdir()) == []
