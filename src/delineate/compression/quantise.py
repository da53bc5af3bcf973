"""Post-training quantisation of a finished graph to QDQ ONNX, by two tools.

Only nodes of the network are quantised: what lies before and behind it, from raw pixels to finished
results, stays as it is. There is a file for each target family, because their wishes exclude each
other: processors want unsigned activations (ONNX Runtime leaves signed ones with two readers in
float), TensorRT takes nothing but signed symmetric ones. Weights are signed, symmetric and have a
scale for each channel. For processors they use half of their range: without VNNI, two products of
a full 8-bit weight and an 8-bit activation overflow the 16 bits that they are summed up in.
"""

from __future__ import annotations

import io
import logging
import os
import tempfile
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import onnx
from jaxtyping import Shaped
from onnx import helper, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from delineate.errors import MissingExtraError, ModelError

Tool = Literal["onnxruntime", "nncf"]
Family = Literal["x86", "tensorrt"]
Ranges = Literal["minmax", "percentile"]

AnySize: TypeAlias = Shaped[np.ndarray, "_ _ c"]  # an image, among others of other sizes

NETWORK = "network/"  # how the names of the network's nodes begin in a finished graph
# operators with weights, and those between them that an engine runs in integers as well
QUANTISED = (
    "Conv",
    "ConvTranspose",
    "MatMul",
    "Gemm",
    "Add",
    "Mul",
    "Concat",
    "Resize",
    "MaxPool",
    "AveragePool",
    "GlobalAveragePool",
    "Relu",
    "Clip",
    "LeakyRelu",
    "Sigmoid",
    "Transpose",
    "Reshape",
)
WEIGHTED = ("Conv", "ConvTranspose", "MatMul", "Gemm")
BIASED = ("Conv", "ConvTranspose", "Gemm")


@dataclass(frozen=True)
class Quantisation:
    """How a network is quantised.

    Attributes:
        tool: whose implementation.
        family: which targets the file is for.
        ranges: of activations: all that was seen, or without the rarest 0.001 % at each end.
        float_nodes: names of nodes that stay float.
    """

    tool: Tool
    family: Family = "x86"
    ranges: Ranges = "minmax"
    float_nodes: frozenset[str] = frozenset()


def prepared(model: onnx.ModelProto) -> onnx.ModelProto:
    """A finished graph with batch normalisation folded into weights and all shapes inferred.

    Raises:
        ModelError: ONNX Runtime cannot do it.
    """
    with tempfile.TemporaryDirectory() as folder, _quiet():
        given, path = Path(folder) / "given.onnx", Path(folder) / "prepared.onnx"
        # a file: a model in memory would be altered, and not read back
        onnx.save(_named(model), given)
        try:
            quant_pre_process(given, path, skip_symbolic_shape=True)
            found = onnx.load(path)
        except Exception as error:  # a family of many kinds
            raise ModelError(f"this network cannot be prepared for int8 ({error})") from error
    used = {node.domain for node in found.graph.node}
    opsets = [opset for opset in found.opset_import if opset.domain in used]
    del found.opset_import[:]  # ONNX Runtime adds all that it knows
    found.opset_import.extend(opsets)
    return found


def _named(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which no two nodes share a name, and none lacks one: tools go by names."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    seen = {""}
    for node in copy.graph.node:
        if node.name in seen:
            node.name = node.output[0]
        seen.add(node.name)
    return copy


def quantisable(model: onnx.ModelProto) -> tuple[str, ...]:
    """Names of the nodes of a prepared graph that may become integers, in the order they run.

    Raises:
        ModelError: none of them has weights.
    """
    real = {
        value.name
        for value in model.graph.value_info
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    }
    nodes = [
        node
        for node in model.graph.node
        if node.name.startswith(NETWORK)
        and node.op_type in QUANTISED
        and real.issuperset(node.output)  # others compute shapes
    ]
    if not any(node.op_type in WEIGHTED for node in nodes):
        there = sorted({node.op_type for node in model.graph.node if NETWORK in node.name})
        raise ModelError(
            f"no operator of this network can be quantised (it has {', '.join(there) or 'none'})",
            mend=f"int8 needs one of: {', '.join(WEIGHTED)}.",
        )
    return tuple(node.name for node in nodes)


def quantised(
    model: onnx.ModelProto,
    images: Sequence[AnySize],
    how: Quantisation,
    *,
    cache: Path | None = None,
) -> onnx.ModelProto:
    """A prepared graph with quantisation and dequantisation around its quantised nodes.

    Args:
        model: from :func:`prepared`.
        images: for the ranges, (H, W, C) raw pixels each. They may differ in size.
        how: tool, family and what stays float.
        cache: a folder in which ONNX Runtime's ranges are kept, for further calls with the same
            model and images.

    Raises:
        MissingExtraError: NNCF is not installed.
        ModelError: the network cannot be quantised, or not by this tool.
    """
    wanted = [name for name in quantisable(model) if name not in how.float_nodes]
    if how.tool == "nncf":
        made = _by_nncf(model, images, wanted, how)
    else:
        made = _by_onnxruntime(model, images, wanted, how, cache)
    return _float_kept(made) if how.family == "x86" else made


class _Batches(CalibrationDataReader):  # type: ignore[misc]
    """Images one by one, as ONNX Runtime asks for them."""

    def __init__(self, images: Sequence[AnySize]) -> None:
        self._images = images
        self.set_range(0, len(images))

    def __len__(self) -> int:
        return len(self._images)

    def set_range(self, start_index: int, end_index: int) -> None:
        self._left = iter(range(start_index, min(end_index, len(self))))

    def get_next(self) -> dict[str, np.ndarray] | None:
        index = next(self._left, None)
        return None if index is None else {"image": self._images[index][None]}


def _by_onnxruntime(
    model: onnx.ModelProto,
    images: Sequence[AnySize],
    wanted: Sequence[str],
    how: Quantisation,
    cache: Path | None,
) -> onnx.ModelProto:
    processor = how.family == "x86"
    options: dict[str, Any] = {
        "ActivationSymmetric": not processor,
        "WeightSymmetric": True,
        # the calibrators make histograms symmetric unless they are told
        "CalibTensorRangeSymmetric": not processor,
        "CalibPercentile": 99.999,
        # image by image: all activations of several would be kept, and have to be of one size
        "CalibStridedMinMax": 1,
    }
    if not processor:  # NVIDIA's rules of where quantisation goes
        options |= {
            "DedicatedQDQPair": True,
            "QuantizeBias": False,
            "OpTypesToExcludeOutputQuantization": list(WEIGHTED),
        }
    percentile, minmax = CalibrationMethod.Percentile, CalibrationMethod.MinMax
    with tempfile.TemporaryDirectory() as folder, _quiet():
        given, path = Path(folder) / "given.onnx", Path(folder) / "quantised.onnx"
        onnx.save(model, given)
        try:
            quantize_static(
                given,
                path,
                _Batches(images),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(QUANTISED),
                nodes_to_quantize=list(wanted),
                per_channel=True,
                reduce_range=processor,
                activation_type=QuantType.QUInt8 if processor else QuantType.QInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=percentile if how.ranges == "percentile" else minmax,
                extra_options=options,
                calibration_cache_path=(
                    None if cache is None else cache / f"{how.family}-{how.ranges}.json"
                ),
            )
            return onnx.load(path)
        except Exception as error:  # a family of many kinds
            raise ModelError(f"ONNX Runtime cannot quantise this network ({error})") from error


def _by_nncf(
    model: onnx.ModelProto,
    images: Sequence[AnySize],
    wanted: Collection[str],
    how: Quantisation,
) -> onnx.ModelProto:
    nncf = import_nncf()
    parameters = nncf.quantization.advanced_parameters
    others = [node.name for node in model.graph.node if node.name not in wanted]
    processor = how.family == "x86"
    advanced = parameters.AdvancedQuantizationParameters(
        overflow_fix=parameters.OverflowFix.ENABLE if processor else parameters.OverflowFix.DISABLE,
        activations_quantization_params=parameters.QuantizationParameters(
            mode="asymmetric" if processor else "symmetric", per_channel=False
        ),
    )
    data = nncf.Dataset(images, lambda image: {"image": image[None]})
    try:
        with _quiet():
            found: onnx.ModelProto = nncf.quantize(
                _first_domain_first(model),
                data,
                subset_size=len(images),
                fast_bias_correction=True,
                ignored_scope=nncf.IgnoredScope(names=others, validate=False),
                advanced_parameters=advanced,
            )
    except Exception as error:  # nncf.errors and what ONNX Runtime raises inside it
        raise ModelError(f"NNCF cannot quantise this network ({error})") from error
    return of_family(found, how.family)


def of_family(model: onnx.ModelProto, family: Family) -> onnx.ModelProto:
    """A QDQ graph whose activations are all unsigned (x86), or all signed and symmetric.

    Signed values become unsigned ones by a shift of the zero point, exactly. Of unsigned
    symmetric ones the signed have half the levels, over the same range.

    Raises:
        ModelError: an activation is unsigned and not symmetric, and is to be signed.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    changed: set[str] = set()
    for node in model.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear") or node.input[0] in constants:
            continue  # the others are weights
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


def _float_kept(model: onnx.ModelProto) -> onnx.ModelProto:
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


def import_nncf() -> Any:
    """NNCF, without the messages that it would send home.

    Raises:
        MissingExtraError: it is not installed.
    """
    before = os.environ.get("NNCF_CI")
    os.environ["NNCF_CI"] = "1"
    try:
        with _quiet():
            import nncf
            import nncf.quantization.advanced_parameters
    except ImportError as error:
        raise MissingExtraError("NNCF", "compress") from error
    finally:
        if before is None:
            del os.environ["NNCF_CI"]
        else:
            os.environ["NNCF_CI"] = before
    return nncf


def _first_domain_first(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose first opset is that of plain ONNX, where NNCF looks for it."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    opsets = sorted(copy.opset_import, key=lambda opset: opset.domain not in ("", "ai.onnx"))
    del copy.opset_import[:]
    copy.opset_import.extend(opsets)
    return copy


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the words of tools on what is told here in ours."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
