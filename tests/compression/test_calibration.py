from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from delineate.compression.calibration import (
    EACH,
    calibration_pieces,
    calibration_samples,
    choose,
    telling_piece,
)
from delineate.compression.piece import Piece
from delineate.data.dataset import Sample
from delineate.engines.scaling import image_scaling
from delineate.errors import DatasetError
from delineate.types import Image, LabelMap, PredictorSpec


def read(sample: Sample) -> tuple[Image, LabelMap]:
    """A name is the ids of its pixels."""
    ids = [255 if letter == "x" else int(letter) for letter in sample.name]
    return np.zeros((1, len(ids), 3), np.uint8), np.array([ids], np.uint8)


def samples(*names: str) -> list[Sample]:
    return [Sample(name, Path(f"{name}.png"), Path(f"{name}.png"), None) for name in names]


def names(*given: str, count: int, classes: tuple[str, ...] = ("sky", "road", "sign")) -> list[str]:
    found = calibration_samples(samples(*given), read, classes, count=count, where=Path("data"))
    return [sample.name for sample in found]


def test_a_rare_class_is_there_and_the_rest_is_spread() -> None:
    common = [f"01{'0' * i}" for i in range(1, 40)]
    found = names(*common[:20], "0012", *common[20:], "2xxx", count=8)
    assert {"0012", "2xxx"} <= set(found)
    assert len(found) == 8
    spread = [common.index(name) for name in found if name in common]
    assert max(np.diff(sorted(spread))) < 20


def test_classes_that_need_more_get_more() -> None:
    single = ["0", "1", "2"]
    assert names(*single, "0", "1", count=1) == ["0", "1", "2", "0", "1"]


def test_a_class_that_is_nowhere() -> None:
    with pytest.raises(DatasetError) as caught:
        names("01", "10x", count=2)
    assert str(caught.value) == (
        "data: no image for the calibration shows sign, so that the ranges of it would be guessed. "
        "Add labelled images of it to train, or go on with --calibration-may-lack."
    )
    found = calibration_samples(
        samples("01", "10"), read, ("a", "b", "c"), count=2, may_lack=True, where=Path("data")
    )
    assert len(found) == 2


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 30), st.integers(1, 5), st.integers(1, 20))
def test_every_class_that_can_be_is_shown(seed: int, images: int, classes: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    shares = np.where(rng.random((images, classes)) < 0.3, rng.random((images, classes)), 0.0)
    chosen = choose(shares, count)
    assert chosen == sorted(set(chosen))
    assert min(count, images) <= len(chosen) <= max(min(count, images), EACH * classes)
    for class_id in range(classes):
        shown = shares[:, class_id] > 0
        assert shown[chosen].sum() >= min(EACH, shown.sum())


@pytest.mark.parametrize(
    ("hw", "at", "wanted"),
    [
        ((100, 130), (99, 129), (68, 98)),  # the last pieces end where the image does
        ((100, 130), (40, 70), (32, 64)),
        ((100, 130), (0, 0), (0, 0)),
        ((20, 130), (10, 129), (0, 98)),
        ((20, 20), (19, 19), (0, 0)),
    ],
)
def test_a_piece_is_taken_where_the_rare_class_is(
    hw: tuple[int, int], at: tuple[int, int], wanted: tuple[int, int]
) -> None:
    labels = np.zeros(hw, np.uint8)
    labels[0, 0] = 255  # is no class
    labels[at] = 1
    assert telling_piece(labels, (32, 32), 2) == wanted


def test_pieces_of_large_images_keep_the_scaling_of_the_whole() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (80, 60, 3), dtype=np.uint8)
    labels = np.zeros((80, 60), np.uint8)
    labels[70:, 50:] = 1

    def spec(fixed_hw: tuple[int, int] | None, *, by_image: bool) -> PredictorSpec:
        return PredictorSpec(
            ("a", "b"), "multiclass", 3, "uint8", fixed_hw=fixed_hw, normalised_by_image=by_image
        )

    def piece(spec: PredictorSpec) -> Piece:
        return calibration_pieces(samples("large"), lambda _: (image, labels), spec, 32)[0]

    free = piece(spec(None, by_image=True))
    assert np.array_equal(free.pixels, image[48:, 28:])
    assert free.scaling is not None
    assert np.array_equal(free.scaling, image_scaling(image))
    fixed = piece(spec((64, 64), by_image=False))
    assert fixed.scaling is None
    assert np.array_equal(fixed.pixels[:, :60], image[16:])
    assert np.array_equal(fixed.pixels[:, 60:], image[16:, :-5:-1])
