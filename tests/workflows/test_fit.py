"""A classical method from a dataset to a bundle that is loaded like any other."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from delineate.bundle.load import load
from delineate.config import Duration
from delineate.data.dataset import Dataset
from delineate.engines.classical import METHODS
from delineate.errors import (
    BundleError,
    DatasetError,
    EngineError,
    ImageError,
    MissingExtraError,
    OutputError,
    SettingsError,
)
from delineate.workflows.compress import compress
from delineate.workflows.distill import distill
from delineate.workflows.evaluate import evaluate
from delineate.workflows.fit import FitSettings, Fitted, fit
from delineate.workflows.predict import predict
from delineate.workflows.train import TrainSettings


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory, make_dataset: Callable[..., Path]) -> Path:
    return make_dataset(tmp_path_factory.mktemp("data") / "data")


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, make_dataset: Callable[..., Path]) -> Path:
    return make_dataset(tmp_path_factory.mktemp("two") / "data", classes=("background", "cell"))


@pytest.fixture(scope="module")
def fitted(dataset: Path) -> Fitted:
    return fit(dataset, dataset.parent / "bands.bundle", method="multi-otsu")


@pytest.mark.parametrize("method", METHODS)
def test_every_method_ends_in_a_bundle_that_gives_its_scores(
    method: str, two: Path, tmp_path: Path
) -> None:
    out = tmp_path / f"{method}.bundle"
    found = fit(two, out, method=method)
    assert found.method == method
    assert found.images == 4
    bundle = load(out)
    assert (bundle.engine, bundle.variant) == ("classical", "float32")
    assert bundle.verify() == 2
    assert load(out, variant="auto").variant == "float32"
    again = evaluate(bundle, two)
    assert again.scores == found.evaluation.scores
    assert bundle.manifest.variants["float32"].scores["mean_iou"] == pytest.approx(
        again.scores.mean_iou, abs=1e-4
    )
    card = (out / "card.md").read_text()
    assert f"A classical method, no network: {method}." in card
    assert "normalisation is inside it" not in card


def test_it_predicts_as_any_bundle(fitted: Fitted, dataset: Path, tmp_path: Path) -> None:
    predict(fitted.bundle, [dataset / "val/images"], tmp_path / "masks")
    assert len(list((tmp_path / "masks").glob("*.png"))) == 2


def test_what_is_known_of_it(fitted: Fitted, dataset: Path) -> None:
    manifest = load(fitted.bundle).manifest
    assert manifest.classical
    assert manifest.provenance["dataset_sha256"] == Dataset.open(dataset).fingerprint()
    assert manifest.provenance["training_images"] == 4
    names = {"delineate", "numpy", "opencv-python-headless", "scikit-image"}
    assert set(manifest.provenance["software"]) == names
    reference = load(fitted.bundle).reference()
    assert reference["images"] == 2
    document = json.loads(json.dumps(fitted.to_dict()))
    assert document["validation"]["mean_iou"] == fitted.evaluation.scores.mean_iou


def test_a_zip_without_canary(dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "colours.zip"
    settings = FitSettings(canary=False, images=2, name="colours-of-mine")
    assert fit(dataset, out, method="colour", settings=settings).images == 2
    bundle = load(out)
    assert bundle.manifest.name == "colours-of-mine"
    assert list(bundle.canary()) == []


def test_a_changed_table_is_refused(dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.bundle"
    fit(dataset, out, method="otsu", settings=FitSettings(foreground="car"))
    path = out / "method.json"
    path.write_text(path.read_text() + " ")
    with pytest.raises(BundleError, match=r"method\.json was altered"):
        load(out)


def test_no_engine_runs_it(fitted: Fitted) -> None:
    with pytest.raises(EngineError, match="runs on the CPU and not on openvino with cpu"):
        load(fitted.bundle, engine="openvino")
    with pytest.raises(EngineError, match="not on auto with cuda"):
        load(fitted.bundle, device="cuda")


def test_there_is_nothing_to_compress_and_nothing_to_learn_from(
    fitted: Fitted, dataset: Path, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match="holds no network but a classical method"):
        compress(fitted.bundle, dataset)
    settings = TrainSettings(Duration(steps=1))
    with pytest.raises(SettingsError, match="holds no network but a classical method"):
        distill(fitted.bundle, dataset, tmp_path / "out", settings=settings)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("method", ["otsu", "watershed"])
def test_one_class_of_several_has_to_be_named(dataset: Path, tmp_path: Path, method: str) -> None:
    with pytest.raises(SettingsError, match="tells one class from the rest, and there are 3"):
        fit(dataset, tmp_path / "a.bundle", method=method)
    with pytest.raises(SettingsError, match="the foreground 'boat' is no class"):
        fit(dataset, tmp_path / "a.bundle", method=method, settings=FitSettings(foreground="boat"))
    found = fit(
        dataset, tmp_path / "a.bundle", method=method, settings=FitSettings(foreground="car")
    )
    labels = np.unique(_said(found, dataset))
    assert 2 in labels
    assert len(labels) <= 2


@pytest.mark.parametrize("method", ["multi-otsu", "colour", "kmeans", "forest"])
def test_methods_that_tell_all_classes_apart_look_for_none(
    dataset: Path, tmp_path: Path, method: str
) -> None:
    with pytest.raises(SettingsError, match=f"{method} tells all classes apart"):
        fit(dataset, tmp_path / "a", method=method, settings=FitSettings(foreground="car"))


def test_a_folder_of_other_things_is_refused_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    monkeypatch.chdir(tmp_path)
    for out in (".", str(tmp_path)):
        with pytest.raises(OutputError, match="is a folder that holds no bundle"):
            fit(tmp_path / "is not read", out, method="otsu", settings=FitSettings(force=True))


def _said(found: Fitted, dataset: Path) -> np.ndarray:
    from delineate.data.images import read_image

    image = read_image(next((dataset / "val/images").iterdir()))
    return load(found.bundle).predict(image[None])["labels"]


def test_what_cannot_be_fitted(
    dataset: Path, tmp_path: Path, make_dataset: Callable[..., Path], fitted: Fitted
) -> None:
    out = tmp_path / "a.bundle"
    with pytest.raises(SettingsError, match="'magic' is no method"):
        fit(dataset, out, method="magic")
    with pytest.raises(SettingsError, match="two classes apart, not 3"):
        fit(dataset, out, method="grabcut", settings=FitSettings(foreground="car"))
    with pytest.raises(SettingsError, match="nothing to fit on"):
        fit(dataset, out, method="otsu", settings=FitSettings(images=0))
    with pytest.raises(OutputError, match="exists already"):
        fit(dataset, fitted.bundle, method="otsu")
    deep = make_dataset(tmp_path / "deep", dtype="uint16")
    with pytest.raises(ImageError, match="takes uint8 with 1 or 3 channels"):
        fit(deep, out, method="colour")
    bare = make_dataset(tmp_path / "bare")
    for mask in (bare / "val/masks").iterdir():
        mask.unlink()
    with pytest.raises(DatasetError):
        fit(bare, out, method="colour")
    assert not out.exists()


def test_a_missing_package_is_named(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import builtins

    real = builtins.__import__

    def refusing(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith(("skimage", "skl2onnx")):
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", refusing)
    for method in ("watershed", "multi-otsu", "forest"):
        settings = FitSettings(foreground="car" if method == "watershed" else None)
        with pytest.raises(MissingExtraError, match=r"pip install 'delineate\[classical\]'"):
            fit(dataset, tmp_path / "a.bundle", method=method, settings=settings)
