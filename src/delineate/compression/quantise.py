"""Post-training quantisation of a finished graph to QDQ ONNX, by two tools.

Only nodes of the network are quantised: what lies before and behind it, from raw pixels to finished
results, stays as it is. There is a file for each target family, because their wishes exclude each
other: processors want unsigned activations (ONNX Runtime leaves signed ones with two readers in
float), TensorRT takes nothing but signed symmetric ones. Weights are signed, symmetric and have a
scale for each channel. For processors they use half of their range: without VNNI, two products of
a full 8-bit weight and an 8-bit activation overflow the 16 bits that they are summed up in.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from delineate.compression.nncf_tool import by_nncf
from delineate.compression.piece import Piece
from delineate.compression.qdq import Family, float_kept, of_family
from delineate.compression.quiet import quiet
from delineate.errors import ModelError

Tool = Literal["onnxruntime", "nncf"]
Ranges = Literal["minmax", "percentile"]

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


@dataclass(frozen=True)
class Quantisation:
    """How a network is quantised.

    Attributes:
        tool: whose implementation.
        family: which targets the file is for.
        ranges: of activations: all that was seen, or without the rarest 0.001 % at each end.
        float_nodes: names of nodes that stay float.
        controlled: more of them were chosen by NNCF's accuracy control.
    """

    tool: Tool
    family: Family = "x86"
    ranges: Ranges = "minmax"
    float_nodes: frozenset[str] = frozenset()
    controlled: bool = False


def prepared(model: onnx.ModelProto) -> onnx.ModelProto:
    """A finished graph with batch normalisation folded into weights and all shapes inferred.

    Raises:
        ModelError: ONNX Runtime cannot do it.
    """
    with tempfile.TemporaryDirectory() as folder, quiet():
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

    A concatenation that only floats read gains nothing, and stays float as well.

    Raises:
        ModelError: none of them has weights.
    """
    real = {
        value.name
        for value in model.graph.value_info
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    }
    read = {name for node in model.graph.node if node.op_type in QUANTISED for name in node.input}
    nodes = [
        node
        for node in model.graph.node
        if node.name.startswith(NETWORK)
        and node.op_type in QUANTISED
        and real.issuperset(node.output)  # others compute shapes
        and (node.op_type != "Concat" or read.intersection(node.output))
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
    pieces: Sequence[Piece],
    how: Quantisation,
    *,
    cache: Path | None = None,
) -> onnx.ModelProto:
    """A prepared graph with quantisation and dequantisation around its quantised nodes.

    Args:
        model: from :func:`prepared`.
        pieces: of images, for the ranges. They may differ in size.
        how: tool, family and what stays float.
        cache: a folder in which ONNX Runtime's ranges are kept, for further calls with the same
            model and pieces.

    Raises:
        MissingExtraError: NNCF is not installed.
        ModelError: the network cannot be quantised, or not by this tool.
    """
    wanted = [name for name in quantisable(model) if name not in how.float_nodes]
    if how.tool == "onnxruntime":
        made = _by_onnxruntime(model, pieces, wanted, how, cache)
        return float_kept(made) if how.family == "x86" else made
    found = by_nncf(model, pieces, wanted, how.family)
    if found is None:
        raise TypeError("NNCF was stopped, without a limit")
    return as_shipped(found, how)


def as_shipped(graph: onnx.ModelProto, how: Quantisation) -> onnx.ModelProto:
    """What NNCF makes, as it lies in a bundle (``graph`` itself is changed)."""
    found = of_family(graph, how.family)
    return float_kept(found) if how.family == "x86" else found


class _Batches(CalibrationDataReader):  # type: ignore[misc]
    """Pieces one by one, as ONNX Runtime asks for them."""

    def __init__(self, model: onnx.ModelProto, pieces: Sequence[Piece]) -> None:
        self._model, self._pieces = model, pieces
        self.set_range(0, len(pieces))

    def __len__(self) -> int:
        return len(self._pieces)

    def set_range(self, start_index: int, end_index: int) -> None:
        self._left = iter(range(start_index, min(end_index, len(self))))

    def get_next(self) -> dict[str, np.ndarray] | None:
        index = next(self._left, None)
        return None if index is None else self._pieces[index].inputs(self._model)


def _by_onnxruntime(
    model: onnx.ModelProto,
    pieces: Sequence[Piece],
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
    with tempfile.TemporaryDirectory() as folder, quiet():
        given, path = Path(folder) / "given.onnx", Path(folder) / "quantised.onnx"
        onnx.save(model, given)
        try:
            quantize_static(
                given,
                path,
                _Batches(model, pieces),
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
