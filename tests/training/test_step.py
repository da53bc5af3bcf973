"""One step: smaller where memory is full, refused where there is no number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from delineate.errors import RefusedError
from delineate.training import step as step_module
from delineate.training.history import read_warnings
from delineate.training.job import Event, Job

MakeJob = Callable[..., Job]
RunJob = Callable[..., Any]


class Greedy(nn.Module):
    """A loss that finds memory full for more than ``most`` crops at once."""

    def __init__(self, most: int, seen: list[int]) -> None:
        super().__init__()
        self.most, self.seen = most, seen

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        if len(logits) > self.most:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        self.seen.append(len(logits))
        return nn.functional.cross_entropy(logits, target)


def greedy(monkeypatch: pytest.MonkeyPatch, most: int) -> list[int]:
    seen: list[int] = []
    monkeypatch.setattr(step_module, "build_loss", lambda *_, **__: Greedy(most, seen))
    return seen


def test_a_step_too_large_for_memory_is_tried_again_smaller(
    tmp_path: Path, job: MakeJob, run_job: RunJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = greedy(monkeypatch, 2)
    events: list[Event] = []
    state = run_job(job(tmp_path, steps=3, plan={"batch_size": 5}), watch=events.append)
    # 5 do not fit, nor do 3; 2, 2 and 1 do, and so it stays
    assert seen == [2, 2, 1] * 3
    assert state.micro_batch == 2
    told = [
        "Memory was full at step 0: 3 crops go through the network at once from now on, instead "
        "of 5.",
        "Memory was full at step 0: 2 crops go through the network at once from now on, instead "
        "of 3.",
    ]
    assert read_warnings(tmp_path) == told
    assert [event.text for event in events if event.kind == "note"] == told


def test_a_single_crop_too_large_is_refused(
    tmp_path: Path, job: MakeJob, run_job: RunJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    greedy(monkeypatch, 0)
    with pytest.raises(RefusedError) as caught:
        run_job(job(tmp_path))
    assert str(caught.value) == (
        "step 0: a single crop of 32 px does not fit the memory. Set crop_px to 16, or take a "
        "smaller network."
    )


def test_a_plan_that_exceeds_memory_is_cut_before_the_first_step(
    tmp_path: Path, job: MakeJob, run_job: RunJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("delineate.training.fit.memory_bytes", lambda: 140_000_000)
    events: list[Event] = []
    state = run_job(job(tmp_path, steps=1, plan={"batch_size": 64}), watch=events.append)
    assert 1 <= state.micro_batch < 64
    (told,) = read_warnings(tmp_path)
    assert [event.text for event in events if event.kind == "note"] == [told]
    assert told.startswith("A step of 64 crops of 32 px needs about ")
    assert told.endswith(f": {state.micro_batch} at once, and the gradients are added up.")


def test_accumulated_gradients_are_those_of_the_batch(
    tmp_path: Path, job: MakeJob, run_job: RunJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a network without batch statistics; five crops at once, or two, two and one."""
    weights = []
    for micro_batch in (5, 2):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 3, 1))
        monkeypatch.setattr(Job, "build", lambda _, network=network: network)
        plan = {"batch_size": 5, "micro_batch": micro_batch, "loss": {"name": "ce"}}
        made = job(tmp_path / str(micro_batch), steps=1, plan=plan)
        run_job(made)
        weights.append(load_file(made.last))
    moments = [name for name in weights[0] if name.endswith("/exp_avg")]  # a tenth of the gradient
    assert len(moments) == 4
    for name in moments:
        torch.testing.assert_close(weights[0][name], weights[1][name], rtol=1e-4, atol=1e-7)


def test_images_that_hold_no_numbers_are_named(
    tmp_path: Path, job: MakeJob, run_job: RunJob
) -> None:
    made = job(tmp_path, dtype="float32")
    usual = made.read

    def read(sample: Any) -> tuple[np.ndarray, np.ndarray]:
        image, mask = usual(sample)
        return (np.full_like(image, np.nan) if sample.name == "3" else image), mask

    with pytest.raises(RefusedError, match=r"the loss is nan at step \d; it comes from 3\. Look"):
        run_job(replace(made, read=read))


def test_the_average_is_validated_and_shipped(
    tmp_path: Path, job: MakeJob, run_job: RunJob
) -> None:
    made = job(tmp_path, steps=6, plan={"optimiser": {"ema": 0.9}})
    run_job(made)
    last, best = load_file(made.last), load_file(made.best)
    weights = [n.removeprefix("model/") for n in last if n.startswith("model/")]
    assert all(torch.equal(best[f"model/{n}"], last[f"ema/{n}"]) for n in weights)
    assert any(not torch.equal(best[f"model/{n}"], last[f"model/{n}"]) for n in weights)


def test_deterministic_is_for_the_time_of_the_training(
    tmp_path: Path, job: MakeJob, run_job: RunJob
) -> None:
    seen = []
    run_job(
        job(tmp_path, steps=1, plan={"deterministic": True}),
        watch=lambda _: seen.append(torch.are_deterministic_algorithms_enabled()),
    )
    assert all(seen)
    assert not torch.are_deterministic_algorithms_enabled()
