"""A real teacher of two steps and its students."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from delineate.bundle.load import load
from delineate.config import Duration
from delineate.data.dataset import Dataset
from delineate.errors import CheckpointError, DatasetError, SettingsError
from delineate.workflows.distill import Distilled, distill
from delineate.workflows.train import TrainSettings, train

STEPS = TrainSettings(Duration(steps=2))


@pytest.fixture(scope="module")
def distilled(
    trained: Any, tiny: dict[str, object], tmp_path_factory: pytest.TempPathFactory
) -> Distilled:
    out = tmp_path_factory.mktemp("distill") / "student"
    return distill(trained.bundle, trained.dataset, out, changes=tiny, settings=STEPS)


def test_the_student_stands_beside_the_same_student_alone(distilled: Distilled) -> None:
    document = json.loads((distilled.run / "distill.json").read_text())
    assert set(document["trainings"]) == {"distilled", "alone"}
    assert document["gain"]["low"] <= document["gain"]["value"] <= document["gain"]["high"]
    assert distilled.alone is not None
    same = distilled.student.part.plan, distilled.alone.part.plan
    assert same[0] == same[1]
    page = (distilled.run / "report.html").read_text()
    assert "the student alone" in page
    assert distilled.verdict in page


def test_the_students_bundle_names_its_teacher(distilled: Distilled, trained: Any) -> None:
    teacher = load(trained.bundle).manifest
    note = load(distilled.bundle).manifest.provenance["teacher"]
    assert note["name"] == teacher.name
    assert note["licence"] == teacher.provenance["licence"]
    assert note["sha256"] == teacher.files["model.onnx"]
    assert "teacher" in (distilled.bundle / "card.md").read_text()
    assert distilled.alone is not None
    assert "teacher" not in load(distilled.alone.bundle).manifest.provenance


def test_a_teacher_changes_the_weights(distilled: Distilled) -> None:
    assert distilled.alone is not None
    networks = [
        (done.bundle / "model.onnx").read_bytes() for done in (distilled.student, distilled.alone)
    ]
    assert networks[0] != networks[1]


def test_a_weight_of_zero_is_no_teacher(
    distilled: Distilled, trained: Any, tiny: dict[str, object], tmp_path: Path
) -> None:
    changes = {**tiny, "distillation.pixels": 0.0}
    found = distill(
        trained.run,
        trained.dataset,
        tmp_path / "out",
        changes=changes,
        settings=STEPS,
        compare=False,
    )
    assert distilled.alone is not None
    assert found.student.evaluation.scores == distilled.alone.evaluation.scores
    assert found.gain is None
    assert found.verdict.endswith("is not known.")


def test_images_without_labels(
    trained: Any, tiny: dict[str, object], tmp_path: Path, make_dataset: Callable[..., Path]
) -> None:
    more = make_dataset(tmp_path / "more", train=9) / "train/images"
    settings = TrainSettings(Duration(steps=2), unlabelled=more)
    found = distill(
        trained.bundle,
        trained.dataset,
        tmp_path / "out",
        changes=tiny,
        settings=settings,
        compare=False,
    )
    assert found.student.steps == 2
    own = load(found.bundle).manifest.provenance
    assert own["training_images"] == 4  # not the pictures without labels, and each of its own once
    (tmp_path / "empty").mkdir()
    settings = TrainSettings(Duration(steps=2), unlabelled=tmp_path / "empty")
    with pytest.raises(DatasetError, match="holds no images"):
        distill(trained.bundle, trained.dataset, tmp_path / "b", changes=tiny, settings=settings)


def test_what_the_dataset_ignores_does_not_disturb_the_teacher(
    trained: Any, tiny: dict[str, object], tmp_path: Path, make_dataset: Callable[..., Path]
) -> None:
    data = make_dataset(tmp_path / "data", ignore_index=255)  # and the teacher knows of none
    found = distill(
        trained.bundle, data, tmp_path / "out", changes=tiny, settings=STEPS, compare=False
    )
    assert found.teacher is not None
    assert found.teacher.n_images == 2


def test_a_finished_distillation_is_not_trained_again(
    distilled: Distilled, trained: Any, tiny: dict[str, object]
) -> None:
    settings = TrainSettings(Duration(steps=2), resume=True)
    again = distill(trained.bundle, trained.dataset, distilled.run, changes=tiny, settings=settings)
    assert again.student.evaluation.scores == distilled.student.evaluation.scores
    before = (distilled.student.bundle / "model.onnx").read_bytes()
    assert (again.student.bundle / "model.onnx").read_bytes() == before


def test_another_teacher_cannot_go_on(
    trained: Any, tiny: dict[str, object], tmp_path: Path
) -> None:
    other = train(
        trained.dataset, tmp_path / "other", changes={**tiny, "seed": 7}, settings=STEPS
    ).bundle
    out = tmp_path / "out"
    distill(trained.bundle, trained.dataset, out, changes=tiny, settings=STEPS, compare=False)
    (out / "distilled/result.json").unlink()
    settings = TrainSettings(Duration(steps=2), resume=True)
    with pytest.raises(CheckpointError):
        distill(other, trained.dataset, out, changes=tiny, settings=settings, compare=False)


def test_what_goes_with_a_teacher_alone(trained: Any, tmp_path: Path) -> None:
    settings = TrainSettings(Duration(steps=2), unlabelled=tmp_path)
    with pytest.raises(SettingsError, match="teach nothing without a teacher"):
        train(trained.dataset, tmp_path / "out", settings=settings)
    settings = TrainSettings(Duration(steps=2), nodes=2, rendezvous="host:1")
    with pytest.raises(SettingsError, match="have no teacher"):
        distill(trained.bundle, trained.dataset, tmp_path / "out", settings=settings)


def test_teachers_that_do_not_fit(
    trained: Any, tmp_path: Path, make_dataset: Callable[..., Path]
) -> None:
    other = make_dataset(tmp_path / "other", classes=("sky", "sea", "ship"))
    with pytest.raises(SettingsError, match="share only sky; the teacher has sky, ground, car"):
        distill(trained.bundle, other, tmp_path / "out", settings=STEPS)
    deep = make_dataset(
        tmp_path / "deep", classes=Dataset.open(trained.dataset).info.classes, channels=4
    )
    with pytest.raises(SettingsError, match="takes images of 3 channels of uint8"):
        distill(trained.bundle, deep, tmp_path / "out", settings=STEPS)
    with pytest.raises(SettingsError, match="is no bundle, nor a run with one"):
        distill(tmp_path, trained.dataset, tmp_path / "out", settings=STEPS)
    assert not (tmp_path / "out").exists()
