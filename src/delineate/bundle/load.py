"""``load()``: from a bundle on disk to a predictor, without PyTorch."""

from __future__ import annotations

import importlib.util
import io
import json
import math
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx

from delineate.bundle.manifest import CLASSICAL, EngineName, Manifest, Precision, Variant
from delineate.bundle.store import BundleStore
from delineate.data.images import decode_image
from delineate.engines.scaling import with_scaling
from delineate.errors import BundleError, EngineError, MissingExtraError, SettingsError
from delineate.types import (
    Image,
    Images,
    Output,
    Prediction,
    Predictor,
    PredictorSpec,
    Scaling,
)

Engine = Literal["auto", "onnxruntime", "openvino", "tensorrt"]
ENGINES = ("auto", "onnxruntime", "openvino", "tensorrt")
DEVICES = ("cpu", "cuda", "gpu")  # cuda: NVIDIA by ONNX Runtime; gpu: Intel by OpenVINO
# of what is float in the file; int8 layers run as such whatever is said here
OPENVINO_PRECISION: dict[Precision, Literal["f32", "bf16", "f16"]] = {
    "float32": "f32",
    "bfloat16": "bf16",
    "float16": "f16",
    "int8": "f32",
}


class Bundle:
    """A loaded bundle: a predictor that knows its classes, colours and settings.

    Attributes:
        manifest: everything the bundle says of itself.
        engine: the engine that runs it.
        variant: the network that runs.
        passed_over: faster variants that do not run here, by name, and why not.
    """

    def __init__(self, store: BundleStore, predictor: Predictor, engine: str, variant: str) -> None:
        self._store = store
        self._predictor = predictor
        self.manifest: Manifest = store.manifest
        self.engine = engine
        self.variant = variant
        self.passed_over: dict[str, str] = {}

    @property
    def path(self) -> Path:
        return self._store.path

    @property
    def spec(self) -> PredictorSpec:
        return self._predictor.spec

    def predict(self, images: Images, outputs: Sequence[Output] = ("labels",)) -> Prediction:
        """As :meth:`delineate.types.Predictor.predict`; for one image of any size see
        :func:`delineate.tiling.segment.segment`."""
        return self._predictor.predict(images, outputs)

    def scaled(self, scaling: Scaling) -> Predictor:
        """As :meth:`delineate.types.PerImagePredictor.scaled`."""
        return with_scaling(self._predictor, scaling)

    def reference(self) -> dict[str, Any]:
        """Statistics of predictions at release; empty when the bundle has none."""
        if "reference.json" not in self.manifest.files:
            return {}
        document: dict[str, Any] = json.loads(self._store.read("reference.json"))
        return document

    def canary(self) -> Iterator[tuple[str, Image]]:
        """Names and images of the canary."""
        for name in self._store.names("canary/images"):
            yield Path(name).stem, decode_image(self._store.read(name), name)

    def verify(self) -> int:
        """Re-run the canary and compare with the golden outputs of this variant.

        Returns:
            the number of images compared.

        Raises:
            BundleError: an output is outside the variant's tolerance.
        """
        tolerance = self.manifest.variants[self.variant].tolerance
        count = 0
        for name, image in self.canary():
            golden = self._golden(name)
            found = golden_outputs(self._predictor, image, self.manifest.tiling.tile_px)
            if any(found[key].shape != golden[key].shape for key in found):
                raise BundleError(
                    f"canary {name}: its golden outputs are of another size", where=self.path
                )
            changed = float(np.mean(found["labels"] != golden["labels"]))
            moved = float(np.abs(found["summary"] - golden["summary"]).max())
            if changed > tolerance.labels or moved > tolerance.summary:
                raise BundleError(
                    f"canary {name}: {changed:.4%} of pixels change class (allowed "
                    f"{tolerance.labels:.4%}) and the summary moves by {moved:.4f} (allowed "
                    f"{tolerance.summary:.4f}) against the golden outputs of {self.variant}",
                    where=self.path,
                    mend="This engine or processor computes something else; try another --engine.",
                )
            count += 1
        return count

    def _golden(self, name: str) -> dict[str, np.ndarray]:
        file = golden_name(self.variant, name)
        content = io.BytesIO(self._store.read(file))
        try:
            with np.load(content, allow_pickle=False) as arrays:
                return {key: arrays[key] for key in ("labels", "summary")}
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise BundleError(
                f"{file} holds no golden outputs ({error})", where=self.path
            ) from error


def golden_name(variant: str, image: str) -> str:
    """File name of a golden output inside a bundle."""
    return f"canary/golden/{variant}/{image}.npz"


def golden_outputs(predictor: Predictor, image: Image, tile_px: int) -> dict[str, np.ndarray]:
    """What is kept of a canary image: labels (h, w) and summary (K + 2,), untiled.

    The network sees the top left corner, ``tile_px`` a side at most, because memory grows with
    what it sees at once: 250 MB for each megapixel. A network of one fixed size sees a corner of
    that size, padded at the edge.
    """
    fixed_hw = predictor.spec.fixed_hw
    height, width = fixed_hw or (tile_px, tile_px)
    image = image[:height, :width]
    if fixed_hw is not None:
        missing = (height - image.shape[0], width - image.shape[1])
        image = np.pad(image, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="edge")
    found = predictor.predict(image[None], ("labels", "summary"))
    return {"labels": found["labels"][0], "summary": found["summary"][0]}


def golden_file(predictor: Predictor, image: Image, tile_px: int) -> bytes:
    """:func:`golden_outputs` as the ``.npz`` that lies in a bundle."""
    buffer = io.BytesIO()
    golden = golden_outputs(predictor, image, tile_px)
    np.savez_compressed(buffer, labels=golden["labels"], summary=golden["summary"])
    return buffer.getvalue()


def load(
    path: str | Path,
    *,
    engine: str = "auto",
    device: str = "cpu",
    variant: str = "float32",
    threads: int | None = None,
) -> Bundle:
    """Load a bundle (folder or ``.zip``) as a predictor. Every file's hash is checked first.

    With the variant ``auto`` the one that was measured as the fastest is taken, of those that this
    machine runs and whose golden outputs it reproduces; ``passed_over`` of the result tells why
    faster ones were not.

    Args:
        path: the bundle.
        engine: ``onnxruntime``, ``openvino``, ``tensorrt`` (ONNX Runtime's), or ``auto``: that on
            which the variant was admitted, and for others OpenVINO where it is installed and the
            device is a CPU, else ONNX Runtime.
        device: ``cpu``; ``cuda`` for ONNX Runtime and TensorRT, ``gpu`` for OpenVINO.
        variant: which network of the bundle, or ``auto``.
        threads: threads inside one call; all cores when left out.

    Raises:
        BundleError: the bundle is damaged, altered or of another schema.
        EngineError: the engine or the device is absent.
        SettingsError: there is no such engine or variant.
    """
    if engine not in ENGINES:
        raise SettingsError(
            f"engine {engine!r} is unknown", mend=f"Choose from {', '.join(ENGINES)}."
        )
    store = BundleStore(Path(path))
    if variant != "auto":
        return _loaded(store, variant, engine, device, threads)
    passed_over: dict[str, str] = {}
    for name in _fastest_first(store.manifest):
        try:
            found = _loaded(store, name, engine, device, threads)
            if name != "float32":
                found.verify()
        except (EngineError, BundleError, MissingExtraError) as error:
            if name == "float32":
                raise
            passed_over[name] = str(error)
            continue
        found.passed_over = passed_over
        return found
    raise AssertionError("a manifest has the variant float32")


def _fastest_first(manifest: Manifest) -> list[str]:
    """Measured variants by their best latency, then the others; after float32 there is none."""
    measured = {
        name: min(variant.latency_ms.values(), default=math.inf)
        for name, variant in manifest.variants.items()
    }
    names = sorted(measured, key=lambda name: (measured[name], name != "float32"))
    return names[: names.index("float32") + 1]


def _loaded(store: BundleStore, name: str, engine: str, device: str, threads: int | None) -> Bundle:
    chosen = _variant(store, name)
    if chosen.engine == CLASSICAL:
        return _classical(store, name, engine, device, threads)
    model = network_of(store, name)
    if engine == "auto" and chosen.engine is not None:
        engine = chosen.engine
    if engine == "auto":
        has_openvino = importlib.util.find_spec("openvino") is not None
        engine = "openvino" if has_openvino and device == "cpu" else "onnxruntime"
    spec = store.manifest.spec()
    predictor = engine_predictor(model, spec, engine, chosen.precision, device, threads)
    return Bundle(store, predictor, engine, name)


def _classical(
    store: BundleStore, name: str, engine: str, device: str, threads: int | None
) -> Bundle:
    if engine != "auto" or device != "cpu":
        raise EngineError(
            f"holds a classical method, which runs on the CPU and not on {engine} with {device}",
            where=store.path,
            mend="Leave engine and device out.",
        )
    from delineate.bundle.classical import restored

    file, spec = store.manifest.variants[name].file, store.manifest.spec()
    predictor = restored(store.read, file, spec, str(store.path), threads=threads)
    return Bundle(store, predictor, CLASSICAL, name)


def engines_on(device: str, wanted: str) -> tuple[EngineName, ...]:
    """The engines to compare on a device: the one that is wanted, or with ``auto`` all there are.

    Raises:
        SettingsError: there is no such engine or device.
    """
    if device not in DEVICES:
        raise SettingsError(
            f"device {device!r} is unknown", mend=f"Choose from {', '.join(DEVICES)}."
        )
    match wanted:
        case "onnxruntime" | "openvino" | "tensorrt":
            return (wanted,)
        case "auto" if device == "gpu":
            return ("openvino",)
        case "auto" if device == "cuda":
            from delineate.engines.onnxruntime import tensorrt_offered

            there = tensorrt_offered()
            return ("onnxruntime", "tensorrt") if there else ("onnxruntime",)
        case "auto":
            there = device == "cpu" and importlib.util.find_spec("openvino") is not None
            return ("onnxruntime", "openvino") if there else ("onnxruntime",)
    raise SettingsError(f"engine {wanted!r} is unknown", mend=f"Choose from {', '.join(ENGINES)}.")


def engine_predictor(
    model: onnx.ModelProto,
    spec: PredictorSpec,
    engine: str,
    precision: Precision,
    device: str,
    threads: int | None,
) -> Predictor:
    """A finished graph on one of the engines, in the arithmetic that is asked for.

    Raises:
        EngineError: the engine or the device is absent, or has no such arithmetic.
    """
    if engine == "openvino":
        from delineate.engines.openvino import OpenVinoPredictor

        hint = OPENVINO_PRECISION[precision]
        return OpenVinoPredictor(model, spec, device=device, precision=hint, threads=threads)
    from delineate.engines.onnxruntime import OnnxRuntimePredictor

    if engine == "tensorrt" and precision != "bfloat16":
        return OnnxRuntimePredictor(model, spec, device=device, threads=threads, tensorrt=precision)
    if precision in ("bfloat16", "float16"):
        name = "TensorRT" if engine == "tensorrt" else "ONNX Runtime"
        raise EngineError(
            f"{name} runs no float32 file in {precision}",
            mend="Use --engine openvino, or another variant.",
        )
    return OnnxRuntimePredictor(model, spec, device=device, threads=threads)


def _variant(store: BundleStore, name: str) -> Variant:
    try:
        return store.manifest.variants[name]
    except KeyError:
        present = ", ".join([*store.manifest.variants, "auto"])
        raise SettingsError(
            f"has no variant {name!r}", where=store.path, mend=f"Choose from {present}."
        ) from None


def network_of(store: BundleStore, name: str = "float32") -> onnx.ModelProto:
    """The graph of a variant.

    Raises:
        BundleError: it is no ONNX file.
        SettingsError: there is no such variant, or it is a classical method.
    """
    chosen = _variant(store, name)
    if chosen.engine == CLASSICAL:
        raise SettingsError(
            f"holds no network but a classical method ({chosen.file})",
            where=store.path,
            mend="Name a bundle that delineate train wrote.",
        )
    try:
        return onnx.load_from_string(store.read(chosen.file))
    except BundleError:
        raise
    except Exception as error:  # protobuf's DecodeError has no stable home
        raise BundleError(f"{chosen.file} is no ONNX file ({error})", where=store.path) from error
