"""The public surface."""

from __future__ import annotations

import importlib
import importlib.metadata

import pytest

import delineate

PUBLIC = [
    "BenchSettings",
    "Budget",
    "Bundle",
    "CompressSettings",
    "Dataset",
    "DelineateError",
    "Duration",
    "EvaluateSettings",
    "FitSettings",
    "ImportOnnxSettings",
    "Plan",
    "PlanSettings",
    "PredictSettings",
    "Predictor",
    "PredictorSpec",
    "ServingSettings",
    "TilingSettings",
    "TrainSettings",
    "bench",
    "compare_runs",
    "compress",
    "distill",
    "evaluate",
    "fit",
    "import_onnx",
    "join",
    "load",
    "plan",
    "predict",
    "segment",
    "serving_app",
    "train",
    "train_curve",
    "train_folds",
]


def test_the_public_names():
    assert delineate.__all__ == PUBLIC
    assert dir(delineate) == PUBLIC


@pytest.mark.parametrize("name", delineate.__all__)
def test_every_public_name_resolves_and_says_what_it_is(name):
    found = getattr(delineate, name)
    assert callable(found)
    assert found.__name__ == name
    assert found.__doc__
    home = importlib.import_module(found.__module__)
    assert getattr(home, name) is found


def test_a_name_that_is_none():
    with pytest.raises(AttributeError) as caught:
        delineate.segmentate  # noqa: B018
    assert str(caught.value) == "module 'delineate' has no attribute 'segmentate'"


def test_the_version_is_that_of_the_package():
    assert delineate.__version__ == importlib.metadata.version("delineate")
