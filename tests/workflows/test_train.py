from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from delineate.bundle.load import load
from delineate.config import Duration, Plan, load_yaml
from delineate.data.augment import as_augmentation
from delineate.data.dataset import Dataset
from delineate.data.images import read_image
from delineate.errors import (
    CheckpointError,
    DatasetError,
    DelineateError,
    ImageError,
    MaskError,
    ModelError,
    OutputError,
    SettingsError,
)
from delineate.training.folder import locked
from delineate.training.job import Event
from delineate.workflows.train import TrainSettings, train
from delineate.workflows.training_setup import bundle_name

Make = Callable[..., Path]
SETTINGS = TrainSettings(duration=Duration(steps=2))
RESUMED = TrainSettings(duration=Duration(steps=2), resume=True)


class Enough(Exception):  # noqa: N818
    """Ends a training where a test has seen what it wants."""


def stop(event: Event) -> None:
    raise Enough(event.step)


def refused(kind: type[DelineateError], *arguments: Any, **options: Any) -> str:
    with pytest.raises(kind) as caught:
        train(*arguments, **({"settings": SETTINGS} | options))
    return str(caught.value)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, make_dataset: Make) -> Path:
    return make_dataset(tmp_path_factory.mktemp("data") / "data")


def test_what_a_training_leaves(trained: Any) -> None:
    names = {path.name for path in trained.run.iterdir()}
    assert names == {
        ".lock",
        "checkpoints",
        "clock",
        "first.bundle",
        "history.jsonl",
        "metrics.csv",
        "plan.yaml",
        "report.html",
        "result.json",
        "run.json",
        "samples",
        "tensorboard",
        "validation.html",
    }
    assert json.loads((trained.run / "result.json").read_text()) == trained.result.to_dict()
    record = json.loads((trained.run / "run.json").read_text())
    assert record["dataset_sha256"] == Dataset.open(trained.dataset).fingerprint()
    assert record["duration"] == {"steps": 2, "budget_s": None}
    assert record["command"] == "delineate train data -o first"
    assert (trained.run / "report.html").read_text().startswith("<!doctype html>")


def test_the_result(trained: Any) -> None:
    result = trained.result
    assert (result.steps, result.bundle) == (2, trained.run / "first.bundle")
    assert result.elapsed_s > 0
    document = result.to_dict()
    assert document["export"]["agreement"] >= 0.9995
    assert document["export"]["largest_difference_255ths"] <= 2
    assert len(document["validation"]["classes"]) == 3
    assert result.evaluation.n_images == 2


def test_the_bundle_says_where_it_comes_from(trained: Any, tiny: dict[str, Any]) -> None:
    manifest = load(trained.bundle, engine="onnxruntime").manifest
    assert (manifest.name, manifest.task) == ("first", "multiclass")
    assert manifest.class_names == ("sky", "ground", "car")
    assert (manifest.input.channels, manifest.input.dtype) == (3, "uint8")
    assert manifest.input.multiple_of == 32
    assert manifest.provenance["training_images"] == 4
    plan = Plan.model_validate(manifest.provenance["plan"])
    assert plan == load_yaml(trained.run / "plan.yaml", Plan)
    assert plan.model.decoder_channels == tiny["model.decoder_channels"]


def test_the_bundle_holds_the_best_weights(trained: Any) -> None:
    best = load_file(trained.run / "checkpoints/best.safetensors")
    last = load_file(trained.run / "checkpoints/last.safetensors")
    assert {name for name in last if name.startswith("model/")} == set(best)
    assert all(torch.equal(best[name], last[name]) for name in best)  # one validation, at the end


def test_the_canary_agrees(trained: Any) -> None:
    assert load(trained.bundle, engine="onnxruntime").verify() == 2


def test_a_resume_of_a_finished_run_makes_the_bundle_again(trained: Any, tmp_path: Path) -> None:
    run = tmp_path / "first"
    shutil.copytree(trained.run, run)
    shutil.rmtree(run / "first.bundle")
    (run / "checkpoints/.last.safetensors.99.part").write_bytes(b"what a kill left")
    found = train(
        trained.dataset,
        run,
        settings=TrainSettings(duration=Duration(steps=2), resume=True, canary=False),
    )
    assert (found.steps, found.bundle) == (2, run / "first.bundle")
    weights = [(path / "model.onnx").read_bytes() for path in (found.bundle, trained.bundle)]
    assert weights[0] == weights[1]
    assert not (found.bundle / "canary").exists()
    assert found.elapsed_s > trained.result.elapsed_s
    note = json.loads((run / "run.json").read_text())
    assert note["command"] == "delineate train data -o first"
    assert [call["command"] for call in note["resumed"]] == [""]
    assert note["resumed"][0]["began"] >= note["began"]
    assert note["asked"]["canary"] is False
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == [
        "best.safetensors",
        "last.safetensors",
    ]


def test_a_resume_with_another_plan(trained: Any) -> None:
    message = refused(
        SettingsError, trained.dataset, trained.run, settings=RESUMED, changes={"batch_size": 3}
    )
    assert message == (
        f"{trained.run}: was started with another plan: batch_size was 2 and is 3. "
        "Leave these options out, or train anew in another folder."
    )
    message = refused(SettingsError, trained.dataset, trained.run, settings=RESUMED, plan=Plan())
    assert message.startswith(f"{trained.run}: was started with another plan: ")


def test_a_resume_with_the_same_plan_is_none_of_another(trained: Any, tmp_path: Path) -> None:
    run = tmp_path / "first"
    shutil.copytree(trained.run, run, ignore=shutil.ignore_patterns("last.safetensors"))
    same = load_yaml(run / "plan.yaml", Plan)
    with pytest.raises(Enough):
        train(trained.dataset, run, plan=same, changes={"crop_px": 32}, settings=RESUMED,
              watch=stop)  # fmt: skip


def test_a_resume_with_another_learning_rate(trained: Any, tmp_path: Path) -> None:
    run = tmp_path / "first"
    shutil.copytree(trained.run, run)
    changes = {"optimiser.learning_rate": 1e-5, "tiling.tile_px": 64, "tiling.overlap_px": 0}
    more = TrainSettings(duration=Duration(steps=3), resume=True, command="the second")
    found = train(trained.dataset, run, changes=changes, settings=more)
    assert found.steps == 3
    plan = load_yaml(run / "plan.yaml", Plan)
    assert (plan.optimiser.learning_rate, plan.tiling.tile_px) == (1e-5, 64)
    note = json.loads((run / "run.json").read_text())
    (call,) = note["resumed"]
    assert (call["command"], call["changes"]) == ("the second", changes)
    assert note["asked"]["plan"] == plan.model_dump(mode="json")


def test_a_resume_with_another_dataset(trained: Any, tmp_path: Path, make_dataset: Make) -> None:
    other = make_dataset(tmp_path / "other", train=3)
    message = refused(CheckpointError, other, trained.run, settings=RESUMED)
    old, new = Dataset.open(trained.dataset).fingerprint(), Dataset.open(other).fingerprint()
    assert message == (
        f"{trained.run}: was trained on {trained.dataset}, whose files were others: their hash was "
        f"{old[:12]} and is {new[:12]}. Put the files back as they were, or train anew in another "
        "folder."
    )


def test_nothing_to_resume(data: Path, tmp_path: Path) -> None:
    message = refused(SettingsError, data, tmp_path / "run", settings=RESUMED)
    assert message == f"{tmp_path / 'run'}: holds no run to resume. Leave --resume out."
    assert list(tmp_path.iterdir()) == []


def test_an_existing_run_is_left_alone(data: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    message = refused(OutputError, data, tmp_path / "run")
    assert message == f"{tmp_path / 'run'}: exists already. Name another, or add --force."
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["notes.txt"]


def test_force_begins_anew_and_leaves_what_is_not_ours(
    trained: Any, tmp_path: Path, tiny: dict[str, Any]
) -> None:
    run = tmp_path / "first"
    shutil.copytree(trained.run, run)
    (run / "notes.txt").write_text("mine")
    settings = TrainSettings(duration=Duration(steps=2), force=True)
    with pytest.raises(Enough) as caught:
        train(trained.dataset, run, changes=tiny, settings=settings, watch=stop)
    assert caught.value.args == (1,)
    names = {path.name for path in run.iterdir()}
    assert {"notes.txt", "plan.yaml"} <= names
    assert not {"first.bundle", "history.jsonl", "result.json", "validation.html"} & names
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["last.safetensors"]
    assert (
        load_file(run / "checkpoints/last.safetensors").keys()
        != load_file(trained.run / "checkpoints/last.safetensors").keys()
    )  # that before the first step has no moments
    assert len(list((run / "tensorboard").iterdir())) == 1


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        (
            {"model.encoder": "resnet19"},
            ModelError,
            "encoder resnet19: no encoder of this name is known.",
        ),
        ({"model.encoder": "mit_b0"}, ModelError, "encoder mit_b0: "),
        (
            {"crop_px": 0},
            SettingsError,
            "the plan: crop_px: Input should be greater than or equal to 32 (found 0).",
        ),
        (
            {"model.architecture": "vnet"},
            SettingsError,
            "the plan: model.architecture: Input should be 'unet', 'unet++', 'attention-unet', ",
        ),
        (
            {"loss.class_weights": (1.0, 2.0)},
            SettingsError,
            "loss.class_weights: 2 class weights for 3 classes.",
        ),
    ],
    ids=["encoder", "mit", "crop", "architecture", "weights"],
)
def test_a_wrong_plan_is_refused_before_anything_is_written(
    data: Path,
    tmp_path: Path,
    trained: Any,
    changes: dict[str, Any],
    kind: type[DelineateError],
    message: str,
) -> None:
    assert refused(kind, data, tmp_path / "run", changes=changes).startswith(message)
    assert list(tmp_path.iterdir()) == []
    before = sorted(trained.run.rglob("*"))
    forced = TrainSettings(duration=Duration(steps=2), force=True)
    refused(kind, trained.dataset, trained.run, changes=changes, settings=forced)
    assert sorted(trained.run.rglob("*")) == before  # nothing of the old run is gone


def test_a_missing_split(tmp_path: Path, make_dataset: Make) -> None:
    path = make_dataset(tmp_path / "data", val=0)
    message = refused(DatasetError, path, tmp_path / "run")
    assert message == f"{path}: has no split 'val'. Use one of: train (4 images)."


def test_a_sample_without_a_mask(tmp_path: Path, make_dataset: Make) -> None:
    path = make_dataset(tmp_path / "data")
    (path / "train/masks/train1.png").unlink()
    message = refused(DatasetError, path, tmp_path / "run")
    assert message == (
        f"{path}: 1 of 4 images of train have no mask (train1.png). delineate data check {path} "
        "lists everything that is wrong."
    )
    assert not (tmp_path / "run").exists()


def test_an_image_of_another_kind(
    tmp_path: Path, make_dataset: Make, make_picture: Callable[..., Any], save_image: Any
) -> None:
    path = make_dataset(tmp_path / "data")
    image, _ = make_picture(2, dtype="uint16")
    save_image(path / "train/images/train2.png", image)
    message = refused(ImageError, path, tmp_path / "run")
    assert message == (
        f"{path / 'train/images/train2.png'}: has 3 channels of uint16, and the other images for "
        "training have 3 of uint8. Convert the images of a dataset to one kind."
    )


def test_a_validation_image_of_another_kind(
    tmp_path: Path,
    make_dataset: Make,
    make_picture: Callable[..., Any],
    save_image: Any,
    tiny: dict[str, Any],
) -> None:
    path = make_dataset(tmp_path / "data", val=1)
    image, _ = make_picture(2, dtype="uint16")
    save_image(path / "val/images/val0.png", image)
    message = refused(ImageError, path, tmp_path / "run", changes=tiny)
    assert message.startswith(f"{path / 'val/images/val0.png'}: has 3 channels of uint16, and ")
    assert not (tmp_path / "run").exists()


def test_an_augmentation_of_ones_own(data: Path, tmp_path: Path, tiny: dict[str, Any]) -> None:
    seen: list[tuple[int, ...]] = []

    def own(image: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
        seen.append(image.shape)
        return {"image": image[:32, :32], "mask": mask[:32, :32]}

    with pytest.raises(Enough):
        train(data, tmp_path / "run", changes=tiny, settings=SETTINGS, augmentation=own, watch=stop)
    assert set(seen) == {(48, 40, 3)}

    def wrong(image: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
        return {"image": image, "mask": mask}

    message = refused(
        SettingsError, data, tmp_path / "again", changes=tiny, augmentation=wrong, watch=stop
    )
    assert message.startswith("augmentation wrong: returned 40 x 48 px where the crops are 32 x 32")


@pytest.mark.parametrize("name", ["", "a b", "../up", "-a", "ä"])
def test_a_name_that_no_bundle_can_have(data: Path, tmp_path: Path, name: str) -> None:
    settings = TrainSettings(duration=Duration(steps=2), name=name)
    assert refused(SettingsError, data, tmp_path / "run", settings=settings) == (
        f"name: {name!r} cannot be a bundle's name. Use letters, digits, dots, dashes and "
        "underscores, a letter or digit first."
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("folder", "name"), [("run", "run"), ("my first run", "my-first-run"), ("äö", "model")]
)
def test_the_name_of_a_folder_becomes_one_that_a_bundle_can_have(
    tmp_path: Path, folder: str, name: str
) -> None:
    assert bundle_name(tmp_path / folder, None) == name


def test_a_truncated_image(data: Path, tmp_path: Path) -> None:
    copy = tmp_path / "data"
    shutil.copytree(data, copy)
    image = copy / "train/images/train1.png"
    image.write_bytes(image.read_bytes()[:200])
    message = refused(ImageError, copy, tmp_path / "run")
    assert message.startswith(f"{image}: is ")
    assert not (tmp_path / "run").exists()


def test_a_run_where_there_is_a_file(data: Path, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    settings = TrainSettings(duration=Duration(steps=2), force=True)
    message = refused(OutputError, data, tmp_path / "run", settings=settings)
    assert message == f"{tmp_path / 'run'}: is a file, and a run is a folder. Name another."


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_bad_mask_is_found_before_the_first_step(
    trained: Any, tmp_path: Path, tiny: dict[str, Any], split: str
) -> None:
    copy, run = tmp_path / "data", tmp_path / "first"
    shutil.copytree(trained.dataset, copy)
    shutil.copytree(trained.run, run)
    before = sorted(run.rglob("*"))
    mask = copy / split / "masks" / f"{split}1.png"
    cv2.imwrite(str(mask), np.full((48, 40), 7, np.uint8))
    found = f"{mask}: has the id 7 (1920 pixels), and the classes go from 0 to 2. "
    assert refused(MaskError, copy, tmp_path / "new", changes=tiny).startswith(found)
    assert not (tmp_path / "new").exists()
    forced = TrainSettings(duration=Duration(steps=2), force=True)
    assert refused(MaskError, copy, run, changes=tiny, settings=forced).startswith(found)
    assert sorted(run.rglob("*")) == before


def test_a_refused_resume_leaves_the_run_as_it_was(
    trained: Any, tmp_path: Path, make_dataset: Make
) -> None:
    run = tmp_path / "first"
    shutil.copytree(trained.run, run)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    other = make_dataset(tmp_path / "other", train=3)
    refused(CheckpointError, other, run, settings=RESUMED)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("options", [{"force": True}, {"resume": True}])
def test_a_run_that_is_being_trained_is_left_alone(
    trained: Any, tmp_path: Path, tiny: dict[str, Any], options: dict[str, Any]
) -> None:
    run = tmp_path / "first"
    shutil.copytree(trained.run, run)
    before = sorted(run.rglob("*"))
    settings = TrainSettings(duration=Duration(steps=2), **options)
    changes = tiny if "force" in options else None
    with locked(run):
        message = refused(OutputError, trained.dataset, run, changes=changes, settings=settings)
    assert message == (
        f"{run}: is being trained by another process. Wait for it to end, or name another."
    )
    assert sorted(run.rglob("*")) == before


def test_force_replaces_runs_alone(trained: Any, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    settings = TrainSettings(duration=Duration(steps=2), force=True)
    message = refused(OutputError, trained.dataset, tmp_path, settings=settings)
    assert message == (
        f"{tmp_path}: is a folder that holds no run, so it is not replaced. Name another."
    )
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_an_augmentation_that_changes_in_place(
    data: Path, tmp_path: Path, tiny: dict[str, Any]
) -> None:
    read = [read_image(path) for path in (data / "train/images").iterdir()]

    def own(image: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
        assert any(np.array_equal(image, one) for one in read)
        image += 1
        mask[:] = 0
        return {"image": image[:32, :32], "mask": mask[:32, :32]}

    settings = TrainSettings(duration=Duration(steps=6))  # several epochs
    seen: list[int] = []

    def watch(event: Event) -> None:
        seen.append(event.step)
        if event.step == 5:
            raise Enough

    with pytest.raises(Enough):
        train(data, tmp_path / "run", changes=tiny, settings=settings, augmentation=own,
              watch=watch)  # fmt: skip
    assert seen == [1, 2, 3, 4, 5]


def test_an_augmentation_that_returns_other_ids(
    data: Path, tmp_path: Path, tiny: dict[str, Any]
) -> None:
    def own(image: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
        return {"image": image[:32, :32], "mask": np.full_like(mask[:32, :32], 200)}

    message = refused(SettingsError, data, tmp_path / "run", changes=tiny, augmentation=own)
    assert message == (
        "augmentation own: returned id 200 in 1024 pixels; classes go to 2. Return the ids of the "
        "mask it was given, resampled by the nearest neighbour."
    )


def test_an_augmentation_may_return_the_ignore_index() -> None:
    def own(image: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
        return {"image": image, "mask": np.where(mask == 1, np.uint8(255), mask)}

    augment = as_augmentation(own, classes=2, ignore_index=255)
    image, mask = np.zeros((2, 2, 1), np.uint8), np.array([[0, 1], [1, 0]], np.uint8)
    found = augment(image=image, mask=mask, rng=np.random.default_rng(0))
    assert found["mask"].tolist() == [[0, 255], [255, 0]]
    assert mask.tolist() == [[0, 1], [1, 0]]
    with pytest.raises(SettingsError, match=r"returned id 255 in 2 pixels; classes go to 1 and 9 "):
        as_augmentation(own, classes=2, ignore_index=9)(
            image=image, mask=mask, rng=np.random.default_rng(0)
        )


@pytest.mark.parametrize("changes", [{"foo.enc": 1}, {"crop_px.x": 1}])
def test_a_field_that_is_not_there(data: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    (path,) = changes
    message = refused(SettingsError, data, tmp_path / "run", changes=changes)
    assert message.startswith(f"the plan: {path}: there is no such field. ")


def test_long_reading_is_told(
    data: Path, tmp_path: Path, tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("delineate.training.check.QUIET_S", -1.0)
    events: list[Event] = []

    def watch(event: Event) -> None:
        events.append(event)
        if event.kind == "step":
            raise Enough

    with pytest.raises(Enough):
        train(data, tmp_path / "run", changes=tiny, settings=SETTINGS, watch=watch)
    assert [event.kind for event in events] == ["reading"] * 6 + ["step"]
    assert [event.fraction for event in events[:6]] == pytest.approx([i / 6 for i in range(1, 7)])
