from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from delineate.compression.nncf_tool import Control, by_nncf
from delineate.compression.piece import Piece
from delineate.errors import MissingExtraError, ModelError

PIXELS = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
PIECES = tuple(Piece(image) for image in PIXELS)
CONTROL = Control(compared=2, largest_drop=0.01, most_removed=2)


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Cast", ["image"], ["f"], name="cast", to=onnx.TensorProto.FLOAT),
        helper.make_node("Transpose", ["f"], ["t"], name="transpose", perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["t", "w"], ["y"], name="conv"),
    ]
    graph = helper.make_graph(
        nodes,
        "named",
        [helper.make_tensor_value_info("image", onnx.TensorProto.UINT8, ["n", "h", "w", 3])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 3, "h", "w"])],
        [numpy_helper.from_array(np.eye(3, dtype=np.float32)[:, :, None, None], "w")],
    )
    found = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(found)
    return found


def test_the_wanted_nodes_get_pairs(model: onnx.ModelProto) -> None:
    found = by_nncf(model, PIECES, ["conv"], "x86")
    assert found is not None
    assert sum(node.op_type == "DequantizeLinear" for node in found.graph.node) == 2
    assert all(node.op_type != "QuantizeLinear" for node in model.graph.node)  # a copy


def test_this_process_stays_without_nncf(model: onnx.ModelProto) -> None:
    by_nncf(model, PIECES, ["conv"], "tensorrt")
    assert "nncf" not in sys.modules


def test_what_nncf_says_when_it_fails(model: onnx.ModelProto) -> None:
    grey = [Piece(piece.pixels[:, :, :1]) for piece in PIECES]
    with pytest.raises(ModelError, match=r"NNCF cannot quantise this network \(.*image"):
        by_nncf(model, grey, ["conv"], "x86")


def test_a_measure_that_fails_ends_the_process(model: onnx.ModelProto) -> None:
    def broken(_graph: onnx.ModelProto, _items: Sequence[int]) -> list[float]:
        raise ModelError("the engine refuses it")

    with pytest.raises(ModelError, match="the engine refuses it"):
        by_nncf(model, PIECES, ["conv"], "x86", control=CONTROL, measure=broken)


def test_it_asks_for_the_measure_of_float32_and_of_int8(model: onnx.ModelProto) -> None:
    asked = []

    def equal(graph: onnx.ModelProto, items: Sequence[int]) -> list[float]:
        asked.append((any(n.op_type == "QuantizeLinear" for n in graph.graph.node), list(items)))
        return [1.0 for _ in items]

    found = by_nncf(model, PIECES, ["conv"], "x86", control=CONTROL, measure=equal)
    assert found is not None
    assert (False, [0, 1]) in asked
    assert asked[-1] == (True, [0, 1])


def test_a_limit_in_the_middle_of_a_measure(model: onnx.ModelProto) -> None:
    def slow(_graph: onnx.ModelProto, items: Sequence[int]) -> list[float]:
        time.sleep(limit_s)
        return [1.0 for _ in items]

    limit_s = 5.0
    found = by_nncf(model, PIECES, ["conv"], "x86", control=CONTROL, measure=slow, limit_s=limit_s)
    assert found is None


def test_without_nncf(model: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(MissingExtraError, match=r"delineate\[compress\]"):
        by_nncf(model, PIECES, ["conv"], "x86")
