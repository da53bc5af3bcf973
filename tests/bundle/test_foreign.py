"""Networks of other people: every opset computes what its file says, and the rest is refused."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from delineate.bundle.foreign import read_network
from delineate.errors import ModelError

BILINEAR = {"mode": "linear"}
NEAREST = {"mode": "nearest"}


@pytest.fixture
def save(tmp_path):
    def save(model, name="net.onnx"):
        path = tmp_path / name
        onnx.save(model, path)
        return path

    return save


def _run(model, x):
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def _rescaling(forge, opset, scale, attributes):
    """A pooling and a resize back, each as its opset writes it."""
    pool = helper.make_node("AveragePool", ["x"], ["small"], kernel_shape=[2, 2], strides=[2, 2])
    scales = np.array([1, 1, scale, scale], np.float32)
    constants = {"scales": scales}
    if opset == 8:
        resize = helper.make_node(
            "Upsample", ["small"], ["y"], scales=scales.tolist(), **attributes
        )
        constants = {}
    elif opset == 9:
        resize = helper.make_node("Upsample", ["small", "scales"], ["y"], **attributes)
    elif opset == 10:
        resize = helper.make_node("Resize", ["small", "scales"], ["y"], **attributes)
    else:
        # the region of interest could not be left out before opset 13
        constants["roi"] = np.zeros(0, np.float32)
        resize = helper.make_node("Resize", ["small", "roi", "scales"], ["y"], **attributes)
    return forge.model([pool, resize], ["n", 3, "h", "w"], constants, opset=opset)


@pytest.mark.parametrize("opset", [8, 9, 10, 11, 12, 13, 17, 18, 19])
@pytest.mark.parametrize("attributes", [BILINEAR, NEAREST], ids=["linear", "nearest"])
@pytest.mark.parametrize("scale", [2.0, 3.0])
def test_resizing_of_any_opset_stays_what_it_was(forge, save, opset, attributes, scale):
    model = _rescaling(forge, opset, scale, attributes)
    found = read_network(save(model))
    assert found.opset == opset
    assert [entry.version for entry in found.model.opset_import if not entry.domain] == [18]
    assert found.multiple_of == 2
    assert found.rescales is (scale != 2.0)
    x = np.random.default_rng(5).normal(size=(2, 3, 14, 22)).astype(np.float32)
    expected = _run(model, x)
    np.testing.assert_allclose(_run(found.model, x), expected, atol=1e-5)
    if opset <= 10 and scale == 2.0:
        # pixel centres of opset 11 would lie elsewhere: the test can tell the two apart
        modern = _rescaling(forge, 18, scale, attributes)
        differs = np.abs(_run(modern, x) - expected).max() > 0.1
        assert differs == (attributes is BILINEAR)


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("opset", [9, 12, 18])
def test_what_is_read_off_a_convolution(forge, save, layout, opset):
    made = forge.convolution(4, 5, layout=layout, opset=opset)
    found = read_network(save(made.model))
    assert (found.layout, found.channels, found.planes) == (layout, 4, 5)
    assert (found.fixed_hw, found.fixed_batch) == (None, False)
    assert (found.multiple_of, found.rescales) == (1, False)


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_a_fixed_size_and_batch(forge, save, layout):
    made = forge.convolution(3, 2, layout=layout, size=(20, 36), batch=1, stride=2)
    found = read_network(save(made.model))
    assert found.fixed_hw == (20, 36)
    assert found.fixed_batch
    assert found.rescales


def test_a_batch_that_is_free_in_name_only(forge, save):
    """Exporters write a free batch and leave a fixed one in a Reshape."""
    nodes = [
        helper.make_node("Shape", ["x"], ["size"], start=2),
        helper.make_node("Concat", ["head", "size"], ["all"], axis=0),
        helper.make_node("Reshape", ["x", "all"], ["y"]),
    ]
    head = {"head": np.array([1, 3], np.int64)}
    found = read_network(save(forge.model(nodes, ["n", 3, "h", "w"], head)))
    assert found.fixed_batch


@pytest.mark.parametrize("multiple", [2, 4, 32])
def test_the_multiple_is_found_by_trying(forge, save, multiple):
    """Down and up again, and added to the input: other sizes fail inside."""
    scales = np.array([1, 1, multiple, multiple], np.float32)
    kernel = [multiple, multiple]
    nodes = [
        helper.make_node("MaxPool", ["x"], ["small"], kernel_shape=kernel, strides=kernel),
        helper.make_node("Resize", ["small", "", "scales"], ["large"], mode="nearest"),
        helper.make_node("Add", ["x", "large"], ["y"]),
    ]
    found = read_network(save(forge.model(nodes, ["n", 3, "h", "w"], {"scales": scales})))
    assert found.multiple_of == multiple


def test_weights_among_the_inputs(forge, save):
    made = forge.convolution(3, 2, opset=8)
    for tensor in made.model.graph.initializer:
        value = helper.make_tensor_value_info(tensor.name, TensorProto.FLOAT, list(tensor.dims))
        made.model.graph.input.insert(0, value)
    made.model.ir_version = 3
    found = read_network(save(made.model))
    assert [value.name for value in found.model.graph.input] == ["x"]
    x = np.random.default_rng(0).normal(size=(1, 3, 9, 8)).astype(np.float32)
    expected = made.scores(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(_run(found.model, x), expected, atol=1e-5)


def test_functions_are_written_out(forge, save):
    """A file may define operators of its own."""
    model = forge.model([helper.make_node("Relu", ["x"], ["y"])], ["n", 3, "h", "w"])
    model.graph.node[0].op_type, model.graph.node[0].domain = "Twice", "own"
    double = [helper.make_node("Add", ["a", "a"], ["b"])]
    opsets = [helper.make_opsetid("", 18)]
    model.functions.append(helper.make_function("own", "Twice", ["a"], ["b"], double, opsets))
    model.opset_import.append(helper.make_opsetid("own", 1))
    found = read_network(save(model))
    assert not found.model.functions
    x = np.ones((1, 3, 4, 4), np.float32)
    np.testing.assert_array_equal(_run(found.model, x), 2 * x)


def _two_outputs(forge):
    nodes = [
        helper.make_node("Relu", ["x"], ["main"]),
        helper.make_node("GlobalAveragePool", ["x"], ["aux"]),
    ]
    return forge.model(nodes, ["n", 3, "h", "w"], outputs=["main", "aux"])


def test_one_of_several_outputs(forge, save):
    found = read_network(save(_two_outputs(forge)), "main")
    assert [value.name for value in found.model.graph.output] == ["main"]
    assert found.planes == 3


def _refusal(path, output=None):
    with pytest.raises(ModelError) as caught:
        read_network(path, output)
    prefix = f"{path}: "
    assert str(caught.value).startswith(prefix)
    return str(caught.value).removeprefix(prefix)


def test_outputs_that_are_not_chosen_right(forge, save):
    path = save(_two_outputs(forge))
    assert _refusal(path) == "gives 2 outputs: main, aux. Choose one with --output NAME."
    assert _refusal(path, "head") == "has no output 'head'. It has main, aux."
    assert _refusal(path, "aux").startswith(
        "runs at no multiple of 1, 2, 4, 8, 16, 32, 64 pixels: its output is out of proportion"
    )


def test_several_inputs(forge, save):
    add = helper.make_node("Add", ["image", "mask"], ["y"])
    model = forge.model([add], ["n", 3, "h", "w"], inputs=["image", "mask"])
    assert _refusal(save(model)) == "takes 2 inputs (image, mask), not one."


@pytest.mark.parametrize("kind", ["FLOAT16", "UINT8", "DOUBLE"])
def test_inputs_of_another_type(forge, save, kind):
    cast = helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)
    model = forge.model([cast], ["n", 3, "h", 8], kind=TensorProto.DataType.Value(kind))
    assert _refusal(save(model)) == (
        f"its input is {kind} of shape [None, 3, None, 8], not float32 of rank four."
    )


def test_inputs_of_another_shape(forge, save):
    identity = [helper.make_node("Identity", ["x"], ["y"])]
    three = forge.model(identity, [3, "h", "w"], rank=3)
    assert _refusal(save(three)) == (
        "its input is FLOAT of shape [3, None, None], not float32 of rank four."
    )
    free = forge.model(identity, ["n", "c", "h", "w"])
    assert _refusal(save(free)) == "does not say how many channels it takes."
    eight = forge.model(identity, [8, 3, "h", "w"])
    assert _refusal(save(eight)) == (
        "takes batches of exactly 8. Export it again with a batch of one, or a free batch."
    )
    mend = "Export it again with both sides fixed, or both free."
    high = forge.model(identity, ["n", 3, 96, "w"])
    assert _refusal(save(high)) == (
        f"its height is fixed to 96 px and the other side is free. {mend}"
    )
    wide = forge.model(identity, ["n", 3, "h", 96])
    assert _refusal(save(wide)) == (
        f"its width is fixed to 96 px and the other side is free. {mend}"
    )


def test_outputs_that_are_no_scores(forge, save):
    wanted = "a float32 score for each class and pixel, of rank four, is wanted. Export it before"
    flat = forge.model(
        [helper.make_node("ReduceMean", ["x"], ["y"], axes=[1], keepdims=0)],
        ["n", 3, "h", "w"], rank=3, opset=13,
    )  # fmt: skip
    assert _refusal(save(flat)) == (
        f"its output is float32 of shape (1, 65, 129); {wanted} its ArgMax."
    )
    chosen = forge.model(
        [helper.make_node("ArgMax", ["x"], ["y"], axis=1)],
        ["n", 3, "h", "w"], output_kind=TensorProto.INT64,
    )  # fmt: skip
    assert _refusal(save(chosen)) == (
        f"its output is int64 of shape (1, 1, 65, 129); {wanted} its ArgMax."
    )


def test_a_network_that_does_not_run(forge, save):
    """A Reshape that fits no size, or not the one size that is named."""
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["y"])]
    shape = {"shape": np.array([1, 3, 7, 7], np.int64)}
    free = _refusal(save(forge.model(nodes, ["n", 3, "h", "w"], shape)))
    assert free.startswith(
        "runs at no multiple of 1, 2, 4, 8, 16, 32, 64 pixels: cannot be run on input of shape "
        "(1, 3, 128, 192) ("
    )
    fixed = forge.model(
        [helper.make_node("Reshape", ["x", "free"], ["y"])],
        [1, 3, 8, 8],
        {"free": np.array([1, 3, 7, -1], np.int64)},
    )
    assert _refusal(save(fixed)).startswith(
        ("cannot be run on input of shape (1, 3, 8, 8) (", "ONNX Runtime refuses it (")
    )


def test_an_operator_that_onnx_runtime_lacks(forge, save):
    model = forge.model([helper.make_node("Relu", ["x"], ["y"])], ["n", 3, "h", "w"])
    model.graph.node[0].op_type, model.graph.node[0].domain = "Magic", "elsewhere"
    model.opset_import.append(helper.make_opsetid("elsewhere", 1))
    assert _refusal(save(model)).startswith("ONNX Runtime refuses it (")


def test_a_conversion_that_changes_the_results(forge, save, monkeypatch):
    """As if the centres of pixels had been forgotten."""
    monkeypatch.setattr("delineate.bundle.foreign._set_text", lambda *_: None)
    model = _rescaling(forge, 10, 2.0, BILINEAR)
    message = _refusal(save(model))
    assert message.startswith("computes something else after conversion to opset 18 (off by ")
    assert message.endswith("%). Export it again with opset 18.")


def test_files_that_are_no_networks(tmp_path, forge):
    absent = tmp_path / "absent.onnx"
    assert _refusal(absent) == "no such file."
    text = tmp_path / "text.onnx"
    text.write_text("weights follow\n")
    assert _refusal(text).startswith("is no valid ONNX file (")
    empty = tmp_path / "empty.onnx"
    empty.write_bytes(b"")
    assert _refusal(empty).startswith("is no valid ONNX file (")
    assert _refusal(tmp_path).startswith("is no valid ONNX file (")
    whole = forge.convolution().model.SerializeToString()
    cut = tmp_path / "cut.onnx"
    for length in (1, len(whole) // 3, len(whole) // 2, len(whole) - 1):
        cut.write_bytes(whole[:length])
        assert _refusal(cut).startswith("is no valid ONNX file (")
