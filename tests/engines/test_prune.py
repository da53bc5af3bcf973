"""Pruning: what is left, and that it computes the same."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from delineate.bundle.graph import Wrapping, finish
from delineate.config import Normalisation
from delineate.engines.prune import prune
from delineate.types import OUTPUTS


def _run(model, outputs, **inputs):
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    assert [value.name for value in session.get_outputs()] == list(outputs)
    return session.run(list(outputs), inputs)


def _names(items):
    return [item.name for item in items]


@pytest.fixture(scope="module")
def finished(tiny_network):
    normalisation = Normalisation(mean=(1.0, 2.0, 3.0), std=(4.0, 5.0, 6.0))
    return finish(tiny_network.model, Wrapping(3, "uint8", "multiclass", 2, normalisation))


@pytest.mark.parametrize(
    "outputs", [("labels",), ("confidence",), ("probabilities",), ("summary",), OUTPUTS[:2]]
)
def test_a_pruned_graph_gives_the_same(finished, outputs):
    before = finished.SerializeToString()
    images = np.random.default_rng(0).integers(0, 256, (2, 7, 9, 3), np.uint8)
    pruned = prune(finished, outputs)
    onnx.checker.check_model(pruned, full_check=True)
    everything = dict(zip(OUTPUTS, _run(finished, OUTPUTS, image=images), strict=True))
    for name, found in zip(outputs, _run(pruned, outputs, image=images), strict=True):
        np.testing.assert_array_equal(found, everything[name])
    assert finished.SerializeToString() == before  # a copy was pruned


def test_labels_alone_need_neither_softmax_nor_sums(finished):
    kinds = [node.op_type for node in prune(finished, ("labels",)).graph.node]
    assert kinds.count("ArgMax") == 1
    assert not {"Softmax", "Log", "ReduceMax", "ReduceMean", "Round"} & set(kinds)


@pytest.mark.parametrize("outputs", [("labels",), ("probabilities",), ("summary",), OUTPUTS])
def test_everything_left_is_read(finished, outputs):
    graph = prune(finished, outputs).graph
    read = {name for node in graph.node for name in node.input} | set(outputs)
    assert all(read & set(node.output) for node in graph.node)
    assert set(_names(graph.initializer)) <= read
    assert _names(graph.input) == ["image"]
    assert tuple(_names(graph.output)) == outputs


def _graph(nodes, inputs, outputs, constants=()):
    def value(name):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"])

    return helper.make_graph(
        nodes,
        "made",
        [value(name) for name in inputs],
        [value(name) for name in outputs],
        list(constants),
    )


def _model(graph):
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 8
    onnx.checker.check_model(model)
    return model


@pytest.mark.parametrize("sign", [1, -1])
def test_what_only_a_branch_reads_stays(sign):
    """``inside`` and ``two`` are read by a branch of a branch, nowhere else."""
    deepest = _graph([helper.make_node("Mul", ["inside", "two"], ["t2"])], [], ["t2"])
    same = _graph([helper.make_node("Identity", ["inside"], ["e2"])], [], ["e2"])
    inner = helper.make_node("If", ["flag"], ["t1"], then_branch=deepest, else_branch=same)
    then = _graph([inner], [], ["t1"])
    # the else branch gives a value of the graph around it, without a node of its own
    otherwise = _graph([helper.make_node("Neg", ["aside"], ["e1"])], [], ["e1"])
    nodes = [
        helper.make_node("Add", ["x", "one"], ["inside"]),
        helper.make_node("Sub", ["x", "one"], ["aside"]),
        helper.make_node("Exp", ["x"], ["unread"]),
        helper.make_node("ReduceSum", ["x"], ["total"], keepdims=0),
        helper.make_node("Greater", ["total", "zero"], ["flag"]),
        helper.make_node("If", ["flag"], ["y"], then_branch=then, else_branch=otherwise),
        helper.make_node("Mul", ["unread", "three"], ["z"]),
    ]
    constants = [
        numpy_helper.from_array(np.array(value, np.float32), name)
        for name, value in (("zero", 0), ("one", [1]), ("two", [2]), ("three", [3]))
    ]
    model = _model(_graph(nodes, ["x"], ["y", "z"], constants))
    pruned = prune(model, ("y",))
    assert [node.op_type for node in pruned.graph.node] == ["Add", "Sub", "ReduceSum", "Greater",
                                                            "If"]  # fmt: skip
    assert _names(pruned.graph.initializer) == ["zero", "one", "two"]
    x = np.array([0.5, 2.0], np.float32) * sign
    expected = (x + 1) * 2 if sign > 0 else 1 - x
    np.testing.assert_array_equal(_run(pruned, ("y",), x=x)[0], expected)


def test_an_output_that_is_left_out_keeps_no_node():
    """The empty name stands for nothing: who leaves out an input reads no left-out output."""
    nodes = [
        helper.make_node("Dropout", ["x"], ["dropped", ""]),
        helper.make_node("Clip", ["x", "", "one"], ["y"]),
        helper.make_node("Identity", ["dropped"], ["z"]),
    ]
    one = numpy_helper.from_array(np.array(1, np.float32), "one")
    pruned = prune(_model(_graph(nodes, ["x"], ["y", "z"], [one])), ("y",))
    assert [node.op_type for node in pruned.graph.node] == ["Clip"]


def test_notes_on_values_go_with_them(finished):
    noted = onnx.shape_inference.infer_shapes(finished)
    left = {value.name for value in prune(noted, ("labels",)).graph.value_info}
    assert left
    assert len(left) < len(noted.graph.value_info)
