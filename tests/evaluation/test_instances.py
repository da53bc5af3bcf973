from __future__ import annotations

import math

import numpy as np
import pytest

from delineate.evaluation.instances import InstanceScores, InstanceTally, connected_objects

CLASSES = ("background", "cell", "fibre")


def scored(
    truth: np.ndarray, ids: np.ndarray, labels: np.ndarray, ignore_index: int | None = 255
) -> InstanceScores:
    tally = InstanceTally(CLASSES, ignore_index)
    tally.update(truth, ids, labels)
    found = tally.scores()
    assert found is not None
    return found


def picture(*boxes: tuple[int, int, int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Masks and ids of boxes (top, left, bottom, right, class) on 20 x 20 pixels."""
    truth, ids = np.zeros((20, 20), np.uint8), np.zeros((20, 20), np.uint16)
    for number, (top, left, bottom, right, class_id) in enumerate(boxes, 1):
        truth[top:bottom, left:right] = class_id
        ids[top:bottom, left:right] = 100 * number
    return truth, ids


def test_objects_are_8_connected_regions_of_one_class() -> None:
    labels = np.array([[1, 0, 2], [0, 1, 2], [2, 0, 0]], np.uint8)
    found = connected_objects(labels)
    assert found.class_of.tolist() == [-1, 0, 1, 2, 2]
    assert found.ids[0, 0] == found.ids[1, 1] == 2
    assert found.ids[0, 2] == found.ids[1, 2] != found.ids[2, 0]
    assert found.ids.min() == 1


def test_perfect_objects() -> None:
    truth, ids = picture((0, 0, 5, 5, 1), (10, 10, 15, 15, 1), (0, 10, 5, 18, 2))
    found = scored(truth, ids, truth)
    assert found.scored == (1, 2)
    assert found.pq[1:] == found.ap[1:] == found.ap50[1:] == (1.0, 1.0)
    assert math.isnan(found.pq[0])
    assert (found.true_objects, found.images) == ((0, 2, 1), 1)
    assert found.mean(found.pq) == 1.0


def test_two_that_touch_are_one_in_a_label_map() -> None:
    truth, ids = picture((0, 0, 10, 5, 1), (0, 5, 10, 10, 1))
    found = scored(truth, ids, truth)
    # IoU of either with the whole is 0.5, which is not above 0.5
    assert (found.pq[1], found.ap50[1]) == (0.0, 0.0)
    assert math.isnan(found.sq[1])


def test_a_match_counts_up_to_its_iou() -> None:
    truth, ids = picture((0, 0, 10, 10, 1))
    labels = truth.copy()
    labels[:, 8:] = 0  # IoU 0.8
    found = scored(truth, ids, labels)
    assert (found.sq[1], found.rq[1], found.pq[1]) == pytest.approx((0.8, 1, 0.8))
    assert found.ap50[1] == 1
    assert found.ap[1] == pytest.approx(0.6)  # above 0.5, 0.55, ... 0.75 but not above 0.8


def test_another_class_is_no_match() -> None:
    truth, ids = picture((0, 0, 10, 10, 1), (12, 12, 18, 18, 2))
    labels = truth.copy()
    labels[:10, :10] = 2
    found = scored(truth, ids, labels)
    assert found.pq[1] == 0
    assert found.rq[2] == pytest.approx(2 / 3)  # one found, one too many


def test_ignored_pixels_are_void() -> None:
    truth, ids = picture((0, 0, 10, 10, 1))
    truth[:, 7:] = 255
    labels = np.zeros_like(truth)
    labels[0:10, 0:10] = 1  # the rest of it lies on void
    labels[15:20, 12:20] = 1  # all on void
    found = scored(truth, ids, labels)
    assert (found.pq[1], found.ap[1]) == (1.0, 1.0)
    assert found.predicted_objects[1] == 1


def test_a_crowd_excuses_predictions_of_its_class() -> None:
    truth, ids = picture((0, 0, 5, 5, 1))
    truth[10:18, 10:18] = 1  # without an id
    assert scored(truth, ids, truth).pq[1] == 1.0
    labels = truth.copy()
    labels[10:18, 10:18] = 2
    other = scored(truth, ids, labels)
    assert (other.pq[1], other.scored) == (1.0, (1,))


def test_an_object_has_the_class_of_most_of_its_pixels() -> None:
    truth, ids = picture((0, 0, 10, 10, 1))
    truth[0, :10] = 2
    found = scored(truth, ids, truth)
    assert (found.true_objects, found.scored) == ((0, 1, 0), (1,))
    assert found.sq[1] == pytest.approx(0.9)


def test_nothing_to_score() -> None:
    tally = InstanceTally(CLASSES, None)
    assert tally.scores() is None
    tally.update(np.ones((4, 4), np.uint8), np.zeros((4, 4), np.uint16), np.ones((4, 4), np.uint8))
    assert tally.scores() is None


def test_as_json() -> None:
    truth, ids = picture((0, 0, 5, 5, 2))
    document = scored(truth, ids, np.zeros_like(truth)).to_dict()
    assert document == {
        "definition": "objects are 8-connected regions; ap as in the 2018 Data Science Bowl",
        "images": 1,
        "mean_pq": 0.0,
        "mean_sq": None,
        "mean_rq": 0.0,
        "mean_ap50": 0.0,
        "mean_ap": 0.0,
        "classes": [
            {
                "id": 2,
                "name": "fibre",
                "pq": 0.0,
                "sq": None,
                "rq": 0.0,
                "ap50": 0.0,
                "ap": 0.0,
                "true_objects": 1,
                "predicted_objects": 0,
            }
        ],
    }
