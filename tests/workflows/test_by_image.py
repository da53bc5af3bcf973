"""A training whose images are normalised each by itself, from dataset to bundle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from delineate.bundle.load import load
from delineate.config import Duration, Plan, TilingSettings, checked, load_yaml
from delineate.data.dataset import Dataset
from delineate.data.images import read_image
from delineate.errors import SettingsError
from delineate.models.build import build
from delineate.tiling.segment import segment
from delineate.training.checkpoint import load_checkpoint
from delineate.workflows.distill import distill
from delineate.workflows.train import TrainResult, train
from delineate.workflows.training_setup import TrainSettings

EXPOSURES = (1, 4, 2, 1)  # images are divided by these
# nothing that rounds, as a zoom of bytes does
STILL: dict[str, object] = {
    "augmentation.scale": (1.0, 1.0),
    **{f"augmentation.{name}": 0.0 for name in ("colour", "blur", "noise", "elastic", "rotation")},
}


@pytest.fixture(scope="module")
def trainings(
    tmp_path_factory: pytest.TempPathFactory,
    make_dataset: Callable[..., Path],
    save_image: Any,
    tiny: dict[str, object],
) -> dict[str, tuple[Path, TrainResult]]:
    """The same training on images as they are, and on images of many exposures."""
    folder = tmp_path_factory.mktemp("by-image")
    found: dict[str, tuple[Path, TrainResult]] = {}
    for name, exposures in {"even": (1,), "uneven": EXPOSURES}.items():
        data = make_dataset(folder / name)
        for file in sorted(data.glob("*/images/*")):
            image = read_image(file) // 8 * 4  # multiples of four, so that no division rounds
            save_image(file, image // exposures[int(file.stem[-1]) % len(exposures)])
        result = train(
            data,
            folder / f"{name}-run",
            changes={**tiny, **STILL, "normalisation": "image"},
            settings=TrainSettings(Duration(steps=2)),
        )
        found[name] = data, result
    return found


def weights(result: TrainResult) -> np.ndarray:
    plan = load_yaml(result.run / "plan.yaml", Plan)
    assert plan.normalisation == "image"
    network = build(plan.model, channels=3, classes=3, task="multiclass")
    load_checkpoint(result.run / "checkpoints" / "last.safetensors", network, None, None)
    return np.concatenate([p.detach().numpy().ravel() for p in network.parameters()])


def test_exposure_changes_nothing_of_a_training(
    trainings: dict[str, tuple[Path, TrainResult]],
) -> None:
    even, uneven = (weights(result) for _, result in trainings.values())
    np.testing.assert_allclose(even, uneven, atol=1e-4)


def test_the_bundle_says_so_and_takes_any_exposure(
    trainings: dict[str, tuple[Path, TrainResult]],
) -> None:
    data, result = trainings["even"]
    bundle = load(result.bundle, engine="onnxruntime")
    assert bundle.manifest.input.normalisation.by == "image"
    assert bundle.spec.normalised_by_image
    assert bundle.verify() > 0
    assert "its own mean" in (result.bundle / "card.md").read_text()
    for sample in Dataset.open(data).split("val"):
        image = read_image(sample.image)
        for tiling in (TilingSettings(), TilingSettings(tile_px=32, overlap_px=8)):
            bright = segment(bundle, image, ("probabilities",), tiling=tiling)["probabilities"]
            assert np.ptp(bright) > 10  # there is something to differ in
            for dark in (image // 2, image // 4):
                found = segment(bundle, dark, ("probabilities",), tiling=tiling)["probabilities"]
                assert np.abs(found.astype(int) - bright).max() <= 1


def test_a_teacher_that_is_normalised_by_image(
    trainings: dict[str, tuple[Path, TrainResult]], tmp_path: Path, tiny: dict[str, object]
) -> None:
    data, teacher = trainings["uneven"]
    found = distill(
        teacher.bundle,
        data,
        tmp_path / "student",
        changes={**tiny, **STILL},
        settings=TrainSettings(Duration(steps=1), canary=False),
    )
    assert load(found.student.bundle).manifest.input.normalisation.by == "dataset"


def test_other_kinds_of_normalisation_are_refused() -> None:
    with pytest.raises(SettingsError) as caught:
        checked(Plan, {"normalisation": "tile"}, "plan.yaml")
    assert str(caught.value) == (
        "plan.yaml: normalisation: Input should be 'dataset' or 'image' (found 'tile')."
    )
