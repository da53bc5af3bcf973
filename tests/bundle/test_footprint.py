from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx
import pytest

from delineate.bundle import footprint as module
from delineate.bundle.footprint import footprint, graph_footprint
from delineate.bundle.store import BundleStore
from delineate.errors import EngineError


def test_a_network_in_a_process_of_its_own(tiny_bundle: Path) -> None:
    spec = BundleStore(tiny_bundle).manifest.spec()
    model = tiny_bundle / "model.onnx"
    found = footprint(model, spec, "onnxruntime", "float32", image_hw=(64, 96), threads=1)
    assert 20 * 2**20 < found.base_bytes <= found.peak_bytes < 4 * 2**30
    assert found.import_s > 0
    assert found.load_s > 0
    # float pixels, logits and probabilities of a larger image are held at once
    large = footprint(model, spec, "onnxruntime", "float32", image_hw=(2048, 2048), threads=1)
    assert large.peak_bytes > found.peak_bytes + 2048 * 2048 * 3 * 4


def test_a_network_of_one_size(tiny_bundle: Path) -> None:
    spec = replace(BundleStore(tiny_bundle).manifest.spec(), fixed_hw=(64, 96))
    model = tiny_bundle / "model.onnx"
    found = footprint(model, spec, "onnxruntime", "float32", image_hw=(64, 96), threads=1)
    assert found.peak_bytes >= found.base_bytes
    with pytest.raises(EngineError, match="takes only 64 x 96"):
        footprint(model, spec, "onnxruntime", "float32", image_hw=(32, 96), threads=1)


def test_a_process_that_dies(tmp_path: Path, tiny_bundle: Path) -> None:
    spec = BundleStore(tiny_bundle).manifest.spec()
    (tmp_path / "model.onnx").write_bytes(b"no network")
    with pytest.raises(EngineError, match="a process with onnxruntime ended with 1"):
        footprint(tmp_path / "model.onnx", spec, "onnxruntime", "float32", image_hw=(8, 8))


def test_a_process_that_is_killed(
    tmp_path: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crash = tmp_path / "crash"
    crash.write_text("#!/bin/sh\nkill -SEGV $$\n")
    crash.chmod(0o755)
    monkeypatch.setattr(module.sys, "executable", str(crash))
    spec = BundleStore(tiny_bundle).manifest.spec()
    graph = onnx.load(tiny_bundle / "model.onnx")
    with pytest.raises(EngineError, match="a process with openvino ended with SIGSEGV"):
        graph_footprint(graph, spec, "openvino", "int8", image_hw=(8, 8))
