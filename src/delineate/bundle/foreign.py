"""Somebody else's ONNX file, brought to one opset and looked at by running it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import onnxruntime as ort
from onnx import inliner, version_converter

from delineate.bundle.graph import OPSET
from delineate.errors import ModelError

PROBE_SIDE_PX = 64  # a probe of side 64 + m is a multiple of m, but not of 2 m
MULTIPLES = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True)
class ForeignNetwork:
    """A network with one input and one output, opset 18.

    Attributes:
        model: the converted network.
        opset: of the file.
        layout: of input and output.
        channels: channels it takes.
        planes: planes it gives.
        fixed_hw: the only size it takes, or None.
        fixed_batch: whether it takes one image at a time only.
        multiple_of: sizes it takes are multiples of this.
        rescales: its output has another size than its input.
    """

    model: onnx.ModelProto
    opset: int
    layout: Literal["nchw", "nhwc"]
    channels: int
    planes: int
    fixed_hw: tuple[int, int] | None
    fixed_batch: bool
    multiple_of: int
    rescales: bool


def read_network(path: Path, output: str | None = None) -> ForeignNetwork:
    """Read, convert and probe an ONNX file.

    Args:
        path: the file, of any opset.
        output: which output to keep when there are several.

    Raises:
        ModelError: the file is no ONNX, has several inputs, an output that is no score map, or
            cannot be converted without changing what it computes.
    """
    model = _load(path)
    _without_initialiser_inputs(model)
    _keep_output(model, output, path)
    if len(model.graph.input) != 1:
        names = ", ".join(value.name for value in model.graph.input)
        raise ModelError(f"takes {len(model.graph.input)} inputs ({names}), not one", where=path)
    kind = model.graph.input[0].type.tensor_type.elem_type
    shape = _shape(model.graph.input[0])
    if kind != onnx.TensorProto.FLOAT or len(shape) != 4:
        raise ModelError(
            f"its input is {onnx.TensorProto.DataType.Name(kind)} of shape {shape}, not float32 of "
            "rank four",
            where=path,
        )
    converted = _convert(model, path)
    layout: Literal["nchw", "nhwc"] = "nchw"
    if shape[3] is not None and shape[3] <= 16 and (shape[1] is None or shape[1] > 16):
        layout = "nhwc"
    batch, channels, height, width = (
        shape if layout == "nchw" else (shape[0], shape[3], shape[1], shape[2])
    )
    if channels is None:
        raise ModelError("does not say how many channels it takes", where=path)
    if batch not in (None, 1):
        raise ModelError(
            f"takes batches of exactly {batch}",
            where=path,
            mend="Export it again with a batch of one, or a free batch.",
        )
    return _probe(model, converted, layout, channels, height, width, batch == 1, path)


def _load(path: Path) -> onnx.ModelProto:
    try:
        model = onnx.load(str(path))
        onnx.checker.check_model(model)
    except FileNotFoundError as error:
        raise ModelError("no such file", where=path) from error
    except Exception as error:  # protobuf's and the checker's errors share no base
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"is no valid ONNX file ({reason})", where=path) from error
    return inliner.inline_local_functions(model) if model.functions else model


def _without_initialiser_inputs(model: onnx.ModelProto) -> None:
    """Old files list their weights among the inputs."""
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    del model.graph.input[:]
    model.graph.input.extend(inputs)


def _keep_output(model: onnx.ModelProto, name: str | None, path: Path) -> None:
    outputs = list(model.graph.output)
    names = [value.name for value in outputs]
    if name is None and len(outputs) > 1:
        raise ModelError(
            f"gives {len(outputs)} outputs: {', '.join(names)}",
            where=path,
            mend="Choose one with --output NAME.",
        )
    if name is not None and name not in names:
        raise ModelError(f"has no output {name!r}", where=path, mend=f"It has {', '.join(names)}.")
    kept = [value for value in outputs if name is None or value.name == name]
    del model.graph.output[:]
    model.graph.output.extend(kept)


def _shape(value: onnx.ValueInfoProto) -> list[int | None]:
    dims = value.type.tensor_type.shape.dim
    return [dim.dim_value if dim.dim_value > 0 else None for dim in dims]


def _opset(model: onnx.ModelProto) -> int:
    return next((entry.version for entry in model.opset_import if not entry.domain), 0)


def _convert(model: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    """Bring a network to our opset.

    The converter turns the Upsample of opset 7 to 9 and the Resize of opset 10 into a Resize of
    opset 11, which by default puts pixel centres elsewhere; the old meaning has to be written in.
    """
    opset = _opset(model)
    if opset == OPSET:
        return model
    try:
        if opset < 11:
            model = version_converter.convert_version(model, 10)
            model = version_converter.convert_version(model, 11)
            for node in model.graph.node:
                if node.op_type == "Resize":
                    _set_text(node, "coordinate_transformation_mode", "asymmetric")
                    _set_text(node, "nearest_mode", "floor")
        return version_converter.convert_version(model, OPSET)
    except Exception as error:  # the converter raises RuntimeError and its own kinds
        raise ModelError(
            f"of opset {opset} cannot be converted to opset {OPSET} ({error})",
            where=path,
            mend=f"Export it again with opset {OPSET}.",
        ) from error


def _set_text(node: onnx.NodeProto, name: str, value: str) -> None:
    kept = [attribute for attribute in node.attribute if attribute.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, onnx.helper.make_attribute(name, value)])


class _Runner:
    """A network that is run on random input of one size."""

    def __init__(self, model: onnx.ModelProto, path: Path) -> None:
        options = ort.SessionOptions()
        options.log_severity_level = 4
        try:
            self._session = ort.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime's errors have no base of their own
            raise ModelError(f"ONNX Runtime refuses it ({error})", where=path) from error
        self._input = self._session.get_inputs()[0].name

    def __call__(self, shape: tuple[int, ...]) -> np.ndarray:
        x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        result: np.ndarray = self._session.run(None, {self._input: x})[0]
        return result


def _probe(
    original: onnx.ModelProto,
    converted: onnx.ModelProto,
    layout: Literal["nchw", "nhwc"],
    channels: int,
    height: int | None,
    width: int | None,
    fixed_batch: bool,
    path: Path,
) -> ForeignNetwork:
    run = _Runner(converted, path)

    def shape(h: int, w: int) -> tuple[int, ...]:
        return (1, channels, h, w) if layout == "nchw" else (1, h, w, channels)

    fixed_hw = None
    if height is not None and width is not None:
        fixed_hw = (height, width)
        multiple_of, result = 1, run(shape(height, width))
        size = fixed_hw
    else:
        multiple_of, result = _smallest_multiple(run, shape, layout, path)
        size = (PROBE_SIDE_PX + multiple_of, PROBE_SIDE_PX * 2 + multiple_of)
    if result.ndim != 4:
        raise ModelError(
            f"its output has shape {result.shape}; a score for each class and pixel, of rank four, "
            "is wanted",
            where=path,
            mend="Export it before its ArgMax.",
        )
    reference = _Runner(original, path)(shape(*size))
    difference = float(np.abs(reference - result).max()) / max(float(np.abs(reference).max()), 1e-6)
    if not difference < 1e-3:
        raise ModelError(
            f"computes something else after conversion to opset {OPSET} (off by {difference:.2%})",
            where=path,
            mend=f"Export it again with opset {OPSET}.",
        )
    return ForeignNetwork(
        model=converted,
        opset=_opset(original),
        layout=layout,
        channels=channels,
        planes=result.shape[1 if layout == "nchw" else 3],
        fixed_hw=fixed_hw,
        fixed_batch=fixed_batch,
        multiple_of=multiple_of,
        rescales=_size(result, layout) != size,
    )


def _size(result: np.ndarray, layout: str) -> tuple[int, int]:
    return result.shape[2:4] if layout == "nchw" else result.shape[1:3]


def _smallest_multiple(run: _Runner, shape, layout: str, path: Path):  # type: ignore[no-untyped-def]
    """The smallest multiple at which the network runs and its output is in proportion."""
    reason = ""
    for multiple in MULTIPLES:
        h, w = PROBE_SIDE_PX + multiple, PROBE_SIDE_PX * 2 + multiple
        try:
            result = run(shape(h, w))
        except Exception as error:  # a size that does not fit fails somewhere inside the network
            reason = str(error).strip().splitlines()[0]
            continue
        if result.ndim != 4:
            return multiple, result
        out_h, out_w = _size(result, layout)
        if out_h * w == out_w * h:
            return multiple, result
    raise ModelError(
        f"runs at no multiple of {', '.join(map(str, MULTIPLES))} pixels ({reason})", where=path
    )
