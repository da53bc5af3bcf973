"""``load()``: from a bundle on disk to a predictor, without PyTorch."""

from __future__ import annotations

import importlib.util
import io
import json
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx

from delineate.bundle.manifest import Manifest, Variant
from delineate.bundle.store import BundleStore
from delineate.data.images import decode_image
from delineate.errors import BundleError, SettingsError
from delineate.types import Image, Images, Output, Prediction, Predictor, PredictorSpec

Engine = Literal["auto", "onnxruntime", "openvino"]
ENGINES = ("auto", "onnxruntime", "openvino")


class Bundle:
    """A loaded bundle: a predictor that knows its classes, colours and settings.

    Attributes:
        manifest: everything the bundle says of itself.
        engine: the engine that runs it.
        variant: the network file that runs.
    """

    def __init__(self, store: BundleStore, predictor: Predictor, engine: str, variant: str) -> None:
        self._store = store
        self._predictor = predictor
        self.manifest: Manifest = store.manifest
        self.engine = engine
        self.variant = variant

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


def load(
    path: str | Path,
    *,
    engine: str = "auto",
    device: str = "cpu",
    variant: str = "float32",
    threads: int | None = None,
) -> Bundle:
    """Load a bundle (folder or ``.zip``) as a predictor. Every file's hash is checked first.

    Args:
        path: the bundle.
        engine: ``onnxruntime``, ``openvino``, or ``auto``: OpenVINO where it is installed and the
            device is a CPU, else ONNX Runtime.
        device: ``cpu``; ``cuda`` for ONNX Runtime, ``gpu`` for OpenVINO.
        variant: which network of the bundle.
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
    chosen = _variant(store, variant)
    model = _read_model(store, chosen.file)
    if engine == "auto":
        has_openvino = importlib.util.find_spec("openvino") is not None
        engine = "openvino" if has_openvino and device == "cpu" else "onnxruntime"
    spec = store.manifest.spec()
    predictor: Predictor
    if engine == "openvino":
        from delineate.engines.openvino import OpenVinoPredictor

        predictor = OpenVinoPredictor(model, spec, device=device, threads=threads)
    else:
        from delineate.engines.onnxruntime import OnnxRuntimePredictor

        predictor = OnnxRuntimePredictor(model, spec, device=device, threads=threads)
    return Bundle(store, predictor, engine, variant)


def _variant(store: BundleStore, name: str) -> Variant:
    try:
        return store.manifest.variants[name]
    except KeyError:
        present = ", ".join(store.manifest.variants)
        raise SettingsError(
            f"has no variant {name!r}", where=store.path, mend=f"Choose from {present}."
        ) from None


def _read_model(store: BundleStore, name: str) -> onnx.ModelProto:
    content = store.read(name)
    try:
        return onnx.load_from_string(content)
    except Exception as error:  # protobuf's DecodeError has no stable home
        raise BundleError(f"{name} is no ONNX file ({error})", where=store.path) from error
