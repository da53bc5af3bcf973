from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from delineate.bundle.load import load
from delineate.config import Duration
from delineate.data.dataset import Dataset, Sample
from delineate.errors import CheckpointError, DatasetError, SettingsError
from delineate.evaluation.confusion import Confusion
from delineate.evaluation.scores import compute_scores
from delineate.export import Exported
from delineate.training.job import Event
from delineate.workflows import folds as folds_module
from delineate.workflows.folds import FoldsResult, spread, together, train_folds
from delineate.workflows.training_setup import TrainSettings

Make = Callable[..., Path]
Scored = Callable[..., Any]


SETTINGS = TrainSettings(duration=Duration(steps=4))
RESUMED = TrainSettings(duration=Duration(steps=4), resume=True)


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch, fake: Any) -> list[Any]:
    """What the ensemble was exported with; nothing is written."""
    asked: list[Any] = []

    def export(_: Any, done: Any, held_out: Any, notes: Any) -> Exported:
        asked.append((done, held_out, notes))
        return Exported(fake.manifest, held_out.evaluation, 1.0, 0, held_out.summaries)

    monkeypatch.setattr(folds_module, "export_ensemble", export)
    return asked


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, make_dataset: Make) -> Path:
    return make_dataset(tmp_path_factory.mktemp("folds") / "data", train=7, val=3)


def test_every_image_is_held_out_once(
    data: Path, tmp_path: Path, fake: Any, exported: list[Any]
) -> None:
    found = train_folds(data, tmp_path / "out", folds=3, settings=SETTINGS)
    assert fake.runs == ["fold-0", "fold-1", "fold-2"]
    pool = {s for split in Dataset.open(data).splits.values() for s in split}
    held_out = [s for call in fake.calls for s in call["data"].split("val")]
    assert len(held_out) == len(pool) == 10
    assert set(held_out) == pool
    for call in fake.calls:
        assert set(call["data"].split("train")) == pool - set(call["data"].split("val"))
        assert call["settings"].duration == Duration(steps=4)
    assert len({str(call["plan"]) for call in fake.calls}) == 1
    assert found.evaluation.n_images == 10
    [(done, held, notes)] = exported
    assert len(done) == 3
    assert held.evaluation is found.evaluation
    assert held.summaries.shape == (10, 5)
    assert notes["members"] == ["fold-0", "fold-1", "fold-2"]
    assert "the ensemble itself has seen them all" in notes["scores"]


def test_what_it_leaves(data: Path, tmp_path: Path, fake: Any, exported: list[Any]) -> None:
    fake.right = {"fold-0": 0.5, "fold-1": 0.75, "fold-2": 1.0}
    out = tmp_path / "cross"
    found = train_folds(data, out, folds=3, settings=SETTINGS)
    document = json.loads((out / "folds.json").read_text())
    assert document == json.loads(json.dumps(found.to_dict()))
    assert document["bundle"] == str(out / "cross.bundle")
    assert len(exported) == 1
    folds = document["folds"]
    assert sorted(name for fold in folds for name in fold["names"]) == sorted(
        [*(f"train{i}" for i in range(7)), *(f"val{i}" for i in range(3))]
    )
    means = [fold["validation"]["mean_iou"] for fold in folds]
    assert document["spread"]["mean_iou"]["min"] == min(means)
    assert document["spread"]["mean_iou"]["mean"] == pytest.approx(sum(means) / 3)
    assert document["intervals"]["units"] == 10
    page = (out / "report.html").read_text()
    assert page.startswith("<!doctype html>")
    assert 'href="fold-2/report.html"' in page
    assert "ground" in page


def test_counts_are_added_up_not_scores(scored: Scored) -> None:
    samples = tuple(Sample(f"s{i}", Path(f"s{i}.png"), None, None) for i in range(5))
    parts = [scored(samples[:1], 1.0), scored(samples[1:], 0.5)]
    whole = together(parts)
    assert whole.n_images == 5
    both = Confusion(parts[0].confusion.classes, None)
    for part in parts:
        both.merge(part.confusion)
    total = compute_scores(both)
    assert whole.scores.to_dict() == total.to_dict()
    assert whole.scores.mean_iou != pytest.approx(
        (parts[0].scores.mean_iou + parts[1].scores.mean_iou) / 2, abs=1e-3
    )
    assert whole.details.images is not None
    assert whole.details.images.names == ("s0", "s1", "s2", "s3", "s4")
    assert whole.details.intervals is not None
    assert whole.best[0].sample == samples[0]


def test_the_spread_of_the_folds(scored: Scored) -> None:
    samples = (Sample("s", Path("s.png"), None, None),)
    scores = [scored(samples, right).scores for right in (1.0, 0.5)]
    found = spread(scores)["mean_iou"]
    values = [each.mean_iou for each in scores]
    assert found["max"] == max(values)
    assert found["std"] == pytest.approx((max(values) - min(values)) / 2**0.5)
    assert spread(scores[:1])["mean_iou"]["std"] is None


def test_a_killed_run_goes_on_where_it_was(
    data: Path, tmp_path: Path, fake: Any, exported: list[Any]
) -> None:
    out = tmp_path / "out"
    fake.killed_in = "fold-1"
    with pytest.raises(fake.killed):
        train_folds(data, out, folds=3, settings=SETTINGS)
    assert not exported
    first, fake.calls, fake.killed_in = fake.calls, [], None
    found = train_folds(data, out, folds=3, settings=RESUMED)
    assert [(c["run"], c["settings"].resume) for c in fake.calls] == [
        ("fold-1", True),
        ("fold-2", False),
    ]
    assert fake.calls[0]["data"].splits == first[1]["data"].splits
    assert found.evaluation.n_images == 10
    assert [each.steps for each in found.done] == [4, 4, 4]


def test_a_finished_fold_of_other_files(
    data: Path, tmp_path: Path, fake: Any, exported: list[Any]
) -> None:
    out = tmp_path / "out"
    fake.killed_in = "fold-1"
    with pytest.raises(fake.killed):
        train_folds(data, out, folds=3, settings=SETTINGS)
    (out / "fold-0/run.json").write_text(json.dumps({"dataset_sha256": "another"}))
    with pytest.raises(CheckpointError) as caught:
        train_folds(data, out, folds=3, settings=RESUMED)
    found = fake.calls[0]["data"].fingerprint()[:12]
    assert str(caught.value) == (
        f"{out / 'fold-0'}: was trained on None, whose files were others: their hash was another "
        f"and is {found}. Put the files back as they were, or train anew in another folder."
    )
    assert not exported


def test_force_removes_the_folds_of_an_earlier_run(
    data: Path, tmp_path: Path, fake: Any, exported: list[Any]
) -> None:
    out = tmp_path / "out"
    train_folds(data, out, folds=3, settings=SETTINGS)
    (out / "fold-notes").mkdir()
    forced = TrainSettings(duration=Duration(steps=4), force=True)
    train_folds(data, out, folds=2, settings=forced)
    assert {path.name for path in out.glob("fold-*")} == {"fold-0", "fold-1", "fold-notes"}
    assert fake.runs[3:] == ["fold-0", "fold-1"]
    assert len(exported) == 2


def test_a_budget_is_shared(data: Path, tmp_path: Path, fake: Any, exported: list[Any]) -> None:
    settings = TrainSettings(duration=Duration(budget_s=10_000))
    train_folds(data, tmp_path / "out", folds=4, settings=settings)
    shares = [call["settings"].duration.budget_s for call in fake.calls]
    reserve_s = 4 * folds_module.EXPORT_S
    # the fake takes no time, so that what is left grows for the folds that are left
    expected = [(10_000 - reserve_s) / left for left in (4, 3, 2, 1)]
    assert shares == pytest.approx(expected, rel=0.01)
    assert len(exported) == 1


def test_a_fold_that_goes_on_has_its_own_time_in_its_share(
    data: Path, tmp_path: Path, fake: Any, exported: list[Any]
) -> None:
    settings = TrainSettings(duration=Duration(budget_s=10_000))
    fake.killed_in = "fold-0"
    out = tmp_path / "out"
    with pytest.raises(fake.killed):
        train_folds(data, out, folds=2, settings=settings)
    (out / "clock").write_text("4000")
    (out / "fold-0/clock").write_text("3900")
    fake.calls, fake.killed_in = [], None
    resumed = TrainSettings(duration=Duration(budget_s=10_000), resume=True)
    train_folds(data, out, folds=2, settings=resumed)
    rest_s = 10_000 - 2 * folds_module.EXPORT_S - 4000 + 3900
    assert fake.calls[0]["settings"].duration.budget_s == pytest.approx(rest_s / 2, abs=20)
    assert len(exported) == 1


def test_a_budget_without_time_to_train_in_is_refused_first(
    data: Path, tmp_path: Path, fake: Any
) -> None:
    out = tmp_path / "out"
    with pytest.raises(SettingsError) as caught:
        train_folds(data, out, folds=2, settings=TrainSettings(duration=Duration(budget_s=100)))
    assert str(caught.value) == (
        "--budget: 100 s are less than the exports of 2 trainings take, about 100 s. "
        "Give 200 s or more."
    )
    assert not fake.calls
    assert not out.exists()


def test_a_budget_that_is_over(data: Path, tmp_path: Path, fake: Any, exported: list[Any]) -> None:
    out = tmp_path / "out"
    fake.killed_in = "fold-0"
    with pytest.raises(fake.killed):
        train_folds(data, out, folds=2, settings=TrainSettings(duration=Duration(budget_s=110)))
    (out / "clock").write_text("90")
    fake.calls.clear()
    resumed = TrainSettings(duration=Duration(budget_s=110), resume=True)
    with pytest.raises(SettingsError) as caught:
        train_folds(data, out, folds=2, settings=resumed)
    message = str(caught.value)
    assert message.startswith(f"{out}: 110 s are over, and 2 of its trainings are not done.")
    assert "Resume with a longer budget, of at least " in message
    assert not fake.calls
    assert not exported


def test_what_changes_on_a_resume_changes_in_the_folds_that_go_on(
    data: Path, tmp_path: Path, fake: Any, exported: list[Any]
) -> None:
    out = tmp_path / "out"
    fake.killed_in = "fold-1"
    with pytest.raises(fake.killed):
        train_folds(data, out, folds=3, settings=SETTINGS)
    fake.calls, fake.killed_in = [], None
    changes = {"optimiser.learning_rate": 1e-5}
    train_folds(data, out, folds=3, settings=RESUMED, changes=changes)
    goes_on, begins = fake.calls
    assert (goes_on["run"], goes_on["plan"], goes_on["changes"]) == ("fold-1", None, changes)
    assert (begins["run"], begins["changes"]) == ("fold-2", None)
    assert begins["plan"].optimiser.learning_rate == 1e-5
    assert len(exported) == 1


def test_another_number_of_folds_is_another_run(data: Path, tmp_path: Path, fake: Any) -> None:
    out = tmp_path / "out"
    fake.killed_in = "fold-1"
    with pytest.raises(fake.killed):
        train_folds(data, out, folds=3, settings=SETTINGS)
    with pytest.raises(SettingsError, match=r"holds a cross-validation in 3 folds, not .* in 2"):
        train_folds(data, out, folds=2, settings=RESUMED)


def test_what_the_first_fold_finds_holds_for_all(
    data: Path, tmp_path: Path, fake: Any, exported: list[Any]
) -> None:
    settings = TrainSettings(duration=Duration(steps=4), find=True)
    found = train_folds(data, tmp_path / "out", folds=3, settings=settings)
    assert [call["settings"].find for call in fake.calls] == [True, False, False]
    assert [call["plan"].batch_size for call in fake.calls] == [8, 16, 16]
    assert [done.part.plan.batch_size for done in found.done] == [16, 16, 16]
    assert len(exported) == 1


@pytest.mark.usefixtures("fake")
def test_the_progress_is_that_of_the_whole(data: Path, tmp_path: Path, exported: list[Any]) -> None:
    events: list[Event] = []
    train_folds(data, tmp_path / "out", folds=2, settings=SETTINGS, watch=events.append)
    assert [e.kind for e in events] == ["note", "step", "note", "step"]
    assert [e.fraction for e in events if e.kind == "step"] == [0.25, 0.75]
    assert [e.text for e in events if e.kind == "note"] == ["fold 1 of 2", "fold 2 of 2"]
    assert events[1].remaining_s == pytest.approx(20.0, abs=5)
    assert events[3].remaining_s == 10.0
    assert len(exported) == 1


def test_what_cannot_be_divided(data: Path, tmp_path: Path, fake: Any) -> None:
    with pytest.raises(SettingsError) as refused:
        train_folds(data, tmp_path / "out", folds=1, settings=SETTINGS)
    assert str(refused.value) == ("folds: 1 cannot be cross-validated. Use 2 or more; 5 is usual.")
    with pytest.raises(DatasetError) as caught:
        train_folds(data, tmp_path / "out", folds=11, settings=SETTINGS)
    assert str(caught.value) == (
        f"{data}: 11 parts need 11 images, and there are 10. Use 10 or fewer."
    )
    assert not fake.calls
    assert not (tmp_path / "out").exists()


@pytest.mark.long
def test_two_true_folds(
    tmp_path: Path, make_dataset: Make, tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make_dataset(tmp_path / "data", train=4, val=2)
    changes = tiny | {"model.encoder": "mobilenet_v2"}
    out = tmp_path / "cross"
    began = time.monotonic()
    found = train_folds(data, out, folds=2, changes=changes, settings=SETTINGS)
    assert isinstance(found, FoldsResult)
    assert found.elapsed_s <= time.monotonic() - began + 1
    bundle = load(out / "cross.bundle", engine="onnxruntime")
    manifest = bundle.manifest
    assert manifest.provenance["members"] == ["fold-0", "fold-1"]
    assert manifest.variants["float32"].scores["mean_iou"] == pytest.approx(
        found.scores.mean_iou, abs=1e-6
    )
    assert bundle.verify() == 4
    image = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), np.uint8)
    each = [
        load(out / f"fold-{k}/fold-{k}.bundle", engine="onnxruntime").predict(
            image, ("probabilities",)
        )["probabilities"]
        for k in range(2)
    ]
    mean = (each[0].astype(float) + each[1]) / 2
    whole = bundle.predict(image, ("probabilities",))["probabilities"]
    assert np.abs(whole - mean).max() <= 2
    # what is finished is scored again from its bundle; a second export would only take time
    monkeypatch.setattr(folds_module, "export_ensemble", lambda *_: found.exported)
    again = train_folds(data, out, folds=2, changes=changes, settings=RESUMED)
    assert again.scores.to_dict() == found.scores.to_dict()
