from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from delineate.config import Normalisation
from delineate.data.dataset import Dataset, read_pair
from delineate.data.images import read_image
from delineate.workflows.first_look import FirstLook, balancing_weights, default_plan, look_at

Make = Callable[..., Path]


def looked(path: Path) -> FirstLook:
    data = Dataset.open(path)
    return look_at(data.split("train"), data.info)


def test_grey_images_go_with_colour(
    tmp_path: Path, make_dataset: Make, make_picture: Callable[..., Any], save_image: Any
) -> None:
    path = make_dataset(tmp_path / "data")
    image, _ = make_picture(2, channels=1)
    save_image(path / "train/images/train2.png", image)
    found = looked(path)
    assert (found.channels, found.dtype, found.smallest_side_px) == (3, "uint8", 40)


def test_measured_pixels_are_those_of_numpy(tmp_path: Path, make_dataset: Make) -> None:
    path = make_dataset(tmp_path / "data", channels=4, dtype="uint16")
    samples = Dataset.open(path).split("train")
    pixels = np.concatenate([read_image(s.image).reshape(-1, 4) for s in samples])
    found = looked(path)
    assert (found.channels, found.dtype) == (4, "uint16")
    assert found.normalisation.mean == pytest.approx(pixels.mean(0), rel=1e-6)
    assert found.normalisation.std == pytest.approx(pixels.std(0), rel=1e-6)


def test_a_constant_channel_is_not_divided_by_zero(
    tmp_path: Path, make_dataset: Make, save_image: Any
) -> None:
    path = make_dataset(tmp_path / "data", train=1)
    save_image(path / "train/images/train0.png", np.full((48, 40, 3), 7, np.uint8))
    found = looked(path)
    assert found.normalisation.mean == (7.0, 7.0, 7.0)
    assert found.normalisation.std == (1.0, 1.0, 1.0)


def test_shares_of_classes_without_what_is_ignored(tmp_path: Path, make_dataset: Make) -> None:
    path = make_dataset(tmp_path / "data", ignore_index=255)
    data = Dataset.open(path)
    masks = np.stack([read_pair(sample, data.info)[1] for sample in data.split("train")])
    counted = masks[masks != 255]
    found = looked(path).class_shares
    assert found == pytest.approx([float(np.mean(counted == i)) for i in range(3)])


LOOK = FirstLook(
    channels=3,
    dtype="uint8",
    normalisation=Normalisation(mean=(0.0,), std=(1.0,)),
    smallest_side_px=100,
    class_shares=(0.25, 0.25, 0.5),
)


@pytest.mark.parametrize(
    ("side", "crop", "downscale"), [(20, 32, 1), (100, 96, 1), (319, 256, 1), (320, 256, 2)]
)
def test_the_default_plan_fits_the_images(side: int, crop: int, downscale: int) -> None:
    plan = default_plan(replace(LOOK, smallest_side_px=side))
    assert (plan.crop_px, plan.model.downscale) == (crop, downscale)


def test_rare_classes_weigh_more() -> None:
    assert balancing_weights((0.64, 0.32, 0.04)) == (0.7984, 1.1291, 3.1935)
    weights = balancing_weights((0.9, 0.1 - 1e-9, 1e-9))
    assert weights is not None
    assert weights[2] == pytest.approx(8 * weights[0], rel=1e-3)  # the heaviest there is
    never_seen = balancing_weights((0.5, 0.5, 0.0))
    assert never_seen == (1.0, 1.0, 1.0)


@given(st.lists(st.floats(0.01, 1.0), min_size=3, max_size=20))
def test_weights_are_1_in_the_mean_over_pixels(amounts: list[float]) -> None:
    shares = tuple(float(v) for v in np.array(amounts) / sum(amounts))
    weights = balancing_weights(shares)
    assert weights is not None
    assert float(np.dot(weights, shares)) == pytest.approx(1, abs=1e-3)


def test_no_weights_where_they_have_no_place() -> None:
    assert balancing_weights((0.9, 0.1)) is None
    assert balancing_weights((0.0, 0.0, 0.0)) is None
    assert default_plan(LOOK, "dice").loss.class_weights is None
    assert default_plan(LOOK, "ce").loss.class_weights is not None
