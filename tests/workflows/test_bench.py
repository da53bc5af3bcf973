"""A network and classical methods, really timed side by side, and what is said of them."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from delineate.bundle.store import BundleStore
from delineate.engines.timing import Timing
from delineate.errors import DatasetError, EngineError, OutputError, SettingsError
from delineate.workflows import bench as bench_module
from delineate.workflows import bench_contenders
from delineate.workflows.bench import bench
from delineate.workflows.bench_page import bench_page
from delineate.workflows.bench_plot import bench_plot
from delineate.workflows.bench_result import Bench, BenchSettings, Measured
from delineate.workflows.evaluate import evaluate
from delineate.workflows.fit import FitSettings, fit

pytestmark = pytest.mark.usefixtures("quick_timing")

QUICK = BenchSettings(engine="onnxruntime", threads=1, limit_s=0.1)


@pytest.fixture(scope="module")
def colours(trained: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("colours") / "colours.bundle"
    return fit(trained.dataset, out, method="colour").bundle


@pytest.fixture(scope="module")
def found(
    quick_timing: None, trained: Any, colours: Path, tmp_path_factory: pytest.TempPathFactory
) -> Bench:
    assert quick_timing is None
    out = tmp_path_factory.mktemp("bench") / "bench.html"
    said: list[str] = []
    result = bench(
        [trained.run, colours], trained.dataset, out=out, settings=QUICK, tell=said.append
    )
    assert said[0].startswith("scoring first on onnxruntime on 2 images")
    return result


def test_network_and_classical_method_stand_in_one_table(found: Bench, colours: Path) -> None:
    document = json.loads(found.files["document"].read_text())
    assert document == json.loads(json.dumps(found.to_dict()))
    rows = {row["name"]: row for row in document["contenders"]}
    assert set(rows) == {"first on onnxruntime", "colours"}
    for row in rows.values():
        assert 0 < row["network_p50_ms"] <= row["network_p95_ms"] <= row["network_p99_ms"]
        assert row["end_to_end_p50_ms"] > 0
        low, high = row["images_per_s_range"]
        assert 0 < low <= row["images_per_s"] <= high
        assert row["peak_bytes"] > 2**20
        assert row["start_s"] > 0
        assert row["image_hw"] == [48, 40]
        assert 0 <= row["boundary_iou"] <= 1
        assert 0 <= row["dice"] <= 1
        assert set(row["iou"]) == {"sky", "ground", "car"}
    assert rows["colours"]["engine"] == "classical"
    network = rows["first on onnxruntime"]
    bundle = Path(network["bundle"])
    assert network["file_bytes"] == (bundle / "model.onnx").stat().st_size
    sizes = [(colours / name).stat().st_size for name in ("method.json", "arrays.npz")]
    assert rows["colours"]["file_bytes"] == sum(sizes)


def test_the_scores_are_those_of_evaluate(found: Bench, trained: Any) -> None:
    best = found.measured[0]
    assert best.label == "colours"  # two steps make no network
    for one in found.measured:
        again = evaluate(one.contender.path, trained.dataset, engine="auto").scores
        assert one.miou == pytest.approx(again.mean_iou, abs=1e-3)  # by another engine
    assert best.behind is None
    behind = found.measured[1].behind
    assert behind is not None
    assert behind.value == pytest.approx(found.measured[1].miou - best.miou)
    assert behind.interval[0] <= behind.value <= behind.interval[1]


def test_page_and_picture(found: Bench) -> None:
    assert found.files["picture"].read_bytes().startswith(b"\x89PNG")
    page = found.files["page"].read_text()
    assert "first on onnxruntime" in page
    nonces = set(re.findall(r'nonce="([0-9a-f]{32})"', page))
    assert len(nonces) == 1
    assert f"script-src 'nonce-{nonces.pop()}'" in page
    assert "src=" not in re.sub(r"(?s)<script.*?</script>", "", page).replace('src="data:', "")


def test_names_cannot_break_out_of_the_page(found: Bench) -> None:
    document = found.to_dict()
    document["contenders"][0]["name"] = "</script><script>alert(1)</script>"
    page = bench_page(document)
    assert "<script>alert(1)" not in page
    assert "\\u003c/script>" in page


def fixed(one: Measured, ms: float) -> Measured:
    return replace(one, network=Timing(ms, True, tuple(np.full(50, ms) for _ in range(4))))


def test_the_front_is_what_nothing_beats_in_both(found: Bench) -> None:
    best, other = found.measured
    both = replace(found, measured=(fixed(best, 20.0), fixed(other, 5.0)))
    assert [one.label for one in both.front] == [other.label, best.label]
    beaten = replace(found, measured=(fixed(best, 5.0), fixed(other, 20.0)))
    assert [one.label for one in beaten.front] == [best.label]


def test_the_budget_takes_the_most_accurate_that_fits(found: Bench) -> None:
    best, other = found.measured
    settings = replace(found.settings, p95_ms=10.0)
    both = replace(found, measured=(fixed(best, 20.0), fixed(other, 5.0)), settings=settings)
    assert both.fitting is not None
    assert both.fitting.label == other.label
    assert any("within 10 ms" in line for line in both.verdict())
    none = replace(both, measured=(fixed(best, 20.0), fixed(other, 15.0)))
    assert none.fitting is None
    assert any("Nothing stays within 10 ms" in line for line in none.verdict())
    assert found.fitting is None
    assert bench_plot(none.to_dict()).startswith(b"\x89PNG")


def test_a_faster_one_that_is_not_shown_to_be_worse_is_named(found: Bench) -> None:
    best, other = found.measured
    assert other.behind is not None
    alike = replace(other.behind, interval=(-0.01, 0.01))
    both = (fixed(best, 20.0), fixed(replace(other, behind=alike), 5.0))
    words = replace(found, measured=both).verdict()
    told = "4.0 times as fast (4.0 to 4.0), and these images do not show"
    assert any(told in line for line in words)
    clear = replace(other.behind, interval=(-0.5, -0.3))
    both = (fixed(best, 20.0), fixed(replace(other, behind=clear), 5.0))
    assert len(replace(found, measured=both).verdict()) == 1


@pytest.fixture
def no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(*_: Any, **__: Any) -> None:
        raise EngineError("a process died")

    monkeypatch.setattr(bench_module, "bundle_footprint", dies)


@pytest.mark.usefixtures("no_process")
def test_bundles_of_one_name_are_told_apart(trained: Any, colours: Path, tmp_path: Path) -> None:
    other = tmp_path / "colours.bundle"
    fit(trained.dataset, other, method="otsu", settings=FitSettings(foreground="car"))
    said: list[str] = []
    result = bench([colours, other, colours], trained.dataset, settings=QUICK, tell=said.append)
    assert {one.label for one in result.measured} == {str(colours), str(other)}
    assert result.files == {}
    assert [row["peak_bytes"] for row in result.to_dict()["contenders"]] == [None, None]
    assert any(line.endswith("a process died.") for line in said)


@pytest.mark.usefixtures("no_process")
def test_another_size_is_timed(trained: Any, colours: Path) -> None:
    result = bench([colours], trained.dataset, settings=replace(QUICK, image_hw=(70, 33)))
    assert result.to_dict()["contenders"][0]["image_hw"] == [70, 33]


@pytest.mark.usefixtures("no_process")
def test_what_does_not_run_is_left_out(
    trained: Any, colours: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = bench_contenders.load

    def refusing(path: Path, **more: Any) -> Any:
        if more["engine"] == "onnxruntime":
            raise EngineError("it has gone")
        return real(path, **more)

    monkeypatch.setattr(bench_contenders, "load", refusing)
    result = bench([trained.bundle, colours], trained.dataset, settings=QUICK)
    assert dict(result.left_out) == {"first on onnxruntime": "it has gone."}
    assert [one.label for one in result.measured] == ["colours"]
    with pytest.raises(EngineError, match="nothing runs here: first on"):
        bench([trained.bundle], trained.dataset, settings=QUICK)


@pytest.mark.usefixtures("no_process")
def test_a_variant_of_another_engine_is_named(trained: Any, colours: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "two.bundle"
    shutil.copytree(trained.bundle, bundle)
    document = json.loads((bundle / "manifest.json").read_text())
    variant = {**document["variants"]["float32"], "engine": "openvino"}
    document["variants"]["int8"] = variant
    del document["files"]["manifest.json"]
    (bundle / "manifest.json").write_text(json.dumps(document))
    result = bench([bundle, colours], trained.dataset, settings=QUICK)
    assert dict(result.left_out) == {
        "two int8": "was admitted on openvino, which is not compared here"
    }


def test_what_cannot_be_compared(
    trained: Any, colours: Path, tmp_path: Path, make_dataset: Callable[..., Path]
) -> None:
    with pytest.raises(SettingsError, match="nothing to compare"):
        bench([], trained.dataset)
    with pytest.raises(SettingsError, match="is no bundle, nor a run with one"):
        bench([tmp_path], trained.dataset)
    with pytest.raises(SettingsError, match="is no name of a page"):
        bench([colours], trained.dataset, out=tmp_path / "bench.txt")
    (tmp_path / "bench.json").write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        bench([colours], trained.dataset, out=tmp_path / "bench.html")
    other = make_dataset(tmp_path / "data", classes=("sky", "sea", "ship"))
    with pytest.raises(DatasetError, match="its classes are sky, sea, ship"):
        bench([colours], other, settings=QUICK)
    assert BundleStore(colours).manifest.classical
