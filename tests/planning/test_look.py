from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from delineate.data.dataset import Dataset, read_pair
from delineate.data.images import read_image
from delineate.errors import ImageError
from delineate.planning.look import FirstLook, look_at, read_alike

Make = Callable[..., Path]


def looked(path: Path) -> FirstLook:
    data = Dataset.open(path)
    return look_at(data.split("train"), data.info)


@pytest.mark.parametrize("grey", [{0}, {2}, {0, 1, 2}])
def test_grey_images_go_with_colour(
    tmp_path: Path,
    make_dataset: Make,
    make_picture: Callable[..., Any],
    save_image: Any,
    grey: set[int],
) -> None:
    path = make_dataset(tmp_path / "data")
    pixels = []
    for i in range(4):
        image, _ = make_picture(i, channels=1 if i in grey else 3)
        save_image(path / f"train/images/train{i}.png", image)
        pixels.append(np.broadcast_to(image, (*image.shape[:2], 3)).reshape(-1, 3))
    found = looked(path)
    assert (found.channels, found.dtype, found.smallest_side_px) == (3, "uint8", 40)
    together = np.concatenate(pixels)
    assert found.normalisation.mean == pytest.approx(together.mean(0), rel=1e-6)
    assert found.normalisation.std == pytest.approx(together.std(0), rel=1e-6)
    data = Dataset.open(path)
    shapes = {read_alike(s, data.info, found)[0].shape for s in data.split("train")}
    assert shapes == {(48, 40, 3)}


def test_four_channels_among_grey(
    tmp_path: Path, make_dataset: Make, make_picture: Callable[..., Any], save_image: Any
) -> None:
    path = make_dataset(tmp_path / "data", channels=4)
    image, _ = make_picture(0, channels=1)
    (path / "train/images/train0.tif").unlink()
    save_image(path / "train/images/train0.png", image)
    with pytest.raises(ImageError) as caught:
        looked(path)
    assert str(caught.value) == (
        f"{path / 'train/images/train1.tif'}: has 4 channels of uint8, and the other images for "
        "training have 1 of uint8. Convert the images of a dataset to one kind."
    )


@pytest.mark.parametrize("scale", [1e-6, 1e-30, 1.0, 1e6])
def test_values_of_any_scale_keep_seven_digits(
    tmp_path: Path, make_dataset: Make, save_image: Any, scale: float
) -> None:
    path = make_dataset(tmp_path / "data", train=1, channels=4)
    image = np.random.default_rng(0).uniform(1, 4, (48, 40, 4)) * scale
    save_image(path / "train/images/train0.tif", image.astype(np.float32))
    found = looked(path).normalisation
    pixels = image.astype(np.float32).astype(np.float64).reshape(-1, 4)
    assert found.mean == pytest.approx(pixels.mean(0), rel=1e-6, abs=0)
    assert found.std == pytest.approx(pixels.std(0), rel=1e-6, abs=0)


@pytest.mark.parametrize("value", [0.0, 3e-6, 0.1, 1e7])
def test_constant_float_values_are_not_divided_by_rounding(
    tmp_path: Path, make_dataset: Make, save_image: Any, value: float
) -> None:
    path = make_dataset(tmp_path / "data", train=1, channels=4)
    save_image(path / "train/images/train0.tif", np.full((48, 40, 4), value, np.float32))
    assert looked(path).normalisation.std == (1.0,) * 4


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


@pytest.mark.parametrize(
    ("exposures", "expected"),
    [((0,) * 8, 0.0), ((0, 60, 120, 180) * 2, 0.98), ((0, 60, 120, 180), 0.0)],
)
def test_how_much_of_the_variance_lies_between_images(
    tmp_path: Path, make_dataset: Make, save_image: Any, exposures: Any, expected: float
) -> None:
    path = make_dataset(tmp_path / "data", train=len(exposures))
    rng = np.random.default_rng(0)
    for index, exposure in enumerate(exposures):
        image = rng.integers(20, 50, (48, 40, 3)).astype(np.uint8) + np.uint8(exposure)
        save_image(path / f"train/images/train{index}.png", image)
    assert looked(path).between_images == pytest.approx(expected, abs=0.01)


def test_shares_of_classes_without_what_is_ignored(tmp_path: Path, make_dataset: Make) -> None:
    path = make_dataset(tmp_path / "data", ignore_index=255)
    data = Dataset.open(path)
    masks = np.stack([read_pair(sample, data.info)[1] for sample in data.split("train")])
    counted = masks[masks != 255]
    found = looked(path).class_shares
    assert found == pytest.approx([float(np.mean(counted == i)) for i in range(3)])


def tilted(path: Path, save_image: Any, shifts: list[int]) -> None:
    """Bars of class 1, whose rows lie below the middle of 40 by so much."""
    rng = np.random.default_rng(0)
    (path / "train/images").mkdir(parents=True)
    (path / "train/masks").mkdir()
    (path / "dataset.yaml").write_text("classes: [background, bar]")
    for index, shift in enumerate(shifts):
        mask = np.zeros((40, 40), np.uint8)
        mask[15 + shift : 25 + shift] = 1
        save_image(path / f"train/images/{index}.png", rng.integers(0, 256, (40, 40, 3), np.uint8))
        cv2.imwrite(str(path / f"train/masks/{index}.png"), mask)


@pytest.mark.parametrize(
    ("shifts", "upright"),
    [
        ([8, 9, 10, 11, 12, 10, 9, 8], True),
        ([-8, 9, -10, 11, -12, 10, -9, 8], False),
        ([0] * 8, False),
        ([0] * 7, True),  # too few to tell
        ([10] * 18 + [-10] * 2, True),  # a few the other way
    ],
)
def test_whether_images_have_an_up(
    tmp_path: Path, save_image: Any, shifts: list[int], upright: bool
) -> None:
    tilted(tmp_path / "data", save_image, shifts)
    assert looked(tmp_path / "data").upright is upright


@pytest.mark.parametrize(
    ("classes", "sided"),
    [
        ("[background, left kidney, right kidney]", True),
        ("[background, Kidney_Left, kidney-right]", True),
        ("[background, left kidney, liver]", False),
        ("[background, leftovers, rightovers]", False),
    ],
)
def test_classes_told_apart_by_their_side(
    tmp_path: Path, make_dataset: Make, classes: str, sided: bool
) -> None:
    path = make_dataset(tmp_path / "data")
    (path / "dataset.yaml").write_text(f"classes: {classes}")
    assert looked(path).sided is sided


@pytest.mark.parametrize(("width", "half", "eighth"), [(1, 0.5, 0.5), (16, 1.0, 0.9)])
def test_what_coarse_cells_leave_of_the_labels(
    tmp_path: Path, save_image: Any, width: int, half: float, eighth: float
) -> None:
    path = tmp_path / "data"
    tilted(path, save_image, [0] * 3)
    for index in range(3):
        mask = np.zeros((40, 40), np.uint8)
        mask[8 : 8 + width] = 1
        cv2.imwrite(str(path / f"train/masks/{index}.png"), mask)
    found = looked(path)
    assert found.half_ceiling == pytest.approx(half, abs=0.1)
    assert found.eighth_ceiling == pytest.approx(eighth, abs=0.1)


def test_nothing_is_labelled(tmp_path: Path, make_dataset: Make) -> None:
    path = make_dataset(tmp_path / "data", ignore_index=255)
    for mask in (path / "train/masks").iterdir():
        cv2.imwrite(str(mask), np.full((48, 40), 255, np.uint8))
    found = looked(path)
    assert (found.half_ceiling, found.eighth_ceiling) == (1.0, 1.0)
