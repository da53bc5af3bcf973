"""Changes to QDQ graphs that keep what they compute: types of activations, and layers in float."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import onnx
from onnx import helper, numpy_helper

from delineate.errors import ModelError

Family = Literal["x86", "tensorrt"]
BIASED = ("Conv", "ConvTranspose", "Gemm")


def of_family(model: onnx.ModelProto, family: Family) -> onnx.ModelProto:
    """A QDQ graph whose activations are all unsigned (x86), or all signed and symmetric.

    Signed values become unsigned ones by a shift of the zero point, exactly. Of unsigned
    symmetric ones the signed have half the levels, over the same range.

    Raises:
        ModelError: an activation is unsigned and not symmetric, and is to be signed.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    changed, weights = set[str](), set[str]()
    for node in model.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        if node.input[0] in constants or node.input[0] in weights:
            weights.update(node.output)  # weights may be quantised when the graph is loaded
            continue
        scale, zero = (constants[name] for name in node.input[1:3])
        is_signed = zero.data_type == onnx.TensorProto.INT8
        if is_signed is (family == "tensorrt"):
            continue
        value = numpy_helper.to_array(zero).astype(np.int16)
        if family == "x86":
            _replace(model, node, 2, (value + 128).astype(np.uint8))
        elif value.any():
            raise ModelError(f"{node.name} is not symmetric, and TensorRT takes nothing else")
        else:
            _replace(model, node, 2, value.astype(np.int8))
            wider = numpy_helper.to_array(scale) * np.float32(255 / 127)
            _replace(model, node, 1, wider.astype(np.float32))
        changed.add(node.output[0])
    told = [value for value in model.graph.value_info if value.name not in changed]
    del model.graph.value_info[:]  # of which some name the type as it was
    model.graph.value_info.extend(told)
    return model


def float_kept(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph, whose float layers ONNX Runtime leaves in float.

    When it loads a graph it quantises float weights of a layer between quantised ones, with one
    scale for all channels and without a word (WeightBiasQuantization, up to 1.32 at least); that
    undoes what the layer was left in float for. It does so only where the bias is a constant, so
    the bias of such a layer is dequantised from 32-bit integers, to float precision.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    dequantised = {n.output[0] for n in model.graph.node if n.op_type == "DequantizeLinear"}
    kept = onnx.ModelProto()
    kept.CopyFrom(model)
    del kept.graph.node[:]
    for node in model.graph.node:
        is_float = node.op_type in BIASED and node.input[1] in constants
        if is_float and node.input[0] in dequantised and not set(node.input[2:]) - set(constants):
            weight = numpy_helper.to_array(constants[node.input[1]])
            bias = np.zeros(_outputs(node, weight), np.float32)
            if len(node.input) > 2:
                bias = numpy_helper.to_array(constants[node.input[2]])
            node = _with_integer_bias(node, bias, kept)
        kept.graph.node.append(node)
    return kept


def _with_integer_bias(
    node: onnx.NodeProto, bias: np.ndarray, model: onnx.ModelProto
) -> onnx.NodeProto:
    """A copy of ``node`` whose bias is dequantised by a node that is added to ``model``."""
    levels, step, result = (f"{node.name}/{part}" for part in ("bias", "bias_step", "bias_float"))
    value = np.float32(max(float(np.abs(bias).max(initial=0.0)), 1e-6) / (1 << 30))
    counts = np.rint(bias.astype(np.float64) / np.float64(value)).astype(np.int32)
    model.graph.initializer.append(numpy_helper.from_array(counts, levels))
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), step))
    model.graph.node.append(
        helper.make_node("DequantizeLinear", [levels, step], [result], name=result)
    )
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    del copy.input[2:]
    copy.input.append(result)
    return copy


def _outputs(node: onnx.NodeProto, weight: np.ndarray) -> int:
    """How many values a layer's bias has."""
    attributes = {item.name: item.i for item in node.attribute}
    match node.op_type:
        case "Conv":
            return int(weight.shape[0])
        case "ConvTranspose":
            return int(weight.shape[1]) * (attributes.get("group") or 1)
        case _:
            return int(weight.shape[0 if attributes.get("transB") else 1])


def _replace(model: onnx.ModelProto, node: onnx.NodeProto, index: int, value: Any) -> None:
    """Give ``node`` a constant of its own; others may share the old one."""
    name = f"{node.name}/{('scale', 'zero')[index - 1]}"
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    node.input[index] = name
