"""Claim: evaluate and predict spend under 10 % of their time outside the engine.

A folder of CamVid images (480 x 360 JPEG) through ESPNet, a network of 0.36 M parameters: the
lighter the network, the harder the claim. The time inside the engine is counted in its predict().
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.record import shared, write
from delineate.bundle.import_onnx import ImportOnnxSettings, import_onnx
from delineate.bundle.load import Bundle, load
from delineate.types import Images, Output, Prediction, Predictor, PredictorSpec
from delineate.workflows.evaluate import EvaluateSettings, evaluate
from delineate.workflows.predict import predict

ROUNDS = 3
CLASSES = (
    "sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian",
    "bicyclist", "void",
)  # fmt: skip


class Timed:
    """A predictor that counts the seconds spent in it."""

    def __init__(self, inner: Predictor) -> None:
        self._inner = inner
        self.seconds = 0.0

    @property
    def spec(self) -> PredictorSpec:
        return self._inner.spec

    def predict(self, images: Images, outputs: Sequence[Output] = ("labels",)) -> Prediction:
        began = time.perf_counter()
        found = self._inner.predict(images, outputs)
        self.seconds += time.perf_counter() - began
        return found


def espnet(out: Path) -> Path:
    """The shared ESPNet as a bundle: BGR, (x - mean) / std / 255, void is class 11."""
    settings = ImportOnnxSettings(
        classes=CLASSES,
        channel_order="bgr",
        mean=(110.3604, 108.4125, 105.0278),
        std=(78.4106 * 255, 79.5241 * 255, 78.3589 * 255),
        ignore_index=11,
        licence="MIT",
    )
    import_onnx(shared("weights") / "espnet_camvid.onnx", out, settings)
    return out


def timed(bundle: Bundle) -> Timed:
    """Put a stopwatch between the bundle and its engine."""
    watch = Timed(bundle._predictor)  # the seam that a user has no need of
    bundle._predictor = watch
    return watch


def main() -> None:
    data = shared("data/camvid")
    shares: dict[str, list[float]] = {"evaluate": [], "predict": []}
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = espnet(Path(folder) / "espnet.bundle")
        for engine in ("onnxruntime", "openvino"):
            bundle = load(path, engine=engine)
            watch = timed(bundle)
            images = sorted((data / "val" / "images").iterdir())
            predict(bundle, images[:4], Path(folder) / f"warm-{engine}")
            for number in range(ROUNDS):
                watch.seconds, began = 0.0, time.perf_counter()
                found = evaluate(bundle, data, settings=EvaluateSettings(details=False))
                shares["evaluate"].append(1 - watch.seconds / (time.perf_counter() - began))
                watch.seconds, began = 0.0, time.perf_counter()
                predict(bundle, images, Path(folder) / f"{engine}-{number}")
                shares["predict"].append(1 - watch.seconds / (time.perf_counter() - began))
            figures[f"miou_espnet_{engine}"] = round(found.scores.mean_iou, 5)
            figures[f"ms_per_image_{engine}"] = round(1000 * watch.seconds / len(images), 2)
    for name, values in shares.items():
        figures[f"outside_engine_percent_{name}"] = round(100 * statistics.median(values), 2)
        figures[f"outside_engine_percent_{name}_worst"] = round(100 * max(values), 2)
    worst = max(
        figures["outside_engine_percent_evaluate"], figures["outside_engine_percent_predict"]
    )
    figures = {"outside_engine_percent": worst, **figures}
    write(
        "predict",
        "evaluate and predict spend under 10 % of their time outside the engine",
        figures,
        {"engine": "the same engine's own time in the same run"},
    )


if __name__ == "__main__":
    main()
