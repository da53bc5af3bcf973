"""The demo, made small: every stage runs and is told on the page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from delineate.bundle.load import load
from delineate.workflows.demo import DemoSettings, demo
from delineate.workflows.demo_result import Demo

SMALL = DemoSettings(images=4, test_images=2, size_px=128, large_px=1100, steps=2)


@pytest.fixture(scope="module")
def small_demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Demo, list[str]]:
    said: list[str] = []
    out = tmp_path_factory.mktemp("demo") / "out"
    return demo(out, settings=SMALL, say=said.append), said


def test_every_stage_is_announced_and_timed(small_demo: tuple[Demo, list[str]]) -> None:
    found, said = small_demo
    names = ["generate", "train", "evaluate", "predict", "serve"]
    assert [line.split(":")[0] for line in said] == names
    assert list(found.seconds) == names
    assert all(seconds > 0 for seconds in found.seconds.values())


def test_large_image_went_through_tiles(small_demo: tuple[Demo, list[str]]) -> None:
    found, _ = small_demo
    assert found.large[0].shape == (1100, 1100, 3)
    assert found.large[1].shape == (1100, 1100)
    assert found.large_tiles == 4


def test_server_answered_about_the_example(small_demo: tuple[Demo, list[str]]) -> None:
    found, _ = small_demo
    assert (found.answer["width"], found.answer["height"]) == (128, 128)
    assert sum(item["share"] for item in found.answer["classes"]) == pytest.approx(1, abs=1e-3)
    assert {part.split(";")[0].strip() for part in found.server_timing.split(",")} >= {
        "decode",
        "infer",
        "encode",
    }


def test_page_is_self_contained_and_names_the_figures(small_demo: tuple[Demo, list[str]]) -> None:
    found, _ = small_demo
    page = found.page.read_text()
    assert f"{found.dice['network']:.3f}" in page
    assert f"{found.dice['otsu']:.3f}" in page
    assert page.count("data:image/jpeg;base64,") >= 6
    assert "http://" not in page
    assert "https://" not in page
    assert "<script" not in page


def test_result_is_json_and_its_bundle_loads(small_demo: tuple[Demo, list[str]]) -> None:
    found, _ = small_demo
    document = json.loads(json.dumps(found.to_dict()))
    assert set(document["dice_tumour_held_out"]) == {"network", "otsu", "colour"}
    bundle = load(Path(document["bundle"]))
    assert bundle.spec.classes == ("background", "stroma", "gland", "tumour")
    assert bundle.verify() > 0
