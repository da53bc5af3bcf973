from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from delineate.data.dataset import Dataset
from delineate.data.statistics import describe
from delineate.errors import DatasetError
from delineate.planning.ceilings import STRIDES, stride_ceilings
from delineate.planning.fingerprint import Fingerprint, fingerprint
from delineate.planning.look import look_at


def made(path: Path, masks: list[np.ndarray], classes: str, **info: object) -> Path:
    """A dataset whose images are noise."""
    rng = np.random.default_rng(0)
    lines = [f"classes: [{classes}]", *(f"{name}: {value}" for name, value in info.items())]
    for split, chosen in (("train", masks), ("val", masks[:1])):
        for kind in ("images", "masks"):
            (path / split / kind).mkdir(parents=True)
        for index, mask in enumerate(chosen):
            image = rng.integers(0, 256, (*mask.shape, 3), np.uint8)
            cv2.imwrite(str(path / split / f"images/{split}{index}.png"), image)
            cv2.imwrite(str(path / split / f"masks/{split}{index}.png"), mask)
    (path / "dataset.yaml").write_text("\n".join(lines))
    return path


def found(path: Path) -> Fingerprint:
    data = Dataset.open(path)
    return fingerprint(data, look_at(data.split("train"), data.info), describe(path))


def discs(radius: int, *, count: int = 4, side: int = 128) -> np.ndarray:
    mask = np.zeros((side, side), np.uint8)
    step = side // int(count**0.5)
    for row in range(step // 2, side, step):
        for column in range(step // 2, side, step):
            cv2.circle(mask, (column, row), radius, 1, -1)
    return mask


def test_discs_have_the_size_they_were_drawn_with(tmp_path: Path) -> None:
    path = made(tmp_path / "data", [discs(10)] * 3, "background, disc", pixel_size_um=0.5)
    print_ = found(path)
    disc = print_.classes[1]
    assert (print_.labelled_images, print_.validation_images, print_.groups) == (3, 1, None)
    assert (print_.height_px.median, print_.width_px.median, print_.pixel_size_um) == (
        128,
        128,
        0.5,
    )
    assert disc.objects_per_image == 4
    assert disc.diameter_px is not None
    assert disc.diameter_px.median == pytest.approx(21, abs=1)
    assert print_.largest_object_px == disc.diameter_px.p95
    assert disc.thickness_px is not None
    assert disc.thickness_px.median == pytest.approx(20, abs=1)
    assert disc.share == pytest.approx(4 * np.pi * 10.5**2 / 128**2, rel=0.1)
    assert print_.classes[0].background
    assert print_.classes[0].thickness_px is None


def test_a_thin_line_is_lost_at_a_coarse_stride_and_a_thick_bar_is_not() -> None:
    mask = np.zeros((96, 96), np.uint8)
    mask[20:22] = 1  # 2 px
    mask[50:82] = 2  # 32 px
    ceilings = stride_ceilings([mask], 3)
    line, bar = ceilings[:, 1], ceilings[:, 2]
    assert ceilings[0].tolist() == [1, 1, 1]
    assert line[STRIDES.index(8)] == 0  # a share of a quarter never wins
    assert bar[STRIDES.index(8)] > 0.85
    assert np.all(np.diff(bar) <= 0)


def test_a_bar_on_the_grid_loses_nothing() -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[:, 32:] = 1
    assert stride_ceilings([mask], 2)[: STRIDES.index(32)].min() == 1


def test_absent_and_ignored_classes_count_nowhere() -> None:
    mask = np.zeros((40, 40), np.uint8)
    mask[:, 20:] = 1
    mask[:, 19:21] = 255
    ceilings = stride_ceilings([mask, np.full((8, 8), 255, np.uint8)], 3)
    assert np.isnan(ceilings[:, 2]).all()
    assert ceilings[STRIDES.index(2), :2].tolist() == [1, 1]


def test_the_ceiling_of_a_dataset_is_the_mean_over_its_classes(tmp_path: Path) -> None:
    path = made(tmp_path / "data", [discs(10)], "background, disc, never")
    print_ = found(path)
    for stride in STRIDES:
        index = STRIDES.index(stride)
        values = [item.ceilings[index] for item in print_.classes[:2]]
        assert print_.ceiling(stride) == pytest.approx(np.mean(values))
    assert print_.ceiling(3) == print_.ceiling(4)
    assert print_.ceiling(64) == print_.ceiling(32)


def test_groups_are_counted(tmp_path: Path) -> None:
    path = made(tmp_path / "data", [discs(10)] * 4, "background, disc", groups="'^[a-z]+([01])?'")
    (path / "dataset.yaml").write_text(
        "classes: [background, disc]\ngroups: {train0: a, train1: a, train2: b, train3: b, val0: c}"
    )
    assert found(path).groups == 2


def test_nothing_to_learn_from(tmp_path: Path) -> None:
    path = made(tmp_path / "data", [discs(10)], "background, disc")
    look = look_at(Dataset.open(path).split("train"), Dataset.open(path).info)
    for mask in (path / "train/masks").iterdir():
        mask.unlink()
    data, statistics = Dataset.open(path), describe(path)
    with pytest.raises(DatasetError, match="no labelled image to learn from"):
        fingerprint(data, look, statistics)


def test_a_part_of_a_dataset_is_measured(tmp_path: Path, make_dataset: Callable[..., Path]) -> None:
    path = make_dataset(tmp_path / "data", train=5)
    some = describe(path, splits=["train"], most=3)
    assert [split.name for split in some.splits] == ["train"]
    assert some.whole.images == 3
    assert {split.name: split.images for split in describe(path, most=4).splits}["train"] == 4
