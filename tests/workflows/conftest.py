"""A bundle of ten lines: it knows the stripes of the generated images by their brightness."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from delineate.bundle.load import Bundle
from delineate.bundle.manifest import ClassInfo, InputInfo, Manifest, Variant
from delineate.bundle.store import BundleStore
from delineate.config import Normalisation, PostprocessingSettings, TilingSettings
from delineate.engines.check import check_batch
from delineate.types import OUTPUTS, Output, Prediction, PredictorSpec


class ByBrightness:
    """Class = how bright a pixel is, ``shift`` classes further."""

    def __init__(self, spec: PredictorSpec, shift: int) -> None:
        self.spec, self.shift = spec, shift
        self.sizes: list[tuple[int, int]] = []

    def predict(self, images: np.ndarray, outputs: Sequence[Output] = ("labels",)) -> Prediction:
        check_batch(images, outputs, self.spec)
        self.sizes.append(images.shape[1:3])
        last = len(self.spec.classes) - 1
        scale = 257 if images.dtype == np.uint16 else 1
        light = images[..., 0].astype(int) // scale
        labels = np.clip((light - 25) // 60 + self.shift, 0, last).astype(np.uint8)
        planes = np.stack([labels == i for i in range(last + 1)], axis=1)
        shares = planes.mean(axis=(2, 3))
        certain = np.array([[1.0, 0.0]] * len(images))
        found: dict[str, Any] = {
            "labels": labels,
            "confidence": np.full(labels.shape, 255, np.uint8),
            "probabilities": 255 * planes.astype(np.uint8),
            "summary": np.concatenate([shares, certain], axis=1).astype(np.float32),
        }
        return Prediction(**{name: found[name] for name in OUTPUTS if name in outputs})


class Store(BundleStore):
    """A bundle without files."""

    def __init__(self, manifest: Manifest) -> None:
        self.path = Path("by-brightness.bundle")
        self.manifest = manifest


@pytest.fixture(scope="session")
def fake_bundle() -> Callable[..., Bundle]:
    def make(
        *classes: str,
        ignore_index: int | None = None,
        shift: int = 0,
        smallest_object_px: int = 0,
        channels: int = 3,
        dtype: str = "uint8",
    ) -> Bundle:
        names = classes or ("sky", "ground", "car")
        manifest = Manifest(
            name="by-brightness",
            task="multiclass",
            classes=tuple(
                ClassInfo(id=i, name=name, colour=(0, 50 * i, 0)) for i, name in enumerate(names)
            ),
            ignore_index=ignore_index,
            input=InputInfo(
                channels=channels,
                dtype=dtype,  # type: ignore[arg-type]
                normalisation=Normalisation(mean=(0.0,) * channels, std=(1.0,) * channels),
            ),
            tiling=TilingSettings(tile_px=64, overlap_px=16),
            postprocessing=PostprocessingSettings(smallest_object_px=smallest_object_px),
            variants={"float32": Variant(file="model.onnx")},
        )
        predictor = ByBrightness(manifest.spec(), shift)
        return Bundle(Store(manifest), predictor, "onnxruntime", "float32")

    return make
