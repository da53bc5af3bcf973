"""From labelled images to a segmentation model running in production.

The names here are the public surface; each is imported when it is first used, so that
``import delineate`` costs nothing and predicting needs no PyTorch.
"""

from __future__ import annotations

import importlib
from typing import Any

_PUBLIC = {
    "BenchSettings": "delineate.workflows.bench_result",
    "Budget": "delineate.planning.choice",
    "Bundle": "delineate.bundle.load",
    "CompressSettings": "delineate.workflows.compress",
    "Dataset": "delineate.data.dataset",
    "DelineateError": "delineate.errors",
    "Duration": "delineate.config",
    "EvaluateSettings": "delineate.workflows.evaluate",
    "FitSettings": "delineate.workflows.fit",
    "ImportOnnxSettings": "delineate.bundle.import_onnx",
    "Plan": "delineate.config",
    "PlanSettings": "delineate.workflows.plan",
    "PredictSettings": "delineate.workflows.predict",
    "Predictor": "delineate.types",
    "PredictorSpec": "delineate.types",
    "ServingSettings": "delineate.serving.settings",
    "TilingSettings": "delineate.config",
    "TrainSettings": "delineate.workflows.train",
    "bench": "delineate.workflows.bench",
    "compare_runs": "delineate.workflows.run_compare",
    "compress": "delineate.workflows.compress",
    "distill": "delineate.workflows.distill",
    "evaluate": "delineate.workflows.evaluate",
    "fit": "delineate.workflows.fit",
    "import_onnx": "delineate.bundle.import_onnx",
    "join": "delineate.workflows.join",
    "load": "delineate.bundle.load",
    "plan": "delineate.workflows.plan",
    "predict": "delineate.workflows.predict",
    "segment": "delineate.tiling.segment",
    "serving_app": "delineate.workflows.serve",
    "train": "delineate.workflows.train",
    "train_curve": "delineate.workflows.curve",
    "train_folds": "delineate.workflows.folds",
}
__all__ = sorted(_PUBLIC)
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'delineate' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return __all__
