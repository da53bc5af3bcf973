"""A training that trains nothing, so that what is made of trainings is tested in no time."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from delineate.config import Plan, dump_yaml
from delineate.data.dataset import Dataset, Sample
from delineate.evaluation.details import DetailSettings
from delineate.evaluation.evaluate import Evaluation, evaluate
from delineate.export import Exported
from delineate.training.job import Event
from delineate.workflows import parts as parts_module
from delineate.workflows.train import TrainResult

TRUTH = np.repeat(np.array([[0], [1]], np.uint8), 40).reshape(8, 10)


class Killed(Exception):  # noqa: N818
    """Stands for a kill."""


def score(samples: Sequence[Sample], right: float) -> Evaluation:
    """Images of two classes, half and half; a share of their pixels is ``right``."""
    labels = TRUTH.copy()
    labels.ravel()[: round((1 - right) * labels.size)] = 2
    return evaluate(
        samples,
        lambda _: (np.zeros((8, 10, 3), np.uint8), TRUTH),
        lambda _: labels,
        classes=("sky", "ground", "car"),
        ignore_index=None,
        details=DetailSettings(),
    )


class FakeTraining:
    """Writes what a run leaves, and notes how it was called.

    Attributes:
        calls: what it was called with.
        right: share of right pixels by the run's name; 0.75 for others.
        killed_in: the run in which it is killed.
    """

    killed: type[Exception] = Killed

    def __init__(self, manifest: Any) -> None:
        self.calls: list[dict[str, Any]] = []
        self.right: dict[str, float] = {}
        self.killed_in: str | None = None
        self.manifest = manifest

    def __call__(
        self,
        data: Dataset,
        run: Path,
        *,
        plan: Plan | None,
        changes: Any,
        settings: Any,
        watch: Any,
    ) -> Any:
        self.calls.append(
            {
                "run": run.name,
                "data": data,
                "plan": plan,
                "changes": changes,
                "settings": settings,
            }
        )
        run.mkdir(exist_ok=True)
        if plan is not None:
            if settings.find:
                plan = plan.model_copy(update={"batch_size": 16})
            (run / "plan.yaml").write_text(dump_yaml(plan))
        (run / "run.json").write_text(json.dumps({"dataset_sha256": data.fingerprint()}))
        watch(Event("step", 3, 0.5, 10.0, 1.0, 2.0, None, None))
        if run.name == self.killed_in:
            raise Killed
        bundle = run / f"{settings.name or run.name}.bundle"
        document = {"bundle": str(bundle), "steps": 4, "elapsed_s": 9.0}
        (run / "result.json").write_text(json.dumps(document))
        evaluation, summaries = self.score_again(run.name, data.split("val"))
        return TrainResult(
            run, bundle, 4, 9.0, Exported(self.manifest, evaluation, 1.0, 0, summaries)
        )

    def score_again(self, run: str, val: Sequence[Sample]) -> tuple[Evaluation, np.ndarray]:
        return score(val, self.right.get(run, 0.75)), np.zeros((len(val), 5), np.float32)

    @property
    def runs(self) -> list[str]:
        return [call["run"] for call in self.calls]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, fake_bundle: Callable[..., Any]) -> FakeTraining:
    bundle = fake_bundle()
    found = FakeTraining(bundle.manifest)
    monkeypatch.setattr(parts_module, "train", found)
    monkeypatch.setattr(parts_module, "load", lambda *_, **__: bundle)
    monkeypatch.setattr(parts_module, "measure", lambda *given: found.score_again("", given[2]))
    return found


@pytest.fixture(scope="session")
def scored() -> Callable[[Sequence[Sample], float], Evaluation]:
    return score
