from __future__ import annotations

import ast
import errno
import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from delineate.errors import CheckpointError, OutputError
from delineate.training.checkpoint import Progress, load_checkpoint, save_checkpoint

SRC = Path(__file__).resolve().parents[2] / "src"
PICKLERS = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
MEND = "Delete it; --resume then starts the steps anew."
PROGRESS = Progress(
    step=3,
    elapsed_s=1.5,
    best_score=0.25,
    best_step=2,
    validations=1,
    stale=1,
    validation_s=0.5,
    seconds={"step": 0.5, "validation": 0.75},
    micro_batch=4,
    arithmetic={"scale": 2.0},
)


def network(width: int = 4, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.Conv2d(width, 2, 1))


def trained(steps: int = 3) -> tuple[nn.Module, torch.optim.Optimizer]:
    module = network()
    optimiser = torch.optim.AdamW(module.parameters(), lr=0.1)
    for step in range(steps):
        take_step(module, optimiser, step)
    return module, optimiser


def take_step(module: nn.Module, optimiser: torch.optim.Optimizer, step: int) -> None:
    torch.manual_seed(step)
    module(torch.randn(2, 3, 8, 8)).square().mean().backward()
    optimiser.step()
    optimiser.zero_grad()


def saved(path: Path) -> Path:
    save_checkpoint(path, *trained(), PROGRESS, "abc")
    return path


def refused(path: Path, *, module: nn.Module | None = None, identity: str = "abc") -> str:
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path, module or network(), None, identity)
    return str(caught.value)


def equal(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_resumed_optimiser_goes_on_bit_for_bit(tmp_path: Path) -> None:
    module, optimiser = trained()
    save_checkpoint(tmp_path / "last.safetensors", module, optimiser, PROGRESS, "abc")
    other = network(seed=9)
    other_optimiser = torch.optim.AdamW(other.parameters(), lr=0.1)
    path = tmp_path / "last.safetensors"
    assert load_checkpoint(path, other, other_optimiser, "abc") == PROGRESS
    assert equal(module.state_dict(), other.state_dict())
    for step in range(3, 6):
        take_step(module, optimiser, step)
        take_step(other, other_optimiser, step)
    assert equal(module.state_dict(), other.state_dict())
    assert [file.name for file in tmp_path.iterdir()] == ["last.safetensors"]


def test_weights_alone_for_use(tmp_path: Path) -> None:
    module, _ = trained()
    save_checkpoint(tmp_path / "best.safetensors", module, None, Progress(), "abc")
    other = network(seed=9)
    assert load_checkpoint(tmp_path / "best.safetensors", other, None, None) == Progress()
    assert equal(module.state_dict(), other.state_dict())


def test_absent(tmp_path: Path) -> None:
    path = tmp_path / "last.safetensors"
    assert refused(path) == f"{path}: no such file. Train again."


def test_truncated(tmp_path: Path) -> None:
    path = saved(tmp_path / "last.safetensors")
    whole = path.read_bytes()
    for length in (0, 5, 8, 100, len(whole) - 1):
        path.write_bytes(whole[:length])
        message = refused(path)
        assert message.startswith(f"{path}: is no readable checkpoint (")
        assert message.endswith(f"). {MEND}")


def test_another_file(tmp_path: Path) -> None:
    path = tmp_path / "last.safetensors"
    path.write_bytes(b"\x80\x04\x95 a pickle, which is never opened" * 10)
    assert refused(path).startswith(f"{path}: is no readable checkpoint (")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return saved(tmp_path_factory.mktemp("whole") / "last.safetensors").read_bytes()


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_changed_byte_anywhere(
    whole: bytes, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    place = data.draw(st.integers(0, len(whole) - 1))
    change = data.draw(st.integers(1, 255))
    path = tmp_path_factory.getbasetemp() / "changed.safetensors"
    path.write_bytes(whole[:place] + bytes([whole[place] ^ change]) + whole[place + 1 :])
    assert refused(path).endswith(MEND)


def test_a_changed_weight(tmp_path: Path, whole: bytes) -> None:
    path = tmp_path / "last.safetensors"
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert refused(path) == f"{path}: was altered: its SHA-256 does not match. {MEND}"


def test_a_changed_step(tmp_path: Path, whole: bytes) -> None:
    path = tmp_path / "last.safetensors"
    assert whole.count(rb"\"step\": 3") == 1
    path.write_bytes(whole.replace(rb"\"step\": 3", rb"\"step\": 4"))
    assert refused(path) == f"{path}: was altered: its SHA-256 does not match. {MEND}"


def test_a_header_without_our_fields(tmp_path: Path) -> None:
    path = tmp_path / "last.safetensors"
    header = json.dumps({"__metadata__": {"format": "pt"}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    assert refused(path) == f"{path}: is no readable checkpoint ('progress'). {MEND}"


def test_another_plan_or_dataset(tmp_path: Path) -> None:
    path = saved(tmp_path / "last.safetensors")
    assert refused(path, identity="abd") == (
        f"{path}: belongs to another plan or dataset. Resume with the plan and the dataset it was "
        "trained with, or train elsewhere."
    )
    assert load_checkpoint(path, network(), None, None) == PROGRESS


def test_another_network(tmp_path: Path) -> None:
    path = saved(tmp_path / "last.safetensors")
    message = refused(path, module=network(width=5))
    assert message == f"{path}: belongs to another network. {MEND}"


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, "the disk is full. Free some space and run the command again."),
        (errno.EACCES, "cannot be written (Permission denied)."),
    ],
)
def test_a_full_disk_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, message: str
) -> None:
    path = saved(tmp_path / "last.safetensors")
    before = path.read_bytes()

    def fail(part: Path, data: bytes) -> int:
        with part.open("wb") as file:
            file.write(data[:100])
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(OutputError) as caught:
        save_checkpoint(path, *trained(1), Progress(), "abc")
    monkeypatch.undo()
    assert str(caught.value) == f"{path}: {message}"
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["last.safetensors"]


def test_nothing_is_ever_unpickled() -> None:
    found = []
    for file in SRC.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            match node:
                case ast.Import(names=names) if PICKLERS & {name.name for name in names}:
                    found.append((file.name, node.lineno))
                case ast.ImportFrom(module=module) if module in PICKLERS:
                    found.append((file.name, node.lineno))
                case ast.Attribute(value=ast.Name(id="torch"), attr="load"):
                    found.append((file.name, node.lineno))
                case ast.keyword(arg="allow_pickle", value=ast.Constant(value=True)):
                    found.append((file.name, node.lineno))
    assert found == []
