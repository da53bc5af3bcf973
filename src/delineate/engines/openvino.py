"""OpenVINO as an engine."""

from __future__ import annotations

import queue
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import onnx

from delineate.engines.check import check_batch
from delineate.engines.prune import prune
from delineate.errors import EngineError, MissingExtraError
from delineate.types import OUTPUTS, Images, Output, Prediction, PredictorSpec

try:
    import openvino as ov
except ImportError:  # the extra is not installed; said when the engine is asked for
    ov = None

STATIC_SHAPES = 8  # compiled networks kept; a further shape takes the place of the oldest


class OpenVinoPredictor:
    """Runs a finished graph with OpenVINO.

    A static network is compiled for each shape (static ones are the faster), the last few are
    kept. Precision is always set: OpenVINO's own default is bf16 where the processor has it.

    Args:
        model: the finished graph (see ``bundle/graph.py``).
        spec: what it takes and gives.
        device: ``cpu`` or ``gpu``.
        precision: arithmetic inside the network.
        threads: threads inside one call; None leaves it to OpenVINO (all cores).

    Raises:
        MissingExtraError: OpenVINO is not installed.
        EngineError: the device is absent, or OpenVINO refuses the graph.
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
        self._config: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": precision,
            "PERFORMANCE_HINT": "LATENCY",
        }
        if threads is not None:
            self._config["INFERENCE_NUM_THREADS"] = threads
        self._compiled: OrderedDict[tuple[Any, ...], _Compiled] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def spec(self) -> PredictorSpec:
        return self._spec

    def predict(self, images: Images, outputs: Sequence[Output] = ("labels",)) -> Prediction:
        check_batch(images, outputs, self._spec)
        wanted: tuple[Output, ...] = tuple(name for name in OUTPUTS if name in outputs)
        pixels = np.ascontiguousarray(images, self._spec.dtype)  # in this machine's byte order
        prediction: Any = self._for(wanted, images.shape).run(pixels, wanted)
        return prediction  # type: ignore[no-any-return]

    def _for(self, outputs: tuple[Output, ...], shape: tuple[int, ...]) -> _Compiled:
        key = (outputs, shape)
        with self._lock:
            if key not in self._compiled:
                self._compiled[key] = self._compile(outputs, shape)
                if len(self._compiled) > STATIC_SHAPES:
                    self._compiled.popitem(last=False)
            self._compiled.move_to_end(key)
            return self._compiled[key]

    def _compile(self, outputs: tuple[Output, ...], shape: tuple[int, ...]) -> _Compiled:
        graph = prune(self._model, outputs).SerializeToString()
        try:
            model = self._core.read_model(graph)
            model.reshape(list(shape))
            return _Compiled(self._core.compile_model(model, self._device, self._config))
        except Exception as error:  # OpenVINO raises plain RuntimeError and its own kinds
            reason = str(error).strip().splitlines()[-1]
            raise EngineError(
                f"OpenVINO {ov.__version__} refuses the graph for batches of shape {shape} "
                f"({reason})"
            ) from error


class _Compiled:
    """A compiled network and its idle requests; each call takes one, so calls may overlap."""

    def __init__(self, network: Any) -> None:
        self._network = network
        self._idle: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def run(self, images: Images, outputs: tuple[Output, ...]) -> dict[str, np.ndarray]:
        try:
            request = self._idle.get_nowait()
        except queue.Empty:
            request = self._network.create_infer_request()
        try:
            request.infer([images], share_inputs=True)
            # copied, because the request's own buffers are written by its next call
            return {name: request.get_tensor(name).data.copy() for name in outputs}
        finally:
            self._idle.put(request)
