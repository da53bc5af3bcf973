"""Small networks that are really quantised, by both tools."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional

from delineate.bundle.graph import Wrapping, finish
from delineate.compression.piece import Piece
from delineate.compression.qdq import Family, of_family
from delineate.compression.quantise import (
    Quantisation,
    Tool,
    prepared,
    quantisable,
    quantised,
)
from delineate.config import Normalisation
from delineate.engines.onnxruntime import OnnxRuntimePredictor
from delineate.engines.scaling import image_scaling
from delineate.errors import ModelError
from delineate.export import export_network
from delineate.types import Image, PredictorSpec

if TYPE_CHECKING:
    from tests.conftest import Forge

TOOLS, FAMILIES = get_args(Tool), get_args(Family)
WRAPPING = Wrapping(3, "uint8", "multiclass", 3, Normalisation(mean=(120.0,) * 3, std=(60.0,) * 3))


def pictures() -> Iterator[Image]:
    """Smooth pictures of several sizes."""
    rng = np.random.default_rng(0)
    for width in (64, 96, 64, 80):
        waves = np.sin(np.arange(64)[:, None, None] / rng.uniform(4, 9, 3))
        waves = waves + np.cos(np.arange(width)[None, :, None] / rng.uniform(4, 9, 3))
        yield np.clip(128 + 50 * waves + rng.normal(0, 9, (64, width, 3)), 0, 255).astype(np.uint8)


IMAGES = tuple(pictures())
PIECES = tuple(Piece(image) for image in IMAGES)


class Skipping(nn.Module):
    """A U-Net of one level: what is skipped has two readers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.down = nn.Conv2d(16, 32, 3, 2, padding=1)
        self.up = nn.Conv2d(48, 16, 3, padding=1)
        self.head = nn.Conv2d(16, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        skipped = self.norm(self.first(x)).relu()
        deep = functional.interpolate(self.down(skipped).relu(), size=skipped.shape[2:])
        result: Tensor = self.head(self.up(torch.cat([skipped, deep], 1)).relu())
        return result


@pytest.fixture(scope="module")
def unet() -> onnx.ModelProto:
    """Prepared, with random weights."""
    torch.manual_seed(0)
    return prepared(finish(export_network(Skipping().eval(), 3), WRAPPING))


@pytest.fixture(scope="module", params=[(tool, family) for tool in TOOLS for family in FAMILIES])
def made(
    request: pytest.FixtureRequest, unet: onnx.ModelProto
) -> tuple[Tool, Family, onnx.ModelProto]:
    tool, family = request.param
    return tool, family, quantised(unet, PIECES, Quantisation(tool, family))


def probabilities(model: onnx.ModelProto, image: Image) -> np.ndarray:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(["probabilities"], {"image": image[None]})[0]
    return found.astype(np.int16)


def optimised(model: onnx.ModelProto, folder: Path) -> Counter[str]:
    """Operators that ONNX Runtime really runs."""
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.log_severity_level = 3
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(folder / "optimised.onnx").graph.node)


def activations(model: onnx.ModelProto) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Scale and zero point of everything that is quantised at run time."""
    constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear" and node.input[0] not in constants:
            yield constants[node.input[1]], constants[node.input[2]]


def weights(model: onnx.ModelProto) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Values and scales of the weights of convolutions."""
    constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in constants:
            values = constants[node.input[0]]
            if values.ndim == 4:
                yield values, constants[node.input[1]]


def test_the_answer_stays_near_that_of_float(
    made: tuple[Tool, Family, onnx.ModelProto], unet: onnx.ModelProto
) -> None:
    assert [opset.domain for opset in made[2].opset_import] == [""]
    image = IMAGES[0]
    apart = probabilities(made[2], image) - probabilities(unet, image)
    assert 0 < np.abs(apart).mean() < 4
    assert [value.name for value in made[2].graph.output] == [v.name for v in unet.graph.output]


@pytest.mark.parametrize("tool", TOOLS)
def test_images_are_normalised_each_by_itself(tool: Tool, forge: Forge) -> None:
    by_image = WRAPPING.normalisation.model_copy(update={"by": "image"})
    graph = finish(forge.convolution().model, replace(WRAPPING, normalisation=by_image))
    spec = PredictorSpec(("a", "b", "c"), "multiclass", 3, "uint8", normalised_by_image=True)
    dark = [image // 4 for image in IMAGES]
    pieces = [Piece(image) for image in dark]
    found = OnnxRuntimePredictor(quantised(prepared(graph), pieces, Quantisation(tool)), spec)
    wanted = OnnxRuntimePredictor(graph, spec)
    # ranges of images that are normalised fit those of any exposure
    for image in (*IMAGES, *dark):
        a, b = (each.predict(image[None], ("labels",))["labels"] for each in (found, wanted))
        assert (a == b).mean() > 0.97


@pytest.mark.parametrize("tool", TOOLS)
def test_a_piece_is_normalised_by_its_whole_image(tool: Tool, forge: Forge) -> None:
    image = IMAGES[0]
    whole = np.concatenate([image, image // 8])
    scaling = image_scaling(whole)
    scale, offset = scaling.astype(float)

    def steps(piece: Piece, **normalisation: Any) -> list[float]:
        wrapping = replace(WRAPPING, normalisation=Normalisation(**normalisation))
        graph = prepared(finish(forge.convolution().model, wrapping))
        return [s.item() for s, _ in activations(quantised(graph, [piece], Quantisation(tool)))]

    known = {"mean": tuple(-offset / scale), "std": tuple(1 / scale)}
    wanted = steps(Piece(image), **known)
    assert steps(Piece(image, scaling), by="image", **known) == pytest.approx(wanted)
    assert steps(Piece(image), by="image", **known) != pytest.approx(wanted, rel=0.05)


def test_each_family_gets_the_types_it_wants(made: tuple[Tool, Family, onnx.ModelProto]) -> None:
    _, family, model = made
    found = list(activations(model))
    assert len(found) >= 5
    assert {zero.dtype.name for _, zero in found} == {"uint8" if family == "x86" else "int8"}
    assert all(scale.ndim == 0 or scale.size == 1 for scale, _ in found)
    if family == "tensorrt":
        assert not any(zero.any() for _, zero in found)
    for values, scales in weights(model):
        assert values.dtype == np.int8
        assert scales.size in values.shape[:2]  # one for each channel
        assert np.abs(values.astype(int)).max() <= (64 if family == "x86" else 128)


def test_a_processor_runs_integers_in_every_convolution(
    unet: onnx.ModelProto, tmp_path: Path
) -> None:
    model = quantised(unet, PIECES, Quantisation("onnxruntime"))
    found = optimised(model, tmp_path)
    convolutions = sum(node.op_type == "Conv" for node in unet.graph.node)
    assert found["QLinearConv"] == convolutions == 4
    assert found["Conv"] == found["FusedConv"] == 0


@pytest.mark.parametrize("tool", TOOLS)
def test_what_lies_round_the_network_stays_float(tool: Tool, unet: onnx.ModelProto) -> None:
    model = quantised(unet, PIECES, Quantisation(tool))
    readers = {name: node for node in model.graph.node for name in node.input}
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear":
            reader = readers[node.output[0]]
            assert reader.name.startswith(("network/", "delineate/slice", "delineate/arg")) or (
                reader.op_type in ("Softmax", "QuantizeLinear")
            )


@pytest.mark.parametrize("tool", TOOLS)
def test_nodes_that_are_named_stay_float(tool: Tool, unet: onnx.ModelProto, tmp_path: Path) -> None:
    nodes = {node.name: node for node in unet.graph.node}
    kept = [name for name in quantisable(unet) if nodes[name].op_type == "Conv"][1:]
    model = quantised(unet, PIECES, Quantisation(tool, float_nodes=frozenset(kept)))
    constants = {tensor.name for tensor in model.graph.initializer}
    by_name = {node.name: node for node in model.graph.node}
    assert [by_name[name].input[1] in constants for name in kept] == [True] * 3
    # and ONNX Runtime, which quantises float weights between integers by itself, leaves them so
    found = optimised(model, tmp_path)
    assert found["Conv"] + found["FusedConv"] >= 3
    image = IMAGES[0]
    onnx.checker.check_model(model)
    half = np.abs(probabilities(model, image) - probabilities(unet, image)).mean()
    whole = np.abs(
        probabilities(quantised(unet, PIECES, Quantisation(tool)), image)
        - probabilities(unet, image)
    ).mean()
    assert half < whole


def test_the_rarest_values_may_be_cut_off(unet: onnx.ModelProto) -> None:
    how = Quantisation("onnxruntime", ranges="percentile")
    cut = [scale.item() for scale, _ in activations(quantised(unet, PIECES, how))]
    whole = [
        scale.item()
        for scale, _ in activations(quantised(unet, PIECES, Quantisation("onnxruntime")))
    ]
    assert np.median(np.array(cut) / whole) < 1.0


def test_a_shift_of_the_zero_point_changes_nothing(unet: onnx.ModelProto) -> None:
    made = quantised(unet, PIECES, Quantisation("onnxruntime"))
    image = IMAGES[0]
    before = probabilities(made, image)
    signed = onnx.ModelProto()
    signed.CopyFrom(made)
    constants = {tensor.name: tensor for tensor in signed.graph.initializer}
    users: set[str] = set()
    for node in signed.graph.node:
        if node.op_type.endswith("quantizeLinear") and node.input[0] not in constants:
            users.add(node.input[2])
    for name in users:
        value = numpy_helper.to_array(constants[name])
        if value.dtype == np.uint8:
            moved = (value.astype(np.int16) - 128).astype(np.int8)
            constants[name].CopyFrom(numpy_helper.from_array(moved, name))
    assert np.array_equal(probabilities(of_family(made, "x86"), image), before)


def test_a_network_without_weights_is_refused(forge: Forge) -> None:
    network = forge.model([helper.make_node("Sqrt", ["x"], ["y"])], ["n", 3, "h", "w"])
    model = prepared(finish(network, WRAPPING))
    with pytest.raises(ModelError) as caught:
        quantisable(model)
    assert str(caught.value) == (
        "no operator of this network can be quantised (it has Sqrt). "
        "int8 needs one of: Conv, ConvTranspose, MatMul, Gemm."
    )


def test_a_concatenation_that_only_floats_read_stays_float(forge: Forge) -> None:
    def kept(reader: str) -> set[str]:
        nodes = [
            helper.make_node("Relu", ["x"], ["a"], "relu"),
            helper.make_node("Concat", ["a", "x"], ["b"], "concat", axis=1),
            helper.make_node(reader, ["b"], ["c"], "reader"),
            helper.make_node("Conv", ["c", "w"], ["y"], "conv"),
        ]
        weight = np.ones((3, 6, 1, 1), np.float32)
        network = forge.model(nodes, ["n", 3, "h", "w"], {"w": weight})
        return set(quantisable(prepared(finish(network, WRAPPING))))

    assert "network/concat" in kept("Relu")
    # OpenVINO 2026.4 crashes on such a graph of DDRNet-23-slim
    assert kept("Sqrt") == {"network/relu", "network/conv"}


def test_nodes_without_names_get_some(forge: Forge) -> None:
    convolution = forge.convolution()
    assert not any(node.name for node in convolution.model.graph.node)
    model = prepared(finish(convolution.model, WRAPPING))
    assert len(quantisable(model)) == 1
    found = quantised(model, PIECES, Quantisation("onnxruntime"))
    assert Counter(node.op_type for node in found.graph.node)["QuantizeLinear"] >= 1


def test_asymmetric_activations_are_nothing_for_tensorrt() -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], name="q"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], name="d"),
    ]
    values = {"s": np.float32(0.5), "z": np.uint8(7)}
    graph = helper.make_graph(
        nodes,
        "made",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])],
        [numpy_helper.from_array(np.asarray(v), name) for name, v in values.items()],
    )
    with pytest.raises(ModelError, match="q is not symmetric, and TensorRT takes nothing else"):
        of_family(helper.make_model(graph), "tensorrt")
