"""A search over one network that is really exported, timed and measured."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import pytest

from delineate.config import ModelSettings, Plan, load_yaml
from delineate.errors import DatasetError, OutputError, SettingsError
from delineate.planning.choice import Budget
from delineate.workflows.plan import Planned, PlanSettings, plan

pytestmark = pytest.mark.usefixtures("export_once")

FAST = ModelSettings(architecture="fast-scnn")
LARGE = ModelSettings(architecture="deeplabv3-resnet101", encoder="resnet101")
ONE = PlanSettings(engine="onnxruntime", threads=1, models=(FAST,), limit_s=10.0)
EASY = Budget(10_000.0)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory, make_dataset: Callable[..., Path]) -> Path:
    return make_dataset(tmp_path_factory.mktemp("data") / "data")


@pytest.fixture(scope="module")
def planned(dataset: Path) -> Planned:
    said: list[str] = []
    found = plan(dataset, EASY, out=dataset.parent / "plan.yaml", settings=ONE, tell=said.append)
    assert said[:2] == ["reading the dataset", "timing plain convolutions"]
    return found


def test_what_is_chosen_can_be_trained(planned: Planned) -> None:
    text = planned.files["plan"].read_text()
    assert text.startswith("# Fast-SCNN takes ")
    found = load_yaml(planned.files["plan"], Plan)
    assert found == planned.ruled.plan
    assert found.model.architecture == "fast-scnn"


def test_every_figure_of_a_candidate_is_measured(planned: Planned) -> None:
    document = json.loads(planned.files["document"].read_text())
    [row] = document["candidates"]
    assert row["name"] == document["chosen"] == "Fast-SCNN"
    assert 0 < row["network_p50_ms"] <= row["network_p95_ms"]
    assert row["network_p50_ms"] < row["end_to_end_p50_ms"]
    assert row["memory_bytes"] > 2**20
    assert row["file_bytes"] > row["parameters"]
    assert row["multiply_adds"] > 0
    assert row["step_s"] > 0
    assert 0 < row["expected_miou"] < 1
    assert document["image_hw"] == [48, 40]


def test_the_page_has_front_table_and_rules(planned: Planned) -> None:
    page = planned.files["page"].read_text()
    for words in ("Fast-SCNN", "Expected mean IoU over p95", "10000 ms", "48 x 40 px", "crop_px"):
        assert words in page


def test_another_size_is_timed_on_a_file_of_that_size(dataset: Path) -> None:
    settings = PlanSettings(**{**vars(ONE), "image_hw": (70, 33)})
    assert plan(dataset, EASY, settings=settings).image_hw == (70, 33)


def test_nothing_is_written_when_nothing_fits(dataset: Path, tmp_path: Path) -> None:
    found = plan(dataset, Budget(1e-3), out=tmp_path / "plan.yaml", settings=ONE)
    assert found.choice.row is None
    assert list(tmp_path.iterdir()) == []
    assert found.files == {}


def test_what_cannot_fit_is_not_exported(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # DeepLabV3 has 400 million multiply-adds here, Fast-SCNN 6
    monkeypatch.setattr("delineate.planning.latency.multiply_adds_per_ms", lambda *_: 1e7)
    settings = PlanSettings(**{**vars(ONE), "models": (LARGE, FAST)})
    found = plan(dataset, Budget(5.0), settings=settings)
    assert "DeepLabV3 resnet101" in {item.name for item in found.left_out}
    assert "DeepLabV3 resnet101" not in {row.contender.candidate.name for row in found.rows}
    reasons = {item.name: item.reason for item in found.left_out}
    assert reasons["DeepLabV3 resnet101"].endswith("by its multiply-adds")


def test_files_are_not_replaced(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "plan.html").write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        plan(dataset, EASY, out=tmp_path / "plan.yaml", settings=ONE)
    with pytest.raises(SettingsError, match="no name of a plan"):
        plan(dataset, EASY, out=tmp_path / "plan", settings=ONE)


def test_an_engine_that_does_not_exist(dataset: Path) -> None:
    with pytest.raises(SettingsError, match="engine 'abacus' is unknown"):
        plan(dataset, EASY, settings=PlanSettings(engine="abacus"))


def test_thresholds_are_tried_as_well(planned: Planned) -> None:
    assert [method.name for method in planned.simple] == ["a table of colours"]
    assert planned.to_dict()["simple"][0]["miou"] == planned.simple[0].miou
    assert any("labelled images are few" in sentence for sentence in planned.advice)


def test_nothing_is_labelled(make_dataset: Callable[..., Path], tmp_path: Path) -> None:
    path = make_dataset(tmp_path / "data")
    for mask in (path / "train/masks").iterdir():
        mask.unlink()
    with pytest.raises(DatasetError):
        plan(path, EASY, settings=ONE)


def test_the_verdict_of_a_learning_curve(dataset: Path, tmp_path: Path) -> None:
    settings = PlanSettings(**{**vars(ONE), "curve": tmp_path})
    with pytest.raises(SettingsError, match="holds no learning curve"):
        plan(dataset, EASY, settings=settings)
    (tmp_path / "curve.json").write_text('{"verdict": "More labels would help."}')
    found = plan(dataset, EASY, settings=settings)
    assert found.advice[-1].endswith("More labels would help.")


def test_the_document_says_what_there_is_to_learn(planned: Planned) -> None:
    document = json.loads(planned.files["document"].read_text(), parse_constant=pytest.fail)
    print_ = document["fingerprint"]
    assert print_["labelled_images"] == planned.fingerprint.labelled_images
    assert print_["look"]["normalisation"]["mean"]
    assert len(print_["strides"]) == len(print_["classes"][0]["ceilings"])
    assert document["budget"]["end_to_end"] is False
    assert "cells of 8" in planned.files["page"].read_text()


def test_of_large_images_one_tile_is_timed(
    make_dataset: Callable[..., Path], tmp_path: Path
) -> None:
    path = make_dataset(tmp_path / "data")
    for file in path.rglob("*.png"):
        tall = cv2.copyMakeBorder(cv2.imread(str(file), -1), 0, 1052, 0, 0, cv2.BORDER_REFLECT)
        cv2.imwrite(str(file), tall)
    found = plan(path, EASY, settings=ONE)
    assert found.image_hw == (1024, 40)
    assert any("one tile of 1024 x 40 px" in sentence for sentence in found.advice)
