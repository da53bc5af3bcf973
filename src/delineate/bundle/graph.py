"""From a bare network to a finished graph: raw pixels in, finished results out.

One implementation serves the networks that are trained here and those that are imported. The
graph is plain ONNX, opset 18:

    image (N, H, W, C) [and scaling (N, 2, C)] -> [channel order] -> (N, C, H, W) -> normalise
      -> [pad or resize] -> network -> [choose classes] -> [resize back] -> [crop]
      -> labels, confidence, probabilities, summary
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from delineate.config import Normalisation
from delineate.engines.scaling import SCALING
from delineate.types import PixelType, Task

OPSET = 18
IR_VERSION = 10
OutputKind = Literal["logits", "probabilities"]

_ONNX_TYPE = {
    "uint8": TensorProto.UINT8,
    "uint16": TensorProto.UINT16,
    "float32": TensorProto.FLOAT,
}


@dataclass(frozen=True)
class Wrapping:
    """What lies round the bare network.

    Attributes:
        channels: channels of the raw image.
        dtype: pixel type of the raw image.
        task: binary takes one plane from the network, or two.
        classes: number of classes K of the finished graph.
        normalisation: of the raw pixels, in the order in which the network takes its channels;
            by image, the graph takes scale and offset as a second input.
        channel_order: source channel of each network channel, (2, 1, 0) for BGR; None keeps.
        layout: of the network's input and output.
        multiple_of: the network's height and width are padded to a multiple of this.
        resize_hw: the image is resized to this size for the network and the result back.
        output_kind: what the network gives; probabilities need no softmax.
        output_planes: which planes of the network's output are the classes; None takes all.
        rescale_output: the network's output is smaller or larger than its input.
    """

    channels: int
    dtype: PixelType
    task: Task
    classes: int
    normalisation: Normalisation
    channel_order: tuple[int, ...] | None = None
    layout: Literal["nchw", "nhwc"] = "nchw"
    multiple_of: int = 1
    resize_hw: tuple[int, int] | None = None
    output_kind: OutputKind = "logits"
    output_planes: tuple[int, ...] | None = None
    rescale_output: bool = False


class _Builder:
    """Collects nodes and constants, and names them."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, value: np.ndarray) -> str:
        name = f"delineate/constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def ints(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))

    def floats(self, *values: float) -> str:
        return self.constant(np.array(values, np.float32))

    def add(self, op: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        output = output or f"delineate/{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output


def finish(network: onnx.ModelProto, wrapping: Wrapping) -> onnx.ModelProto:
    """Wrap ``network``, whose opset is 18 already, into a finished graph.

    Args:
        network: one float32 input, one float32 output of rank four, in ``wrapping.layout``.
        wrapping: what to put before and behind it.

    Returns:
        a checked model with the input ``image`` and the outputs ``labels``, ``confidence``,
        ``probabilities`` and ``summary``.
    """
    inner = onnx.compose.add_prefix_graph(network.graph, "network/")
    build = _Builder()
    size = build.add("Slice", build.add("Shape", "image"), build.ints(1), build.ints(3))  # (H, W)
    pixels, network_size = _before(build, wrapping, size)
    build.nodes.append(helper.make_node("Identity", [pixels], [inner.input[0].name]))
    build.nodes.extend(inner.node)
    scores = _behind(build, wrapping, inner.output[0].name, size, network_size)
    _results(build, wrapping, scores)
    graph = helper.make_graph(
        build.nodes,
        "delineate",
        _inputs(wrapping),
        _outputs(wrapping.classes),
        initializer=[*build.constants, *inner.initializer],
        sparse_initializer=list(inner.sparse_initializer),
    )
    opsets = [helper.make_opsetid("", OPSET)]
    opsets += [opset for opset in network.opset_import if opset.domain]
    model = helper.make_model(graph, opset_imports=opsets, producer_name="delineate")
    model.ir_version = IR_VERSION
    onnx.checker.check_model(model)
    return model


def _value(name: str, kind: int, shape: Sequence[int | str]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def _inputs(wrapping: Wrapping) -> list[onnx.ValueInfoProto]:
    image = _value("image", _ONNX_TYPE[wrapping.dtype], ["n", "h", "w", wrapping.channels])
    if wrapping.normalisation.by == "dataset":
        return [image]
    return [image, _value(SCALING, TensorProto.FLOAT, ["n", 2, wrapping.channels])]


def labels_type(classes: int) -> int:
    """ONNX type of a label map with ``classes`` classes."""
    return int(TensorProto.UINT8 if classes <= 256 else TensorProto.UINT16)


def _outputs(classes: int) -> list[onnx.ValueInfoProto]:
    return [
        _value("labels", labels_type(classes), ["n", "h", "w"]),
        _value("confidence", TensorProto.UINT8, ["n", "h", "w"]),
        _value("probabilities", TensorProto.UINT8, ["n", classes, "h", "w"]),
        _value("summary", TensorProto.FLOAT, ["n", classes + 2]),
    ]


def _before(build: _Builder, wrapping: Wrapping, size: str) -> tuple[str, str]:
    """Raw pixels to the network's input; also the name of its size (H, W)."""
    x = "image"
    if wrapping.channel_order is not None:
        x = build.add("Gather", x, build.ints(*wrapping.channel_order), axis=3)
    x = build.add("Transpose", x, perm=[0, 3, 1, 2])  # while the pixels are small
    if wrapping.dtype != "float32":
        x = build.add("Cast", x, to=TensorProto.FLOAT)
    scale, offset = _scale_and_offset(build, wrapping.normalisation)
    x = build.add("Add", build.add("Mul", x, scale), offset)
    network_size = size
    if wrapping.resize_hw is not None:
        network_size = build.ints(*wrapping.resize_hw)
        x = _resize(build, x, network_size)
    elif wrapping.multiple_of > 1:
        multiple = build.ints(wrapping.multiple_of)
        over = build.add("Mod", size, multiple)
        extra = build.add("Mod", build.add("Sub", multiple, over), multiple)  # (2,)
        pads = build.add("Concat", build.ints(0, 0, 0, 0, 0, 0), extra, axis=0)
        x = build.add("Pad", x, pads, mode="edge")
        network_size = build.add("Add", size, extra)
    if wrapping.layout == "nhwc":
        x = build.add("Transpose", x, perm=[0, 2, 3, 1])
    return x, network_size


def _scale_and_offset(build: _Builder, normalisation: Normalisation) -> tuple[str, str]:
    """Names of two tensors (1 or N, C, 1, 1)."""
    if normalisation.by == "image":
        rows = [build.add("Gather", SCALING, build.constant(np.array(i)), axis=1) for i in (0, 1)]
        scale, offset = (build.add("Unsqueeze", row, build.ints(2, 3)) for row in rows)
        return scale, offset
    mean = np.array(normalisation.mean, np.float64).reshape(1, -1, 1, 1)
    std = np.array(normalisation.std, np.float64).reshape(1, -1, 1, 1)
    return (
        build.constant((1 / std).astype(np.float32)),
        build.constant((-mean / std).astype(np.float32)),
    )


def _resize(build: _Builder, x: str, size: str) -> str:
    """Bilinear resize of (N, C, H, W) to ``size``, pixel centres aligned."""
    batch_and_channels = build.add("Slice", build.add("Shape", x), build.ints(0), build.ints(2))
    sizes = build.add("Concat", batch_and_channels, size, axis=0)
    mode = "half_pixel"
    return build.add("Resize", x, "", "", sizes, mode="linear", coordinate_transformation_mode=mode)


def _behind(build: _Builder, wrapping: Wrapping, x: str, size: str, network_size: str) -> str:
    """The network's output to scores (N, K or 1, H, W) of the raw image's size."""
    if wrapping.layout == "nhwc":
        x = build.add("Transpose", x, perm=[0, 3, 1, 2])
    if wrapping.output_planes is not None:
        x = build.add("Gather", x, build.ints(*wrapping.output_planes), axis=1)
    if wrapping.resize_hw is not None:
        return _resize(build, x, size)
    if wrapping.rescale_output:
        x = _resize(build, x, network_size)
    if wrapping.multiple_of > 1:
        x = build.add("Slice", x, build.ints(0, 0), size, build.ints(2, 3))
    return x


def _results(build: _Builder, wrapping: Wrapping, scores: str) -> None:
    """Scores (N, K, H, W), or one plane for binary, to the four outputs."""
    one_plane = wrapping.task == "binary"
    if one_plane:
        foreground = scores
        if wrapping.output_kind == "logits":
            foreground = build.add("Sigmoid", scores)
        background = build.add("Sub", build.floats(1.0), foreground)
        probabilities = build.add("Concat", background, foreground, axis=1)
        threshold = 0.0 if wrapping.output_kind == "logits" else 0.5
        chosen = build.add("Greater", scores, build.floats(threshold))
        labels = build.add("Squeeze", chosen, build.ints(1))
    else:
        probabilities = scores
        if wrapping.output_kind == "logits":
            probabilities = build.add("Softmax", scores, axis=1)
        labels = build.add("ArgMax", scores, axis=1, keepdims=0)
    build.add("Cast", labels, output="labels", to=labels_type(wrapping.classes))
    largest = build.add("ReduceMax", probabilities, build.ints(1), keepdims=0)
    _eight_bit(build, largest, "confidence")
    _summary(build, wrapping, probabilities, largest)
    if one_plane:  # the two planes of a pixel sum to 255 exactly
        eight_bit = _eight_bit(build, foreground)
        rest = build.add("Sub", build.constant(np.array([255], np.uint8)), eight_bit)
        build.add("Concat", rest, eight_bit, output="probabilities", axis=1)
    else:
        _eight_bit(build, probabilities, "probabilities")


def _eight_bit(build: _Builder, x: str, output: str = "") -> str:
    scaled = build.add("Round", build.add("Mul", x, build.floats(255.0)))
    return build.add("Cast", scaled, output=output, to=TensorProto.UINT8)


def _summary(build: _Builder, wrapping: Wrapping, probabilities: str, largest: str) -> None:
    ids = build.constant(np.arange(wrapping.classes, dtype=np.int32).reshape(1, -1, 1, 1))
    of_pixel = build.add("Unsqueeze", build.add("Cast", "labels", to=TensorProto.INT32),
                         build.ints(1))  # fmt: skip
    is_class = build.add("Cast", build.add("Equal", of_pixel, ids), to=TensorProto.FLOAT)
    shares = build.add("ReduceMean", is_class, build.ints(2, 3), keepdims=0)  # (N, K)
    confidence = build.add("ReduceMean", largest, build.ints(1, 2), keepdims=0)  # (N,)
    logs = build.add("Log", build.add("Max", probabilities, build.floats(1e-12)))
    terms = build.add("Mul", probabilities, logs)
    negative_entropy = build.add("ReduceSum", terms, build.ints(1), keepdims=0)
    mean = build.add("ReduceMean", negative_entropy, build.ints(1, 2), keepdims=0)
    entropy = build.add("Neg", mean)
    columns = [build.add("Unsqueeze", column, build.ints(1)) for column in (confidence, entropy)]
    build.add("Concat", shares, *columns, output="summary", axis=1)
