from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from delineate.errors import CheckpointError, RefusedError
from delineate.evaluation.confusion import Confusion
from delineate.evaluation.evaluate import Evaluation
from delineate.evaluation.scores import compute_scores
from delineate.training import fit as fit_module
from delineate.training import step as step_module
from delineate.training.job import Event, Job
from delineate.training.log import read_metrics
from delineate.training.step import precision
from delineate.training.stream import Batch, SampleStream

MakeJob = Callable[..., Job]
RunJob = Callable[..., Any]


class Killed(Exception):  # noqa: N818
    """Stands for a kill: nothing of the training sees it coming."""


def kill_at(step: int) -> Callable[[Event], None]:
    def watch(event: Event) -> None:
        if event.kind == "step" and event.step == step:
            raise Killed

    return watch


def progress_of(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="pt") as file:
        found: dict[str, Any] = json.loads(file.metadata()["progress"])
        return found


def same_tensors(a: Path, b: Path) -> bool:
    first, second = load_file(a), load_file(b)
    assert first.keys() == second.keys()
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, job: MakeJob, run_job: RunJob) -> Path:
    """The folder of an uninterrupted run: 6 steps, 3 validations."""
    run = tmp_path_factory.mktemp("whole")
    run_job(job(run, plan={"validations": 3}))
    return run


def test_what_a_run_leaves(whole: Path) -> None:
    names = sorted(path.relative_to(whole).as_posix() for path in whole.rglob("*.*"))
    assert [n for n in names if "tensorboard" not in n] == [
        "checkpoints/best.safetensors",
        "checkpoints/last.safetensors",
        "metrics.csv",
    ]
    last = progress_of(whole / "checkpoints/last.safetensors")
    assert (last["step"], last["validations"]) == (6, 3)
    assert last["seconds"]["validation"] >= last["validation_s"] > 0
    assert last["seconds"]["step"] > 0
    assert progress_of(whole / "checkpoints/best.safetensors")["best_step"] == last["best_step"]
    rows = read_metrics(whole)
    assert [row["step"] for row in rows if row["loss"] is not None] == [1]
    assert [row["step"] for row in rows if row["val_miou"] is not None] == [2, 4, 6]
    events = EventAccumulator(str(whole / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("val_miou")] == [2, 4, 6]
    assert max(row["val_miou"] or 0 for row in rows) == last["best_score"]


def test_events_tell_how_far_it_is(tmp_path: Path, job: MakeJob, run_job: RunJob) -> None:
    events: list[Event] = []
    run_job(job(tmp_path, steps=4, plan={"validations": 2}), watch=events.append)
    kinds = [(event.kind, event.step) for event in events]
    assert kinds == [
        ("step", 1),
        ("validation", 2),
        ("step", 2),
        ("step", 3),
        ("step", 4),
        ("validation", 4),
    ]
    steps = [event for event in events if event.kind == "step"]
    assert [event.fraction for event in steps] == [0.25, 0.5, 0.75, 1.0]
    assert all(event.loss > 0 and event.images_per_s > 0 for event in steps)
    assert [event.val_miou is None for event in steps] == [True, False, False, False]
    assert steps[-1].remaining_s == 0


@pytest.mark.parametrize("saved", ["after every step", "at validations alone"])
def test_three_steps_a_kill_and_a_resume_give_the_same_weights(
    tmp_path: Path, job: MakeJob, run_job: RunJob, whole: Path, saved: str
) -> None:
    checkpoint_s = 1e-6 if saved == "after every step" else 1e6
    plan = {"validations": 3, "checkpoint_s": checkpoint_s}
    with pytest.raises(Killed):
        run_job(job(tmp_path, plan=plan), watch=kill_at(3))
    last = tmp_path / "checkpoints/last.safetensors"
    assert progress_of(last)["step"] == (3 if saved == "after every step" else 2)
    told: list[Event] = []
    run_job(job(tmp_path, plan=plan), resume=True, watch=told.append)
    assert told[0].step == (4 if saved == "after every step" else 3)
    assert told[0].val_miou is not None  # of the validation before the kill
    for name in ("last.safetensors", "best.safetensors"):
        assert same_tensors(tmp_path / "checkpoints" / name, whole / "checkpoints" / name)
    scores = [[row["val_miou"] for row in read_metrics(run)] for run in (tmp_path, whole)]
    assert scores[0] == scores[1]


def test_a_kill_before_the_second_checkpoint(
    tmp_path: Path, job: MakeJob, run_job: RunJob, whole: Path
) -> None:
    plan = {"validations": 3}
    with pytest.raises(Killed):
        run_job(job(tmp_path, plan=plan), watch=kill_at(1))
    assert progress_of(tmp_path / "checkpoints/last.safetensors")["step"] == 0
    run_job(job(tmp_path, plan=plan), resume=True)
    assert same_tensors(
        tmp_path / "checkpoints/last.safetensors", whole / "checkpoints/last.safetensors"
    )


def test_a_resume_of_a_finished_run_changes_nothing(
    tmp_path: Path, job: MakeJob, run_job: RunJob
) -> None:
    run_job(job(tmp_path, steps=2))
    before = load_file(tmp_path / "checkpoints/last.safetensors")
    rows = read_metrics(tmp_path)
    assert run_job(job(tmp_path, steps=2), resume=True).step == 2
    after = load_file(tmp_path / "checkpoints/last.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert read_metrics(tmp_path) == rows


def test_a_run_that_goes_on_for_longer_is_scored_at_its_new_length(
    tmp_path: Path, job: MakeJob, run_job: RunJob
) -> None:
    plan = {"validations": 2}
    run_job(job(tmp_path, steps=2, plan=plan))
    ended = run_job(job(tmp_path, steps=6, plan=plan), resume=True)
    scored = [int(row["step"]) for row in read_metrics(tmp_path) if row["val_miou"]]
    assert scored == [1, 2, 3, 6]
    assert (ended.step, ended.validations) == (6, 2)


SCRIPT = """
import importlib.util, os, signal, sys
from pathlib import Path
spec = importlib.util.spec_from_file_location("maker", sys.argv[1])
maker = importlib.util.module_from_spec(spec)
spec.loader.exec_module(maker)

def watch(event):
    if event.kind == "step" and event.step == 3:
        os.kill(os.getpid(), signal.SIGKILL)

job = maker.make_job(Path(sys.argv[2]), plan={"validations": 3, "checkpoint_s": 1e-6})
maker.fit(job, maker.make_stream(job), clock=maker.Clock(job.run / "clock", 0.0), watch=watch)
"""


def test_a_real_kill(tmp_path: Path, job: MakeJob, run_job: RunJob, whole: Path) -> None:
    maker = Path(__file__).with_name("conftest.py")
    command = [sys.executable, "-c", SCRIPT, str(maker), str(tmp_path)]
    done = subprocess.run(command, timeout=250, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert progress_of(tmp_path / "checkpoints/last.safetensors")["step"] == 3
    plan = {"validations": 3, "checkpoint_s": 1e-6}
    run_job(job(tmp_path, plan=plan), resume=True)
    assert same_tensors(
        tmp_path / "checkpoints/last.safetensors", whole / "checkpoints/last.safetensors"
    )


def test_ctrl_c_from_the_watcher_saves_first(
    tmp_path: Path, job: MakeJob, run_job: RunJob, whole: Path
) -> None:
    def watch(event: Event) -> None:
        if event.step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_job(job(tmp_path, plan={"validations": 3}), watch=watch)
    assert progress_of(tmp_path / "checkpoints/last.safetensors")["step"] == 3
    run_job(job(tmp_path, plan={"validations": 3}), resume=True)
    assert same_tensors(
        tmp_path / "checkpoints/last.safetensors", whole / "checkpoints/last.safetensors"
    )


def test_a_checkpoint_of_another_plan_is_refused(
    tmp_path: Path, job: MakeJob, run_job: RunJob
) -> None:
    run_job(job(tmp_path, steps=1))
    with pytest.raises(CheckpointError, match=r"belongs to another plan or dataset"):
        run_job(job(tmp_path, steps=1, identity="another"), resume=True)


def test_patience(
    tmp_path: Path, job: MakeJob, run_job: RunJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([0.3, 0.5, 0.5, 0.4, 0.9])
    fake = lambda *_, **__: evaluation(next(scores))  # noqa: E731
    monkeypatch.setattr(fit_module, "validate", fake)
    events: list[Event] = []
    plan = {"validations": 10, "patience": 2}
    state = run_job(job(tmp_path, steps=10, plan=plan), watch=events.append)
    assert (state.step, state.best_step, state.best_score, state.stale) == (4, 2, 0.5, 2)
    assert [event.kind for event in events][-1] == "stopped"
    assert progress_of(tmp_path / "checkpoints/best.safetensors")["step"] == 2
    assert progress_of(tmp_path / "checkpoints/last.safetensors")["step"] == 4
    again = run_job(job(tmp_path, steps=10, plan=plan), resume=True)
    assert again.step == 4


def evaluation(score: float) -> Evaluation:
    both = Confusion(("sky", "ground"), None)
    scores = replace(compute_scores(both), mean_iou=score, mean_dice=score)
    return Evaluation(both, scores, (), (), 1, 0, 1.0, 1.0, 0.0)


def test_a_score_that_is_no_number_is_never_the_best(
    tmp_path: Path, job: MakeJob, run_job: RunJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([float("nan"), 0.25])
    monkeypatch.setattr(fit_module, "validate", lambda *_, **__: evaluation(next(scores)))
    events: list[Event] = []
    state = run_job(job(tmp_path, steps=2, plan={"validations": 2}), watch=events.append)
    assert (state.best_score, state.best_step) == (0.25, 2)
    assert [e.best_miou for e in events if e.kind == "validation"] == [None, 0.25]


class Poisoned(nn.Module):
    """A loss that is no number, or whose gradient is none, from a call on."""

    def __init__(self, call: int, what: str) -> None:
        super().__init__()
        self.call, self.what, self.calls = call, what, 0

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        loss = (logits.mean(1) - target).square().mean()
        if self.calls < self.call:
            return loss
        if self.what == "loss":
            return loss * float("nan")
        return loss + ((logits - logits.detach()) * 1e30).pow(2).sqrt().sum() * 1e30


@pytest.mark.parametrize(("what", "name"), [("loss", "loss"), ("norm", "gradient's norm")])
def test_what_is_no_number_is_refused(
    tmp_path: Path,
    job: MakeJob,
    run_job: RunJob,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
    name: str,
) -> None:
    monkeypatch.setattr(step_module, "build_loss", lambda *_, **__: Poisoned(3, what))
    plan = {"checkpoint_s": 1e-6}
    with pytest.raises(RefusedError) as caught:
        run_job(job(tmp_path, plan=plan))
    assert str(caught.value) == (
        f"{tmp_path}: the {name} is nan at step 2; no image alone gives such a value; the batch "
        "held 1. Look at these images, or go on from the last good checkpoint with --resume and a "
        "lower --learning-rate, or with precision '32' in a --plan."
    )
    last = tmp_path / "checkpoints/last.safetensors"
    assert progress_of(last)["step"] == 2
    assert all(
        bool(torch.isfinite(t).all()) for t in load_file(last).values() if t.is_floating_point()
    )


def test_there_is_something_to_go_on_from_before_the_first_step(
    tmp_path: Path, job: MakeJob, run_job: RunJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step_module, "build_loss", lambda *_, **__: Poisoned(1, "loss"))
    made = job(tmp_path, plan={"checkpoint_s": 1e6})
    with pytest.raises(RefusedError, match="the loss is nan at step 0"):
        run_job(made)
    assert progress_of(made.last)["step"] == 0


def test_a_validation_that_exceeds_memory_is_refused(
    tmp_path: Path, job: MakeJob, run_job: RunJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> Evaluation:
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(fit_module, "validate", full)
    with pytest.raises(RefusedError) as caught:
        run_job(job(tmp_path, steps=1, plan={"tiling": {"tile_px": 64, "overlap_px": 0}}))
    assert str(caught.value) == (
        "step 1: a tile of 64 px does not fit the memory in a validation. Go on from the last "
        "checkpoint with --resume, a --plan in which tiling.tile_px is 32, and otherwise the same "
        "options."
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"classes": ("background", "cell")},
        {"ignore_index": 255},
        {"classes": ("background", "cell"), "ignore_index": 255},
        {"channels": 4, "dtype": "uint16"},
        {"channels": 1},
        {"dtype": "float32"},
    ],
    ids=lambda fields: " ".join(str(value) for value in fields.values()),
)
def test_kinds_of_data(
    tmp_path: Path, job: MakeJob, run_job: RunJob, fields: dict[str, Any]
) -> None:
    made = job(tmp_path, steps=2, **fields)
    losses: list[float] = []
    state = run_job(made, watch=lambda e: losses.append(e.loss) if e.kind == "step" else None)
    assert state.step == 2
    assert np.isfinite(losses).all()
    assert 0 <= state.best_score <= 1
    logits = made.build()(torch.zeros(1, made.channels, 32, 32))
    assert logits.shape[1] == (1 if len(made.classes) == 2 else 3)


def test_ignored_pixels_teach_nothing(
    tmp_path: Path, job: MakeJob, run_job: RunJob, stream: Callable[[Job], SampleStream]
) -> None:
    """Whatever the ignored rows of an image look like to the loss, the weights are the same."""
    made = job(tmp_path / "a", steps=1, ignore_index=9, plan={"loss": {"name": "ce"}})

    class Ignored(SampleStream):
        def batch(self, step: int) -> Batch:
            found = super().batch(step)
            return replace(found, masks=np.full_like(found.masks, 9))

    losses: list[float] = []
    whole = stream(made)
    ignored = Ignored(whole._samples, whole._make_crop, made.plan.batch_size, made.plan.seed)
    run_job(made, stream=ignored, watch=lambda event: losses.append(event.loss))
    assert losses[0] == 0


def test_training_learns(tmp_path: Path, job: MakeJob, run_job: RunJob) -> None:
    losses: list[float] = []
    made = job(tmp_path, steps=12, plan={"optimiser": {"learning_rate": 1e-2}})
    run_job(made, watch=lambda e: losses.append(e.loss) if e.kind == "step" else None)
    assert np.mean(losses[-3:]) < 0.8 * np.mean(losses[:3])


def test_the_largest_seed(tmp_path: Path, job: MakeJob, run_job: RunJob) -> None:
    assert run_job(job(tmp_path, steps=1, plan={"seed": 2**31 - 1})).step == 1


def test_precision_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [precision(n) for n in ("32", "bf16", "fp16")] == ["32-true", "bf16-mixed", "16-mixed"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for has, wanted in (({"avx512_bf16": True}, "bf16-mixed"), ({"avx2": True}, "32-true")):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda has=has: has)
        assert precision("auto") == wanted


def test_bf16(tmp_path: Path, job: MakeJob, run_job: RunJob) -> None:
    assert run_job(job(tmp_path, steps=2, plan={"precision": "bf16"})).step == 2
