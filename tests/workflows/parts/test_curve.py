from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from delineate.bundle.load import load
from delineate.config import Duration, ModelSettings
from delineate.errors import DatasetError
from delineate.evaluation.learning_curve import Estimate, LearningCurve
from delineate.workflows.curve import larger_model, train_curve, verdict
from delineate.workflows.training_setup import TrainSettings

Make = Callable[..., Path]


SETTINGS = TrainSettings(duration=Duration(steps=4))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, make_dataset: Make) -> Path:
    return make_dataset(tmp_path_factory.mktemp("curve") / "data", train=8, val=3)


def test_four_trainings_on_nested_subsets(data: Path, tmp_path: Path, fake: Any) -> None:
    fake.right = {"quarter": 0.5, "half": 0.6, "full": 0.7, "larger": 0.8}
    out = tmp_path / "curve"
    found = train_curve(data, out, settings=SETTINGS)
    assert fake.runs == ["full", "quarter", "half", "larger"]
    train = {call["run"]: set(call["data"].split("train")) for call in fake.calls}
    assert {name: len(samples) for name, samples in train.items()} == {
        "quarter": 2,
        "half": 4,
        "full": 8,
        "larger": 8,
    }
    assert train["quarter"] < train["half"] < train["full"] == train["larger"]
    assert len({call["data"].split("val") for call in fake.calls}) == 1
    plans = {call["run"]: call["plan"] for call in fake.calls}
    assert plans["quarter"] == plans["full"]
    assert plans["larger"].model.encoder == "resnet34"
    assert found.bundle == out / "full/curve.bundle"
    document = json.loads((out / "curve.json").read_text())
    assert document == json.loads(json.dumps(found.to_dict()))
    assert document["labels"]["images"] == [2, 4, 8]
    assert document["network"]["model"]["encoder"] == "resnet34"
    assert document["network"]["gain"]["value"] > 0
    assert document["trainings"]["half"]["images"] == 4
    page = (out / "report.html").read_text()
    assert page.startswith("<!doctype html>")
    assert found.verdict.split(":")[0] in page
    assert "larger network" in page


def test_a_killed_curve_goes_on(data: Path, tmp_path: Path, fake: Any) -> None:
    out = tmp_path / "curve"
    fake.killed_in = "half"
    with pytest.raises(fake.killed):
        train_curve(data, out, settings=SETTINGS)
    fake.calls, fake.killed_in = [], None
    resumed = TrainSettings(duration=Duration(steps=4), resume=True)
    found = train_curve(data, out, settings=resumed)
    assert [(c["run"], c["settings"].resume) for c in fake.calls] == [
        ("half", True),
        ("larger", False),
    ]
    assert found.bundle == out / "full/curve.bundle"


def test_a_budget_is_shared_evenly(data: Path, tmp_path: Path, fake: Any) -> None:
    settings = TrainSettings(duration=Duration(budget_s=4000))
    train_curve(data, tmp_path / "curve", settings=settings)
    assert fake.calls[0]["settings"].duration.budget_s == pytest.approx(1000, rel=0.02)


def test_classes_that_a_subset_lacks_are_named(
    tmp_path: Path, make_dataset: Make, fake: Any
) -> None:
    path = make_dataset(tmp_path / "data", train=8, val=2)
    for file in sorted((path / "train/masks").iterdir())[1:]:
        mask = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(file), np.where(mask == 2, 0, mask))
    found = train_curve(path, tmp_path / "curve", settings=SETTINGS)
    assert found.missing == {}  # the quarter that has the class comes first
    assert len(fake.calls) == 4


def test_too_few_images(tmp_path: Path, make_dataset: Make, fake: Any) -> None:
    path = make_dataset(tmp_path / "data", train=3, val=2)
    with pytest.raises(DatasetError) as caught:
        train_curve(path, tmp_path / "curve", settings=SETTINGS)
    assert str(caught.value) == f"{path}: 4 parts need 4 images, and there are 3. Use 3 or fewer."
    assert not fake.calls


def curve_of(doubled: float, gain: float, low: float) -> LearningCurve:
    now = Estimate(0.58, 0.56, 0.60)
    return LearningCurve(
        (10, 20, 40),
        (now, now, now),
        (10, 40),
        (now, now),
        Estimate(doubled, 0.58, 0.64),
        Estimate(gain, low, 0.06),
    )


@pytest.mark.parametrize(
    ("curve", "network", "expected"),
    [
        (
            curve_of(0.61, 0.03, 0.01),
            Estimate(0.001, -0.02, 0.02),
            "More labels would help: with twice the labels: mIoU 0.61 (0.58 to 0.64), +3.0 points; "
            "with the larger network in the same time: +0.1 points (-2.0 to +2.0).",
        ),
        (
            curve_of(0.58, 0.0, 0.0),
            Estimate(0.02, 0.01, 0.03),
            "A larger network would help: with twice the labels: mIoU 0.58 (0.58 to 0.64), "
            "+0.0 points; with the larger network in the same time: +2.0 points (+1.0 to +3.0).",
        ),
        (
            curve_of(0.61, 0.03, 0.01),
            Estimate(0.04, 0.01, 0.05),
            "Both would help, a larger network more: with twice the labels: mIoU 0.61 "
            "(0.58 to 0.64), +3.0 points; with the larger network in the same time: +4.0 points "
            "(+1.0 to +5.0).",
        ),
        (
            curve_of(0.58, 0.002, 0.0),
            Estimate(-0.02, -0.04, 0.01),
            "Neither more labels nor a larger network is sure to help: with twice the labels: "
            "mIoU 0.58 (0.58 to 0.64), +0.2 points; with the larger network in the same time: "
            "-2.0 points (-4.0 to +1.0).",
        ),
        (
            curve_of(0.61, 0.03, 0.01),
            None,
            "More labels would help: with twice the labels: mIoU 0.61 (0.58 to 0.64), +3.0 points. "
            "The network has no larger one to compare with.",
        ),
    ],
)
def test_the_verdict_in_words(
    curve: LearningCurve, network: Estimate | None, expected: str
) -> None:
    assert verdict(curve, network) == expected


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ({"encoder": "resnet18", "decoder_channels": (8, 4)}, ("resnet34", (16, 8))),
        ({"encoder": "resnet34"}, ("resnet50", None)),
        ({"encoder": "efficientnet-b4"}, ("efficientnet-b5", None)),
        ({"architecture": "segformer", "encoder": "mit-b0"}, ("mit-b1", None)),
        ({"encoder": "resnet152", "decoder_channels": (8, 4)}, ("resnet152", (16, 8))),
        (
            {"encoder": "resnet18", "encoder_weights": "own.safetensors", "decoder_channels": (8,)},
            ("resnet18", (16,)),
        ),
        ({"encoder": "resnet18", "encoder_weights": "imagenet"}, ("resnet34", None)),
        ({"architecture": "ddrnet-23-slim", "encoder": "none"}, ("resnet34", None)),
        ({"architecture": "deeplabv3-resnet101", "encoder": "resnet101"}, None),
        ({"encoder": "resnet152"}, None),
    ],
)
def test_the_next_larger_network(
    model: dict[str, Any], expected: tuple[str, tuple[int, ...] | None] | None
) -> None:
    found = larger_model(ModelSettings(**model))
    if expected is None:
        assert found is None
    else:
        assert found is not None
        assert (found.encoder, found.decoder_channels) == expected


def test_a_network_of_one_size_has_another_architecture_above_it() -> None:
    small = ModelSettings(architecture="fast-scnn", encoder="none", downscale=2)
    above = larger_model(small)
    assert above is not None
    assert (above.architecture, above.downscale) == ("ddrnet-23-slim", 2)
    highest = larger_model(above)
    assert highest is not None
    assert (highest.architecture, highest.downscale) == ("deeplabv3+", 2)


@pytest.mark.long
def test_a_true_curve(tmp_path: Path, make_dataset: Make, tiny: dict[str, Any]) -> None:
    data = make_dataset(tmp_path / "data", train=4, val=2)
    out = tmp_path / "curve"
    began = time.monotonic()
    changes = tiny | {"model.encoder": "mobilenet_v2"}
    found = train_curve(data, out, changes=changes, settings=SETTINGS)
    assert found.elapsed_s <= time.monotonic() - began + 1
    assert set(found.done) == {"full", "quarter", "half", "larger"}
    assert load(found.bundle, engine="onnxruntime").manifest.name == "curve"
    assert found.done["larger"].part.plan.model.encoder == "efficientnet-b0"
    assert json.loads((out / "curve.json").read_text())["verdict"] == found.verdict
