"""Somebody else's ONNX file, brought to one opset and looked at by running it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import onnxruntime as ort
from jaxtyping import Float32
from onnx import inliner, version_converter

from delineate.bundle.graph import OPSET
from delineate.errors import ModelError

PROBE_SIDE_PX = 64  # a probe of side 64 + m is a multiple of m, but not of 2 m
MULTIPLES = (1, 2, 4, 8, 16, 32, 64)
LARGEST_DIFFERENCE = 1e-3  # of a converted network, relative to its largest score
Scores = Float32[np.ndarray, "n a b c"]
Layout = Literal["nchw", "nhwc"]


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
    layout: Layout
    channels: int
    planes: int
    fixed_hw: tuple[int, int] | None
    fixed_batch: bool
    multiple_of: int
    rescales: bool


@dataclass(frozen=True)
class _Entry:
    """The input as the file declares it; None is free."""

    layout: Layout
    batch: int | None
    channels: int
    height: int | None
    width: int | None

    @property
    def fixed_hw(self) -> tuple[int, int] | None:
        if self.height is None or self.width is None:
            return None
        return self.height, self.width

    def shape(self, batch: int, size: tuple[int, int]) -> tuple[int, ...]:
        if self.layout == "nchw":
            return (batch, self.channels, *size)
        return (batch, *size, self.channels)

    def size_of(self, result: Scores) -> tuple[int, int]:
        """Height and width of an output, which has the layout of the input."""
        height, width = result.shape[2:4] if self.layout == "nchw" else result.shape[1:3]
        return height, width


def read_network(path: Path, output: str | None = None) -> ForeignNetwork:
    """Read, convert and probe an ONNX file.

    Args:
        path: the file, of any opset.
        output: which output to keep when there are several.

    Raises:
        ModelError: the file is no ONNX, has several inputs, an output that is no score map, or
            cannot be converted without changing what it computes.
    """
    original = _load(path)
    _without_initialiser_inputs(original)
    _keep_output(original, output, path)
    entry = _entry(original, path)
    converted = _convert(original, path)
    run = _Runner(converted, entry, path)
    multiple_of = 1 if entry.fixed_hw is not None else _smallest_multiple(run, entry, path)
    size = entry.fixed_hw or _probe_size(multiple_of)
    result = run(size)
    if converted is not original:
        _check_conversion(_Runner(original, entry, path)(size), result, path)
    return ForeignNetwork(
        model=converted,
        opset=_opset(original),
        layout=entry.layout,
        channels=entry.channels,
        planes=result.shape[1 if entry.layout == "nchw" else 3],
        fixed_hw=entry.fixed_hw,
        fixed_batch=entry.batch == 1 or not _takes_batches(run, size, result),
        multiple_of=multiple_of,
        rescales=entry.size_of(result) != size,
    )


def _entry(model: onnx.ModelProto, path: Path) -> _Entry:
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
    layout: Layout = "nchw"
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
    if (height is None) != (width is None):
        found = f"height is fixed to {height}" if width is None else f"width is fixed to {width}"
        raise ModelError(
            f"its {found} px and the other side is free",
            where=path,
            mend="Export it again with both sides fixed, or both free.",
        )
    return _Entry(layout, batch, channels, height, width)


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
    """Old files list their weights among the inputs, as they had to before IR version 4."""
    model.ir_version = max(model.ir_version, 4)
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
    """A network that is run on random input; the same numbers every time."""

    def __init__(self, model: onnx.ModelProto, entry: _Entry, path: Path) -> None:
        options = ort.SessionOptions()
        options.log_severity_level = 4
        self._entry = entry
        self._path = path
        try:
            self._session = ort.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime's errors have no base of their own
            raise ModelError(f"ONNX Runtime refuses it ({error})", where=path) from error
        self._input = self._session.get_inputs()[0].name

    def __call__(self, size: tuple[int, int], batch: int = 1) -> Scores:
        """Scores of ``batch`` images of ``size`` (height, width).

        Raises:
            _CannotRunError: at this size or batch.
            ModelError: the output is no score map.
        """
        shape = self._entry.shape(batch, size)
        x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        try:
            result = self._session.run(None, {self._input: x})[0]
        except Exception as error:  # a size that does not fit fails anywhere inside the network
            reason = str(error).strip().splitlines()[0]
            raise _CannotRunError(
                f"cannot be run on input of shape {shape} ({reason})", where=self._path
            ) from error
        if not isinstance(result, np.ndarray) or result.ndim != 4 or result.dtype != np.float32:
            kind = getattr(result, "dtype", type(result).__name__)
            raise ModelError(
                f"its output is {kind} of shape {np.shape(result)}; a float32 score for each class "
                "and pixel, of rank four, is wanted",
                where=self._path,
                mend="Export it before its ArgMax.",
            )
        return result


class _CannotRunError(ModelError):
    """The network does not run at the size or batch that was tried."""


def _probe_size(multiple: int) -> tuple[int, int]:
    return PROBE_SIDE_PX + multiple, 2 * PROBE_SIDE_PX + multiple


def _smallest_multiple(run: _Runner, entry: _Entry, path: Path) -> int:
    """The smallest multiple at which the network runs and its output is in proportion."""
    reason = "its output is out of proportion"
    for multiple in MULTIPLES:
        height, width = _probe_size(multiple)
        try:
            out_height, out_width = entry.size_of(run((height, width)))
        except _CannotRunError as error:
            reason = error.found
            continue
        if out_height * width == out_width * height:
            return multiple
    raise ModelError(
        f"runs at no multiple of {', '.join(map(str, MULTIPLES))} pixels: {reason}", where=path
    )


def _takes_batches(run: _Runner, size: tuple[int, int], single: Scores) -> bool:
    """Whether a batch that is declared free is free: exporters often fix it inside."""
    try:
        both = run(size, batch=2)
    except ModelError:
        return False
    return (
        both.shape == (2, *single.shape[1:]) and _difference(single, both[:1]) < LARGEST_DIFFERENCE
    )


def _check_conversion(before: Scores, after: Scores, path: Path) -> None:
    difference = _difference(before, after)
    if not difference < LARGEST_DIFFERENCE:
        raise ModelError(
            f"computes something else after conversion to opset {OPSET} (off by {difference:.2%})",
            where=path,
            mend=f"Export it again with opset {OPSET}.",
        )


def _difference(expected: Scores, found: Scores) -> float:
    """Largest difference, relative to the largest value."""
    if expected.shape != found.shape:
        return float("inf")
    largest = max(float(np.abs(expected).max()), 1e-6)
    return float(np.abs(expected - found).max()) / largest
