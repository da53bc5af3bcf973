"""Trainings by time, with a clock that a test turns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from delineate.config import Duration
from delineate.errors import SettingsError
from delineate.evaluation.confusion import Confusion
from delineate.evaluation.evaluate import Evaluation
from delineate.evaluation.scores import compute_scores
from delineate.training import fit as fit_module
from delineate.training.clock import Clock
from delineate.training.job import Event, Job
from delineate.training.log import read_metrics
from delineate.training.stream import SampleStream

MakeJob = Callable[..., Job]
MakeStream = Callable[[Job], SampleStream]


class Killed(Exception):  # noqa: N818
    """Stands for a kill: nothing of the training sees it coming."""


def evaluation(score: float) -> Evaluation:
    both = Confusion(("sky", "ground"), None)
    scores = replace(compute_scores(both), mean_iou=score, mean_dice=score)
    return Evaluation(both, scores, (), (), 1, 0, 1.0, 1.0, 0.0)


@pytest.fixture(autouse=True)
def _export_takes_20_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit_module, "EXPORT_S", 20.0)


class FakeClock(Clock):
    """Time that passes where a test says so."""

    def __init__(self, step_s: float) -> None:
        self.now, self.step_s = 0.0, step_s

    def elapsed_s(self) -> float:
        return self.now


def budget_job(job: MakeJob, run: Path, budget_s: float, **plan: Any) -> Job:
    made = job(run, plan={"checkpoint_s": 1e6} | plan)
    return replace(made, duration=Duration(budget_s=budget_s))


def passing(clock: FakeClock) -> Callable[[Event], None]:
    def watch(event: Event) -> None:
        if event.kind == "step":
            clock.now += clock.step_s

    return watch


def test_a_budget_ends_in_time_for_the_export(
    tmp_path: Path, job: MakeJob, stream: MakeStream
) -> None:
    clock = FakeClock(10.0)
    made = budget_job(job, tmp_path, 100.0)
    seen: list[float] = []

    def watch(event: Event) -> None:
        passing(clock)(event)
        seen.append(event.fraction)

    state = fit_module.fit(made, stream(made), clock=clock, watch=watch)
    assert state.step == 8  # 100 s less 20 s for the export, 10 s a step
    assert seen == [i / 8 for i in range(8)] + [1.0]


def test_a_validation_corrects_the_reserve(
    tmp_path: Path, job: MakeJob, stream: MakeStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeClock(10.0)
    take(monkeypatch, clock, validation_s=10.0)
    made = budget_job(job, tmp_path, 200.0, validations=4)
    state = fit_module.fit(made, stream(made), clock=clock, watch=passing(clock))
    # 200 s, less 20 s for the export and 20 s for two validations; one validation in between is
    # all that a tenth of the time pays for
    assert clock.now <= 200 - 20 - 10
    assert state.elapsed_s == clock.now
    assert state.validations == 4
    rows = [row for row in read_metrics(tmp_path) if row["val_miou"] is not None]
    assert len(rows) == 2
    assert (state.validation_s, state.seconds["validation"]) == pytest.approx((10, 20))


def take(monkeypatch: pytest.MonkeyPatch, clock: FakeClock, *, validation_s: float) -> None:
    """Let a validation take a time of its own."""

    def validate(*_: Any, **__: Any) -> Evaluation:
        clock.now += validation_s
        return evaluation(0.5)

    monkeypatch.setattr(fit_module, "validate", validate)
    ticks = count()  # no two looks give the same time
    fake = SimpleNamespace(perf_counter=lambda: clock.now + 1e-9 * next(ticks))
    monkeypatch.setattr(fit_module, "time", fake)


def test_validations_that_are_not_affordable_are_left_out(
    tmp_path: Path, job: MakeJob, stream: MakeStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = {}
    for validation_s in (1.0, 30.0):
        clock = FakeClock(10.0)
        with monkeypatch.context() as patch:
            take(patch, clock, validation_s=validation_s)
            run = tmp_path / str(validation_s)
            made = budget_job(job, run, 300.0, validations=5)
            fit_module.fit(made, stream(made), clock=clock, watch=passing(clock))
        steps[validation_s] = [row["val_miou"] for row in read_metrics(run) if row["val_miou"]]
    assert (len(steps[1.0]), len(steps[30.0])) == (5, 2)


def test_a_resumed_budget_remembers_what_a_validation_takes(
    tmp_path: Path, job: MakeJob, stream: MakeStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeClock(10.0)
    take(monkeypatch, clock, validation_s=10.0)
    made = budget_job(job, tmp_path, 200.0, validations=4, checkpoint_s=1e-6)

    def watch(event: Event) -> None:
        passing(clock)(event)
        if event.step == 8:
            raise Killed

    with pytest.raises(Killed):
        fit_module.fit(made, stream(made), clock=clock, watch=watch)
    fit_module.fit(made, stream(made), resume=True, clock=clock, watch=passing(clock))
    assert clock.now <= 200 - 20 - 10


def test_a_budget_that_is_over_before_the_first_step(
    tmp_path: Path, job: MakeJob, stream: MakeStream
) -> None:
    clock = FakeClock(10.0)
    clock.now = 12.0
    made = budget_job(job, tmp_path, 10.0)
    with pytest.raises(SettingsError) as caught:
        fit_module.fit(made, stream(made), clock=clock)
    assert str(caught.value) == (
        f"{tmp_path}: 10 s were over before the first step. Give a budget of at least 44 s."
    )
