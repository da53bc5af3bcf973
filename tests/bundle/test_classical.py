"""Classical methods go into files and come back as they were; what is wrong is named."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from delineate.bundle.classical import ARRAYS, FOREST, METHOD, restored, stored
from delineate.bundle.load import load
from delineate.engines.classical import (
    METHODS,
    ForestPredictor,
)
from delineate.errors import BundleError, MissingExtraError
from delineate.types import OUTPUTS


def scene(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.zeros((40, 48), np.uint8)
    row, column = rng.integers(4, 16, 2)
    labels[row : row + 16, column : column + 20] = 1
    image = np.array([[210, 200, 205], [90, 40, 120]])[labels] + rng.integers(-12, 13, (40, 48, 3))
    return image.astype(np.uint8), labels


@pytest.fixture(scope="module")
def fitted() -> Callable[[str], Any]:
    made: dict[str, Any] = {}

    def give(method: str) -> Any:
        if method not in made:
            pairs = [scene(seed) for seed in range(3)]
            made[method] = METHODS[method].fit(pairs, ("rest", "cell"), "cell")
        return made[method]

    return give


def back(files: dict[str, bytes], spec: Any) -> Any:
    return restored(files.__getitem__, METHOD, spec, "a.bundle")


@pytest.mark.parametrize("method", METHODS)
def test_what_comes_back_says_the_same(method: str, fitted: Callable[[str], Any]) -> None:
    before = fitted(method)
    files = stored(before)
    assert json.loads(files[METHOD])["method"] == method
    after = back(files, before.spec)
    images = np.stack([scene(seed)[0] for seed in (7, 8)])
    one, other = (each.predict(images, OUTPUTS) for each in (before, after))
    for name in OUTPUTS:
        np.testing.assert_array_equal(one[name], other[name])
    assert stored(after) == files


def test_a_network_is_no_classical_method(tiny_bundle: Path) -> None:
    with pytest.raises(TypeError, match="is no classical method"):
        stored(load(tiny_bundle, engine="onnxruntime"))


@pytest.mark.parametrize(
    ("method", "change", "found"),
    [
        ("otsu", {"channel": "infrared"}, "channel"),
        ("otsu", {"blur_px": -1}, "blur_px"),
        ("otsu", {"foreground": 2}, "names class 2, and there are 2 classes"),
        ("otsu", {"speed": 9}, "speed"),
        ("otsu", {"method": "magic"}, "magic"),
        ("multi-otsu", {"band_classes": [0, 5]}, "names class 5"),
        ("forest", {"columns": [0, 3]}, "names class 3"),
        ("grabcut", {"iterations": 0}, "iterations"),
        ("watershed", {"markers": "luck"}, "markers"),
    ],
)
def test_a_setting_that_cannot_be(
    method: str, change: dict[str, Any], found: str, fitted: Callable[[str], Any]
) -> None:
    files = stored(fitted(method))
    files[METHOD] = json.dumps({**json.loads(files[METHOD]), **change}).encode()
    with pytest.raises(BundleError, match=found) as caught:
        back(files, fitted(method).spec)
    assert caught.value.where == "a.bundle"


def test_no_json(fitted: Callable[[str], Any]) -> None:
    with pytest.raises(BundleError, match=r"method\.json is wrong"):
        back({METHOD: b"{"}, fitted("otsu").spec)


@pytest.mark.parametrize(
    ("method", "arrays"),
    [
        ("colour", {"table": np.zeros((5, 2), np.float32)}),
        ("colour", {"other": np.zeros((5, 2), np.float32)}),
        ("colour", {"table": np.array([{}], object)}),
        ("colour", {"table": np.array(["a"])}),
        ("kmeans", {"centres": np.zeros((4, 3), np.float32), "table": np.zeros((3, 2), "f4")}),
        ("kmeans", {"centres": np.float32(1), "table": np.zeros((3, 2), "f4")}),
        ("grabcut", {"table": np.zeros((4096, 3), np.float32)}),
    ],
)
def test_tables_that_do_not_fit(
    method: str, arrays: dict[str, np.ndarray], fitted: Callable[[str], Any]
) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    files = {**stored(fitted(method)), ARRAYS: buffer.getvalue()}
    with pytest.raises(BundleError, match=r"arrays\.npz"):
        back(files, fitted(method).spec)
    with pytest.raises(BundleError, match=r"arrays\.npz"):
        back({**files, ARRAYS: b"nothing"}, fitted(method).spec)


def test_a_forest_that_is_none(fitted: Callable[[str], Any]) -> None:
    files = {**stored(fitted("forest")), FOREST: b"a pickle, say"}
    with pytest.raises(BundleError, match=r"forest\.onnx cannot be loaded"):
        back(files, fitted("forest").spec)


def test_a_forest_for_other_images(fitted: Callable[[str], Any]) -> None:
    files = stored(fitted("forest"))
    grey = [(image[..., :1], labels) for image, labels in (scene(0), scene(1))]
    other = ForestPredictor.fit(grey, ("rest", "cell"), "cell")
    with pytest.raises(BundleError, match="takes 16 features and tells 2 classes, not 48 and 2"):
        back({**files, FOREST: other.model}, fitted("forest").spec)
    files[METHOD] = json.dumps({"method": "forest", "columns": [1, 1]}).encode()
    with pytest.raises(BundleError, match="not 48 and 1"):
        back(files, fitted("forest").spec)


def test_images_that_the_method_does_not_take(fitted: Callable[[str], Any]) -> None:
    for method, change in (
        ("otsu", {"dtype": "uint16"}),
        ("colour", {"channels": 4}),
        ("grabcut", {"channels": 1}),
    ):
        spec = replace(fitted(method).spec, **change)
        with pytest.raises(BundleError, match=f"holds {method}, which takes no"):
            back(stored(fitted(method)), spec)
    spec = replace(fitted("grabcut").spec, classes=("a", "b", "c"), task="multiclass")
    with pytest.raises(BundleError, match="holds grabcut for 3 classes"):
        back(stored(fitted("grabcut")), spec)


def test_what_is_missing_is_said_when_it_is_loaded(
    fitted: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = stored(fitted("watershed"))
    monkeypatch.setattr("delineate.bundle.classical.find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r"delineate\[classical\]"):
        back(files, fitted("watershed").spec)
    assert back(stored(fitted("otsu")), fitted("otsu").spec)
