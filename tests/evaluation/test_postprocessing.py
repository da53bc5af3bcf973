"""Sizes of objects and holes: chosen where they help, and only there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from delineate.bundle.postprocess import postprocess
from delineate.config import PostprocessingSettings
from delineate.data.dataset import Sample
from delineate.evaluation.postprocessing import (
    SIZES_PX,
    Chosen,
    choose_postprocessing,
    hole_areas,
    object_areas,
)

NOTHING = PostprocessingSettings()
SIDE = 96


def truth_of(seed: int) -> np.ndarray:
    """Two squares of 20 px a side; every other image has one with a hole of 10 x 10."""
    mask = np.zeros((SIDE, SIDE), np.uint8)
    row, column = np.random.default_rng(seed).integers(2, 20, 2)
    mask[row : row + 20, column : column + 20] = 1
    mask[row + 40 : row + 60, column + 40 : column + 60] = 1
    if seed % 2:
        mask[row + 45 : row + 55, column + 45 : column + 55] = 0
    return mask


def specks(labels: np.ndarray, seed: int, side: int, count: int = 12) -> np.ndarray:
    """Squares that turn: background to object, object to hole."""
    rng = np.random.default_rng(1000 + seed)
    found = labels.copy()
    for row, column in rng.integers(1, SIDE - side - 1, (count, 2)):
        window = np.s_[row : row + side, column : column + side]
        around = labels[row - 1 : row + side + 1, column - 1 : column + side + 1]
        if len(np.unique(around)) == 1:
            found[window] = 1 - around[0, 0]
    return found


def chosen(
    predicted: Callable[[np.ndarray, int], np.ndarray],
    classes: tuple[str, ...] = ("background", "cell"),
    count: int = 12,
    ignore_index: int | None = None,
) -> Chosen:
    samples = [Sample(str(i), Path(f"{i}.png"), Path(f"{i}.png"), None) for i in range(count)]

    def read(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
        seed = int(sample.name)
        return np.full((SIDE, SIDE, 1), seed, np.uint8), truth_of(seed)

    def predict(image: np.ndarray) -> np.ndarray:
        seed = int(image[0, 0, 0])
        return predicted(truth_of(seed), seed)

    return choose_postprocessing(samples, read, predict, classes=classes, ignore_index=ignore_index)


def test_specks_and_pinholes_go() -> None:
    found = chosen(lambda truth, seed: specks(truth, seed, 3))
    assert 9 < found.settings.smallest_object_px <= 100
    assert 9 <= found.settings.largest_hole_px < 100
    kept = [one for one in found.tried if one.settings == found.settings]
    assert kept[0].mean_iou.interval[0] > 0
    cleaned = postprocess(specks(truth_of(0), 0, 3), found.settings)
    assert (cleaned == truth_of(0)).mean() > (specks(truth_of(0), 0, 3) == truth_of(0)).mean()


def test_nothing_is_done_where_nothing_helps() -> None:
    found = chosen(lambda truth, _: truth)
    assert found.settings == NOTHING
    assert found.tried
    assert all(one.mean_iou.value == 0 for one in found.tried)


def test_luck_on_one_image_is_not_enough() -> None:
    found = chosen(lambda truth, seed: specks(truth, seed, 3, 12 if seed == 3 else 0))
    assert max(one.mean_iou.value for one in found.tried) > 0
    assert found.settings == NOTHING


def test_true_objects_are_never_the_smaller_ones() -> None:
    # squares of 400 px, and the ring of those with a hole of 100 px
    found = chosen(lambda truth, seed: specks(truth, seed, 3))
    assert {one.settings.smallest_object_px for one in found.tried} <= {0, 4, 16, 64, 256}
    assert {one.settings.largest_hole_px for one in found.tried} <= {0, 4, 16, 64}


def test_without_a_background_nothing_is_tried() -> None:
    found = chosen(lambda truth, seed: specks(truth, seed, 3), classes=("sky", "car"))
    assert found == Chosen(NOTHING, ())


def test_nothing_becomes_a_class_that_does_not_count() -> None:
    found = chosen(lambda truth, seed: specks(truth, seed, 3), ignore_index=0)
    assert found == Chosen(NOTHING, ())


def test_true_holes_of_a_size_are_not_filled() -> None:
    truth = truth_of(0)
    rows, columns = np.nonzero(truth)
    row, column = int(rows.min()), int(columns.min())
    truth[row + 4 : row + 8, column + 4 : column + 8] = 0
    assert hole_areas(truth) == [16]
    samples = [Sample(str(i), Path(f"{i}.png"), Path(f"{i}.png"), None) for i in range(4)]
    found = choose_postprocessing(
        samples,
        lambda _: (np.zeros((SIDE, SIDE, 1), np.uint8), truth),
        lambda _: truth,
        classes=("background", "cell"),
        ignore_index=None,
    )
    assert {one.settings.largest_hole_px for one in found.tried} == {0, 4}


def test_no_size_is_tried_when_the_time_is_over() -> None:
    samples = [Sample(str(i), Path(f"{i}.png"), Path(f"{i}.png"), None) for i in range(4)]
    found = choose_postprocessing(
        samples,
        lambda sample: (np.zeros((SIDE, SIDE, 1), np.uint8), truth_of(int(sample.name))),
        lambda _: truth_of(0),
        classes=("background", "cell"),
        ignore_index=None,
        limit_s=0.0,
    )
    assert found == Chosen(NOTHING, ())


@pytest.mark.parametrize("count", [0, 1])
def test_without_two_images_nothing_is_tried(count: int) -> None:
    assert chosen(lambda truth, _: truth, count=count) == Chosen(NOTHING, ())


def test_ignored_pixels_are_no_objects() -> None:
    found = chosen(lambda truth, seed: specks(truth, seed, 3), ignore_index=1)
    assert all(one.settings.smallest_object_px == 0 for one in found.tried)


def test_areas_of_objects_and_holes() -> None:
    labels = np.zeros((12, 12), np.uint8)
    labels[1:6, 1:6] = 1
    labels[2:4, 2:4] = 0  # a hole of 4
    labels[8, 8], labels[9, 9] = 2, 2  # one object by its corner
    labels[8, 1] = 255
    assert sorted(object_areas(labels, 255)) == [2, 21]
    assert hole_areas(labels) == [4]
    assert hole_areas(np.zeros((3, 3), np.uint8)) == []


def test_the_note_holds_all_that_was_tried() -> None:
    found = chosen(lambda truth, seed: specks(truth, seed, 3))
    note = found.note()
    assert len(note) == len(found.tried)
    assert {"smallest_object_px", "largest_hole_px", "difference", "interval"} <= set(note[0])
    assert SIZES_PX[0] == note[0]["smallest_object_px"]
