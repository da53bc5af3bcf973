"""OpenVINO as an engine."""

from __future__ import annotations

import copy
import queue
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import onnx

from delineate.engines.check import check_batch
from delineate.engines.prune import prune
from delineate.engines.scaling import SCALING, batch_scalings
from delineate.errors import EngineError, MissingExtraError
from delineate.types import OUTPUTS, Images, Output, Prediction, PredictorSpec, Scaling

try:
    import openvino as ov
except ImportError:  # the extra is not installed; said when the engine is asked for
    ov = None

STATIC_SHAPES = 8  # compiled networks kept; a further shape takes the place of the oldest
# Calls with a shape before a network is compiled for it alone: that takes 0.2 to 1.5 s, and each
# call is then about a tenth faster
STATIC_AFTER = 8
SHAPES_COUNTED = 1024


CAPABILITIES = {"f32": "FP32", "bf16": "BF16", "f16": "FP16"}

_Key = tuple[tuple[Output, ...], tuple[int, ...]]  # outputs and shape of the batch


class OpenVinoPredictor:
    """Runs a finished graph with OpenVINO.

    The first shape gets a static network, and so does each that comes often (static ones are the
    faster); the last few are kept. All others share one network of free shape, so that a new size
    costs no compilation. Both give the same bits (decision 0009). Precision is always set:
    OpenVINO's own default is bf16 where the processor has it.

    Args:
        model: the finished graph (see ``bundle/graph.py``).
        spec: what it takes and gives.
        device: ``cpu`` or ``gpu``.
        precision: arithmetic inside the network.
        threads: threads inside one call; None leaves it to OpenVINO (all cores).

    Raises:
        MissingExtraError: OpenVINO is not installed.
        EngineError: the device is absent or has no such arithmetic, or OpenVINO refuses the graph.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        spec: PredictorSpec,
        *,
        device: str = "cpu",
        precision: Literal["f32", "bf16", "f16"] = "f32",
        threads: int | None = None,
    ) -> None:
        if ov is None:
            raise MissingExtraError("OpenVINO", "openvino")
        self._spec = spec
        self._model = model
        self._core = ov.Core()
        self._device = device.upper()
        if self._device not in {name.split(".")[0] for name in self._core.available_devices}:
            present = ", ".join(name.lower() for name in self._core.available_devices)
            raise EngineError(
                f"device {device!r} is not offered by this OpenVINO", mend=f"Choose {present}."
            )
        able = self._core.get_property(self._device, "OPTIMIZATION_CAPABILITIES")
        if CAPABILITIES[precision] not in able:  # it would take float32 without a word
            raise EngineError(
                f"device {device!r} has no {precision} arithmetic",
                mend=f"Use another precision; it has {', '.join(sorted(able)).lower()}.",
            )
        self._config: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": precision,
            "PERFORMANCE_HINT": "LATENCY",
        }
        if threads is not None:
            self._config["INFERENCE_NUM_THREADS"] = threads
        self._compiled: OrderedDict[_Key, _Compiled] = OrderedDict()
        self._any_shape: dict[tuple[Output, ...], _Compiled] = {}
        self._calls: OrderedDict[_Key, int] = OrderedDict()
        self._lock = threading.Lock()
        self._scaling: Scaling | None = None

    @property
    def spec(self) -> PredictorSpec:
        return self._spec

    def predict(self, images: Images, outputs: Sequence[Output] = ("labels",)) -> Prediction:
        check_batch(images, outputs, self._spec)
        wanted: tuple[Output, ...] = tuple(name for name in OUTPUTS if name in outputs)
        pixels = np.ascontiguousarray(images, self._spec.dtype)  # in this machine's byte order
        network = self._for((wanted, images.shape))
        inputs = {"image": pixels}
        if self._spec.normalised_by_image:
            inputs[SCALING] = batch_scalings(images, self._scaling)
        try:
            prediction: Any = network.run(inputs, wanted)
        except RuntimeError as error:
            raise EngineError(
                f"OpenVINO {ov.__version__} fails on a batch of shape {images.shape} "
                f"({_reason(error)})"
            ) from error
        return prediction  # type: ignore[no-any-return]

    def scaled(self, scaling: Scaling) -> OpenVinoPredictor:
        """As :meth:`delineate.types.PerImagePredictor.scaled`; compiled networks are shared."""
        view = copy.copy(self)
        view._scaling = scaling
        return view

    def _for(self, key: _Key) -> _Compiled:
        with self._lock:
            if key in self._compiled:
                self._compiled.move_to_end(key)
                return self._compiled[key]
            if not self._wants_static(key):
                outputs, shape = key
                if outputs not in self._any_shape:
                    self._any_shape[outputs] = self._compile(outputs, (-1, -1, -1, shape[3]))
                return self._any_shape[outputs]
            self._compiled[key] = self._compile(*key)
            if len(self._compiled) > STATIC_SHAPES:
                # counted anew, so that shapes by turns do not compile at every call
                self._calls.pop(self._compiled.popitem(last=False)[0], None)
            return self._compiled[key]

    def _wants_static(self, key: _Key) -> bool:
        if self._spec.fixed_hw is not None or not any(key[0] == one[0] for one in self._compiled):
            return True
        self._calls[key] = self._calls.pop(key, 0) + 1
        if len(self._calls) > SHAPES_COUNTED:
            self._calls.popitem(last=False)
        return self._calls[key] > STATIC_AFTER

    def _compile(self, outputs: tuple[Output, ...], shape: tuple[int, ...]) -> _Compiled:
        graph = prune(self._model, outputs).SerializeToString()
        try:
            model = self._core.read_model(graph)
            shapes = {"image": ov.PartialShape(list(shape))}
            if self._spec.normalised_by_image:
                shapes[SCALING] = ov.PartialShape([shape[0], 2, shape[3]])
            model.reshape(shapes)
            return _Compiled(self._core.compile_model(model, self._device, self._config))
        except Exception as error:  # OpenVINO raises plain RuntimeError and its own kinds
            raise EngineError(
                f"OpenVINO {ov.__version__} refuses the graph for batches of shape {shape} "
                f"({_reason(error)})"
            ) from error


def _reason(error: Exception) -> str:
    return str(error).strip().splitlines()[-1]


class _Compiled:
    """A compiled network and its idle requests; each call takes one, so calls may overlap."""

    def __init__(self, network: Any) -> None:
        self._network = network
        self._idle: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def run(
        self, inputs: dict[str, np.ndarray], outputs: tuple[Output, ...]
    ) -> dict[str, np.ndarray]:
        try:
            request = self._idle.get_nowait()
        except queue.Empty:
            request = self._network.create_infer_request()
        try:
            request.infer(inputs, share_inputs=True)
            # copied, because the request's own buffers are written by its next call
            return {name: request.get_tensor(name).data.copy() for name in outputs}
        finally:
            self._idle.put(request)
