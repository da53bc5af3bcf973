"""ONNX Runtime as an engine."""

from __future__ import annotations

import copy
import os
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnxruntime as ort

from delineate.engines.check import check_batch
from delineate.engines.prune import prune
from delineate.engines.scaling import SCALING, batch_scalings
from delineate.errors import EngineError
from delineate.types import OUTPUTS, Images, Output, Prediction, PredictorSpec, Scaling

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
TENSORRT = "TensorrtExecutionProvider"
TensorRT = Literal["float32", "float16", "int8"]
_Provider = tuple[str, dict[str, Any]]


class OnnxRuntimePredictor:
    """Runs a finished graph with ONNX Runtime.

    One session is made for each combination of outputs that is asked for, on first use.

    Args:
        model: the finished graph (see ``bundle/graph.py``).
        spec: what it takes and gives.
        device: ``cpu`` or ``cuda``.
        threads: threads inside one call; None leaves it to ONNX Runtime (all cores).
        tensorrt: compile with TensorRT for this arithmetic, on ``cuda`` alone: float32,
            float16 from the float32 file, or the int8 of a QDQ file. A network for each image size
            is compiled at its first call, which takes a minute, and kept in ``tensorrt_cache()``.

    Raises:
        EngineError: the device is absent, or ONNX Runtime refuses the graph.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        spec: PredictorSpec,
        *,
        device: str = "cpu",
        threads: int | None = None,
        tensorrt: TensorRT | None = None,
    ) -> None:
        self._spec = spec
        self._model = model
        self._providers = _providers(device, tensorrt)
        self._threads = threads
        self._sessions: dict[tuple[Output, ...], ort.InferenceSession] = {}
        self._lock = threading.Lock()
        self._scaling: Scaling | None = None

    @property
    def spec(self) -> PredictorSpec:
        return self._spec

    def predict(self, images: Images, outputs: Sequence[Output] = ("labels",)) -> Prediction:
        check_batch(images, outputs, self._spec)
        wanted: tuple[Output, ...] = tuple(name for name in OUTPUTS if name in outputs)
        session = self._session(wanted)
        pixels = np.ascontiguousarray(images, self._spec.dtype)  # in this machine's byte order
        inputs = {"image": pixels}
        if self._spec.normalised_by_image:
            inputs[SCALING] = batch_scalings(images, self._scaling)
        try:
            results = session.run(list(wanted), inputs)
        except Exception as error:  # ONNX Runtime raises a family of its own, without a base
            raise EngineError(
                f"ONNX Runtime {ort.__version__} fails on a batch of shape {images.shape} ({error})"
            ) from error
        prediction: Any = dict(zip(wanted, results, strict=True))
        return prediction  # type: ignore[no-any-return]

    def scaled(self, scaling: Scaling) -> OnnxRuntimePredictor:
        """As :meth:`delineate.types.PerImagePredictor.scaled`; sessions are shared."""
        view = copy.copy(self)
        view._scaling = scaling
        return view

    def _session(self, outputs: tuple[Output, ...]) -> ort.InferenceSession:
        with self._lock:
            if outputs not in self._sessions:
                self._sessions[outputs] = self._compile(outputs)
            return self._sessions[outputs]

    def _compile(self, outputs: tuple[Output, ...]) -> ort.InferenceSession:
        options = ort.SessionOptions()
        options.log_severity_level = 3
        if self._threads is not None:
            options.intra_op_num_threads = self._threads
        graph = prune(self._model, outputs).SerializeToString()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what it warns of is refused below
                session = ort.InferenceSession(graph, options, providers=self._providers)
        except Exception as error:  # ONNX Runtime raises a family of its own, without a base
            raise EngineError(
                f"ONNX Runtime {ort.__version__} refuses the graph ({error})"
            ) from error
        # where a library of the device is absent it would go on elsewhere, and say so in a log
        wanted, started = self._providers[0][0], session.get_providers()[0]
        if started != wanted:
            raise EngineError(
                f"ONNX Runtime {ort.__version__} cannot start {wanted}, and would run {started}",
                mend="See that the device is there, and that the libraries of its version (CUDA, "
                "cuDNN, TensorRT) are installed and found.",
            )
        return session


def _providers(device: str, tensorrt: TensorRT | None) -> list[_Provider]:
    name = PROVIDERS.get(device)
    available = ort.get_available_providers()
    if name is None or name not in available:
        present = [device for device, provider in PROVIDERS.items() if provider in available]
        raise EngineError(
            f"device {device!r} is not offered by this ONNX Runtime",
            mend=f"Choose {' or '.join(present)}; cuda needs the onnxruntime-gpu package.",
        )
    if tensorrt is None:
        return [(name, {})]
    if device != "cuda" or not tensorrt_offered():
        raise EngineError(
            f"TensorRT is not offered by this ONNX Runtime on {device}",
            mend="It needs --device cuda, the onnxruntime-gpu package and the tensorrt package.",
        )
    cache = tensorrt_cache()
    cache.mkdir(parents=True, exist_ok=True)
    options = {
        "trt_fp16_enable": tensorrt == "float16",
        "trt_int8_enable": tensorrt == "int8",
        "trt_engine_cache_enable": True,
        "trt_engine_cache_path": str(cache),
    }
    return [(TENSORRT, options), (name, {})]  # what TensorRT lacks runs on CUDA


def tensorrt_offered() -> bool:
    """Whether this ONNX Runtime was built with TensorRT; that it starts is seen at a first call."""
    return TENSORRT in ort.get_available_providers()


def tensorrt_cache() -> Path:
    """Where compiled networks are kept: ``delineate/tensorrt`` in the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "delineate" / "tensorrt"
