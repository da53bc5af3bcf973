"""Bundles that are really compressed; only the speed is made up, where a test needs it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from delineate.bundle.import_onnx import ImportOnnxSettings, import_onnx
from delineate.bundle.load import load
from delineate.compression.gate import GateSettings
from delineate.compression.search import SearchSettings
from delineate.engines.timing import Timing, time_calls
from delineate.errors import DatasetError, EngineError, OutputError, SettingsError
from delineate.workflows.compress import Compressed, CompressSettings, compress

CLASSES = ("background", "disc", "square")
TOOLS = (("onnxruntime", "minmax"),)


def settings(**changed: Any) -> CompressSettings:
    fields = {"engine": "onnxruntime", "threads": 1, "images": 3, **changed}
    search = fields.pop("search", SearchSettings(tools=TOOLS))  # type: ignore[arg-type]
    return CompressSettings(search=search, **fields)


@pytest.fixture
def speed(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """How many times as fast int8 is said to be."""

    def make(times: float) -> None:
        def timed(calls: Mapping[str, Callable[[], object]]) -> dict[str, Timing]:
            ms = {name: 20.0 / times if "int8" in name else 20.0 for name in calls}
            return {n: Timing(1.0, True, (np.full(4, v), np.full(4, v))) for n, v in ms.items()}

        monkeypatch.setattr("delineate.workflows.compress.time_calls", timed)

    return make


@pytest.fixture
def dataset(make_dataset: Callable[..., Path], tmp_path: Path) -> Path:
    return make_dataset(tmp_path / "data", classes=CLASSES)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """Three clear classes by colour, through a convolution that int8 does not harm."""
    weight = np.eye(3, dtype=np.float32)[:, :, None, None] * 4
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["b"], name="relu"),
        helper.make_node("Conv", ["b", "w"], ["y"], name="last"),
    ]
    shape = ["n", 3, "h", "w"]
    graph = helper.make_graph(
        nodes,
        "made",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [None] * 4)],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 8
    onnx.save(model, tmp_path / "net.onnx")
    made = ImportOnnxSettings(classes=CLASSES, mean=(100.0,), std=(60.0,))
    import_onnx(tmp_path / "net.onnx", tmp_path / "net.bundle", made)
    return tmp_path / "net.bundle"


def test_an_admitted_variant_joins_the_bundle(
    bundle: Path, dataset: Path, speed: Callable[[float], None]
) -> None:
    speed(2.0)
    before = (bundle / "model.onnx").read_bytes()
    told: list[str] = []
    found = compress(bundle, dataset, settings=settings(), tell=told.append)
    assert list(found.admitted) == ["int8"]
    assert found.bundle == bundle
    assert found.timed_hw == (48, 40)
    assert told[0] == "making int8 (ONNX Runtime)"
    assert (bundle / "model.onnx").read_bytes() == before
    made = load(bundle, variant="auto")
    assert (made.variant, made.engine) == ("int8", "onnxruntime")
    variant = made.manifest.variants["int8"]
    assert variant.latency_ms == {"onnxruntime, cpu, 1 threads, 48x40": 10.0}
    assert variant.scores["mean_iou"] == pytest.approx(
        made.manifest.variants["float32"].scores["mean_iou"], abs=0.01
    )
    note = made.manifest.provenance["compression"]
    assert [row["admitted"] for row in note["attempts"]] == [True, True]
    assert note["attempts"][1]["speedup"] == 2.0
    assert "## Variants" in (bundle / "card.md").read_text()
    assert json.loads(json.dumps(found.to_dict()))["admitted"] == {
        "int8": "int8 (ONNX Runtime) on onnxruntime"
    }


def test_golden_outputs_travel_with_the_variant(
    trained: Any, tmp_path: Path, speed: Callable[[float], None]
) -> None:
    """A network of two steps: int8 may lose what it likes."""
    speed(2.0)
    loose = GateSettings(miou_points=100.0, class_points=100.0, boundary_points=100.0)
    search = SearchSettings(gate=loose, tools=TOOLS)
    out = tmp_path / "small.bundle"
    original = sorted(path.name for path in trained.bundle.rglob("*"))
    found = compress(trained.bundle, trained.dataset, out=out, settings=settings(search=search))
    assert found.bundle == out
    assert sorted(path.name for path in trained.bundle.rglob("*")) == original
    made = load(out, variant="int8", threads=1)
    assert made.verify() == len(list((out / "canary/golden/int8").iterdir())) > 0
    again = compress(out, trained.dataset, settings=settings(search=search))  # no second int8
    assert list(load(out).manifest.variants) == ["float32", "int8"]
    assert len(again.attempts) == len(found.attempts)


def test_what_is_refused_is_told_and_nothing_written(
    bundle: Path, dataset: Path, speed: Callable[[float], None]
) -> None:
    speed(1.1)
    before = {path: path.read_bytes() for path in bundle.rglob("*") if path.is_file()}
    found = compress(bundle, dataset, settings=settings())
    assert (found.admitted, found.bundle) == ({}, None)
    assert "is 1.10 times as fast as float32 on onnxruntime" in found.attempts[1].reasons[0]
    assert {path: path.read_bytes() for path in bundle.rglob("*") if path.is_file()} == before


def test_really_timed_on_every_engine(
    bundle: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("delineate.engines.timing.WARM_UP_S", 0.01)
    quick = partial(time_calls, rounds=2, burst_s=0.01)
    monkeypatch.setattr("delineate.workflows.compress.time_calls", quick)
    search = SearchSettings(tools=TOOLS, gate=GateSettings(speedup=1000.0))
    found = compress(bundle, dataset, settings=settings(engine="auto", search=search))
    assert isinstance(found, Compressed)
    assert {item.engine for item in found.attempts} == {"onnxruntime", "openvino"}
    assert all(len(item.timing.rounds_ms) == 2 for item in found.attempts)
    assert not found.admitted
    assert any("bfloat16 on onnxruntime" in line for line in found.left_out)


def test_train_without_a_class(bundle: Path, dataset: Path) -> None:
    for mask in (dataset / "train/masks").iterdir():
        labels = cv2.imread(str(mask), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(mask), np.minimum(labels, 1))
    with pytest.raises(DatasetError, match="no image for the calibration shows square"):
        compress(bundle, dataset, settings=settings())


def test_an_output_that_exists(bundle: Path, dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there/mine.txt").touch()
    with pytest.raises(OutputError, match="there"):
        compress(bundle, dataset, out=tmp_path / "there", settings=settings())


def test_other_classes(
    bundle: Path, make_dataset: Callable[..., Path], tmp_path: Path, speed: Callable[[float], None]
) -> None:
    speed(2.0)
    other = make_dataset(tmp_path / "other", classes=("background", "cat", "dog"))
    with pytest.raises(DatasetError, match="its classes are"):
        compress(bundle, other, settings=settings())


def test_absent_devices_and_engines(bundle: Path, dataset: Path) -> None:
    with pytest.raises(EngineError, match="device 'cuda' is not offered by this ONNX Runtime"):
        compress(bundle, dataset, settings=settings(device="cuda"))
    with pytest.raises(SettingsError, match="engine 'warp' is unknown"):
        compress(bundle, dataset, settings=settings(engine="warp"))
    with pytest.raises(EngineError, match="TensorRT is not offered by this ONNX Runtime on cpu"):
        compress(bundle, dataset, settings=settings(engine="tensorrt"))


def test_the_size_that_is_timed(
    bundle: Path, dataset: Path, speed: Callable[[float], None]
) -> None:
    speed(2.0)
    found = compress(bundle, dataset, settings=settings(image_hw=(64, 32)))
    assert found.timed_hw == (64, 32)
