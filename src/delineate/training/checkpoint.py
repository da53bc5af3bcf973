"""Checkpoints: one safetensors file, written whole or not at all, never unpickled."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from delineate.data.files import write_bytes
from delineate.errors import CheckpointError
from delineate.training.ema import MovingAverage
from delineate.training.world import World

_MEND = "Delete it; --resume then starts the steps anew."


@dataclass(frozen=True)
class Progress:
    """Where a training stands.

    Attributes:
        step: optimiser steps done.
        elapsed_s: seconds spent so far, validation and checkpoints included.
        best_score: best mIoU on val so far, -1 before the first validation.
        best_step: when it was reached.
        newest_score: mIoU on val of the newest validation, None before the first.
        validations: validations done.
        stale: validations since the best.
        validation_s: seconds of the newest validation.
        seconds: what went into each kind of work so far (``step``, ``wait``, ``validation``, ...).
        micro_batch: crops that went through the network at once, 0 before that was known.
        arithmetic: state of the precision, the loss scale of fp16; empty for others.
    """

    step: int = 0
    elapsed_s: float = 0.0
    best_score: float = -1.0
    best_step: int = 0
    newest_score: float | None = None
    validations: int = 0
    stale: int = 0
    validation_s: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)
    micro_batch: int = 0
    arithmetic: dict[str, Any] = field(default_factory=dict)


def save_checkpoint(
    path: Path,
    model: nn.Module,
    optimiser: torch.optim.Optimizer | None,
    progress: Progress,
    identity: str,
    average: MovingAverage | None = None,
) -> None:
    """Write weights, optimiser, moving average and progress atomically.

    Args:
        path: a ``.safetensors`` file.
        model: the bare module.
        optimiser: left out of the best checkpoint, which is for using, not for resuming.
        progress: where the training stands.
        identity: hash of the plan and the dataset, checked by :func:`load_checkpoint`.
        average: of the weights; kept beside them.

    Raises:
        OutputError: the disk is full, or the folder cannot be written.
    """
    tensors = {f"model/{name}": value for name, value in model.state_dict().items()}
    if optimiser is not None:
        for index, entry in optimiser.state_dict()["state"].items():
            for name, value in entry.items():
                tensors[f"optimiser/{index}/{name}"] = torch.as_tensor(value)
    if average is not None:
        tensors |= {f"ema/{name}": value for name, value in average.averages.items()}
    tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    header = {"progress": json.dumps(asdict(progress)), "identity": identity}
    header["sha256"] = _digest(tensors, header)
    # not save_file: it leaves files of its own behind when it is killed
    write_bytes(path, save(tensors, metadata=header))


def check_checkpoint(path: Path, identity: str) -> None:
    """Look at the header of a checkpoint alone: whether it is of this plan and dataset.

    Raises:
        CheckpointError: it is not, or the file is damaged.
    """
    with _opened(path) as file:
        header = file.metadata() or {}
    _refuse_other(header, path, identity)


def load_checkpoint(
    path: Path,
    model: nn.Module,
    optimiser: torch.optim.Optimizer | None,
    identity: str | None,
    average: MovingAverage | None = None,
) -> Progress:
    """Read a checkpoint into ``model``, ``optimiser`` and ``average``.

    Raises:
        CheckpointError: the file is damaged, or of another plan, dataset or network.
    """
    with _opened(path) as file:
        header = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        progress = Progress(**json.loads(header["progress"]))
    if header.pop("sha256", None) != _digest(tensors, header):
        raise CheckpointError("was altered: its SHA-256 does not match", where=path, mend=_MEND)
    if identity is not None:
        _refuse_other(header, path, identity)
    weights = {n.removeprefix("model/"): t for n, t in tensors.items() if n.startswith("model/")}
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError("belongs to another network", where=path, mend=_MEND) from error
    if optimiser is not None:
        optimiser.load_state_dict(_optimiser_state(optimiser, tensors))
    if average is not None:
        average.load({n.removeprefix("ema/"): t for n, t in tensors.items() if n[:4] == "ema/"})
    return progress


def refuse_apart(path: Path, progress: Progress, world: World) -> None:
    """Raise when processes go on from different checkpoints.

    Gradients of weights that are not the same would be averaged without a word.

    Raises:
        CheckpointError: that is so.
    """
    steps = world.from_all((progress.step, progress.elapsed_s))
    if len(set(steps)) > 1:
        told = ", ".join(str(step) for step, _ in steps)
        raise CheckpointError(
            f"is not the same for all processes: it is of step {told} (0 is none)",
            where=path,
            mend="See that all machines have the same folder there, and --resume.",
        )


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The open file; what goes wrong in it is a CheckpointError."""
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except FileNotFoundError as error:
        raise CheckpointError("no such file", where=path, mend="Train again.") from error
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        raise CheckpointError(
            f"is no readable checkpoint ({error})", where=path, mend=_MEND
        ) from error


def _refuse_other(header: dict[str, str], path: Path, identity: str) -> None:
    if header.get("identity") != identity:
        raise CheckpointError(
            "belongs to another plan or dataset",
            where=path,
            mend="Resume with the plan and the dataset it was trained with, or train elsewhere.",
        )


def _optimiser_state(
    optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]
) -> dict[str, Any]:
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimiser/"):
            _, index, field = name.split("/")
            parameter = parameters[int(index)]
            if value.shape == parameter.shape:
                # a fused step walks memory, so moments must lie as their parameter does
                value = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
            state.setdefault(int(index), {})[field] = value
    return {"state": state, "param_groups": optimiser.state_dict()["param_groups"]}


def _digest(tensors: dict[str, Tensor], header: dict[str, str]) -> str:
    """SHA-256 (hex) over everything in the file but itself."""
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"\0{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
        digest.update(tensor.view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
