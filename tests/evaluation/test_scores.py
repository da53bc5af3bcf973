from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import accuracy_score, jaccard_score, precision_recall_fscore_support
from torchmetrics.functional.classification import multiclass_jaccard_index
from torchmetrics.functional.segmentation import dice_score

from delineate.evaluation import scores as s
from delineate.evaluation.confusion import Confusion, confusion_of
from delineate.evaluation.scores import compute_scores

NAMES = tuple("abcdefgh")
counts_of_4 = arrays(np.int64, (4, 4), elements=st.integers(0, 1000))


def confusion_from(counts: np.ndarray, ignore_index: int | None = None) -> Confusion:
    confusion = Confusion(NAMES[: len(counts)], ignore_index)
    confusion.counts += counts
    return confusion


def random_maps(seed: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Truth and prediction; some classes may be absent from either or both."""
    rng = np.random.default_rng(seed)
    used = rng.permutation(k)[: rng.integers(1, k + 1)]
    truth = rng.choice(used, (16, 17)).astype(np.uint8)
    labels = np.where(rng.random(truth.shape) < 0.7, truth, rng.choice(used)).astype(np.uint8)
    return truth, labels


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize("ignore", [None, 255])
def test_agrees_with_scikit_learn(seed: int, ignore: int | None) -> None:
    k = 6
    truth, labels = random_maps(seed, k)
    if ignore is not None:
        truth[:3] = ignore
    ours = compute_scores(confusion_of(truth, labels, NAMES[:k], ignore))
    counted = truth != ignore if ignore is not None else np.full(truth.shape, True)
    y, p = truth[counted], labels[counted]
    # scikit-learn can say "undefined" as nan too
    precision, recall, f1, support = precision_recall_fscore_support(
        y, p, labels=range(k), zero_division=np.nan
    )
    present = np.array([(y == c).any() or (p == c).any() for c in range(k)])
    jaccard = jaccard_score(y, p, labels=range(k), average=None, zero_division=0)
    np.testing.assert_allclose(ours.precision, precision)
    np.testing.assert_allclose(ours.recall, recall)
    np.testing.assert_allclose(ours.dice, f1)
    np.testing.assert_allclose(ours.iou, np.where(present, jaccard, np.nan))
    np.testing.assert_allclose(ours.true_share, support / support.sum())
    assert ours.pixel_accuracy == pytest.approx(accuracy_score(y, p))
    assert ours.mean_iou == pytest.approx(jaccard[present].mean())
    assert ours.frequency_weighted_iou == pytest.approx(
        jaccard_score(y, p, labels=range(k), average="weighted", zero_division=0)
    )


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize("ignore", [None, 0, 255])
def test_agrees_with_torchmetrics(seed: int, ignore: int | None) -> None:
    k = 5
    truth, labels = random_maps(seed, k)
    if ignore == 255:
        truth[-4:] = ignore
    if ignore == 0:
        truth[0, 0] = 1  # nothing counted at all is 0 there and undefined here
    ours = compute_scores(confusion_of(truth, labels, NAMES[:k], ignore))
    theirs = multiclass_jaccard_index(
        torch.from_numpy(labels.astype(np.int64)),
        torch.from_numpy(truth.astype(np.int64)),
        num_classes=k,
        average="macro",
        ignore_index=ignore,
    )
    # An ignored class is out of their mean as well, and predicting it misses the true class.
    assert ours.mean_iou == pytest.approx(float(theirs), abs=1e-6)


@pytest.mark.parametrize("seed", range(10))
def test_dice_agrees_with_torchmetrics_where_all_classes_are_there(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 4, (1, 40, 40)).astype(np.uint8)
    labels = rng.integers(0, 4, (1, 40, 40)).astype(np.uint8)
    ours = compute_scores(confusion_of(truth[0], labels[0], NAMES[:4]))
    theirs = dice_score(
        torch.from_numpy(labels.astype(np.int64)),
        torch.from_numpy(truth.astype(np.int64)),
        num_classes=4,
        average="macro",
        input_format="index",
    )
    assert ours.mean_dice == pytest.approx(float(theirs.mean()), abs=1e-6)


def test_an_example_by_hand() -> None:
    # class a: 3 found, 1 missed, 2 falsely claimed; class b: 4 found, 2 missed, 1 claimed
    scores = compute_scores(confusion_from(np.array([[3, 1], [2, 4]])))
    assert scores.iou == (3 / 6, 4 / 7)
    assert scores.dice == (6 / 9, 8 / 11)
    assert scores.precision == (3 / 5, 4 / 5)
    assert scores.recall == (3 / 4, 4 / 6)
    assert scores.true_share == (0.4, 0.6)
    assert scores.pixel_accuracy == 0.7
    assert scores.mean_iou == pytest.approx((3 / 6 + 4 / 7) / 2)
    assert scores.frequency_weighted_iou == pytest.approx(0.4 * 3 / 6 + 0.6 * 4 / 7)
    assert (scores.foreground_iou, scores.foreground_dice) == (4 / 7, 8 / 11)
    assert scores.pixels == 10


def test_an_absent_class_counts_neither_for_nor_against() -> None:
    two = compute_scores(confusion_from(np.array([[3, 1], [2, 4]])))
    three = compute_scores(confusion_from(np.array([[3, 1, 0], [2, 4, 0], [0, 0, 0]])))
    assert three.mean_iou == two.mean_iou
    assert three.mean_dice == two.mean_dice
    assert three.frequency_weighted_iou == pytest.approx(two.frequency_weighted_iou)
    assert all(math.isnan(v[2]) for v in (three.iou, three.dice, three.precision, three.recall))


def test_a_class_that_is_only_predicted_scores_zero() -> None:
    scores = compute_scores(confusion_from(np.array([[3, 1], [0, 0]])))
    assert (scores.iou[1], scores.dice[1], scores.precision[1]) == (0.0, 0.0, 0.0)
    assert math.isnan(scores.recall[1])
    assert scores.mean_iou == 0.375


def test_a_class_that_is_never_predicted_has_no_precision() -> None:
    scores = compute_scores(confusion_from(np.array([[3, 0], [1, 0]])))
    assert (scores.iou[1], scores.recall[1]) == (0.0, 0.0)
    assert math.isnan(scores.precision[1])


def test_an_ignored_class_has_no_scores_and_leaves_the_means() -> None:
    truth, labels = np.uint8([[0, 0, 1, 1, 2, 2]]), np.uint8([[1, 2, 1, 0, 2, 2]])
    scores = compute_scores(confusion_of(truth, labels, NAMES[:3], 0))
    assert math.isnan(scores.iou[0])
    assert scores.iou[1:] == (0.5, 1.0)
    assert scores.mean_iou == 0.75
    assert scores.pixel_accuracy == 0.75
    assert scores.pixels == 4


def test_nothing_counted_is_undefined_and_none_in_json() -> None:
    scores = compute_scores(Confusion(("a", "b"), 255))
    assert math.isnan(scores.mean_iou)
    document = scores.to_dict()
    nothing = {"iou": None, "dice": None, "precision": None, "recall": None, "true_share": None}
    assert document == {
        "mean_iou": None,
        "mean_dice": None,
        "pixel_accuracy": None,
        "frequency_weighted_iou": None,
        "pixels": 0,
        "foreground": {"class": "b", "iou": None, "dice": None},
        "classes": [{"id": 0, "name": "a", **nothing}, {"id": 1, "name": "b", **nothing}],
    }
    assert "NaN" not in json.dumps(document, allow_nan=False)


def test_foreground_is_for_two_classes() -> None:
    scores = compute_scores(confusion_from(np.eye(3, dtype=np.int64)))
    assert math.isnan(scores.foreground_iou)
    assert "foreground" not in scores.to_dict()


@given(counts_of_4)
def test_scores_are_shares(counts: np.ndarray) -> None:
    for values in (s.iou(counts), s.dice(counts), s.precision(counts), s.recall(counts)):
        defined = values[~np.isnan(values)]
        assert ((defined >= 0) & (defined <= 1)).all()


@given(counts_of_4)
def test_dice_follows_from_iou(counts: np.ndarray) -> None:
    j = s.iou(counts)
    np.testing.assert_allclose(s.dice(counts), 2 * j / (1 + j))


@given(counts_of_4, st.permutations(range(4)))
def test_permuting_classes_permutes_scores(counts: np.ndarray, order: list[int]) -> None:
    plain = compute_scores(confusion_from(counts))
    permuted = compute_scores(confusion_from(counts[np.ix_(order, order)]))
    for name in ("iou", "dice", "precision", "recall", "true_share"):
        before = np.array(getattr(plain, name))
        np.testing.assert_array_equal(before[order], np.array(getattr(permuted, name)))
    for name in ("mean_iou", "mean_dice", "pixel_accuracy", "frequency_weighted_iou"):
        assert getattr(permuted, name) == pytest.approx(getattr(plain, name), nan_ok=True)


@given(arrays(np.uint8, (7, 9), elements=st.integers(0, 5)))
def test_a_perfect_prediction_scores_one(truth: np.ndarray) -> None:
    scores = compute_scores(confusion_of(truth, truth, NAMES[:6]))
    assert scores.mean_iou == scores.mean_dice == scores.pixel_accuracy == 1.0
    assert scores.frequency_weighted_iou == pytest.approx(1.0)
    assert {v for v in scores.iou if not math.isnan(v)} == {1.0}


@given(arrays(np.uint8, (7, 9), elements=st.integers(0, 2)))
def test_what_is_predicted_where_the_truth_is_ignored_does_not_matter(labels: np.ndarray) -> None:
    truth = np.full((7, 9), 255, np.uint8)
    truth[:, :4] = np.arange(7)[:, None] % 3
    other = labels.copy()
    other[:, 4:] = 0
    a = confusion_of(truth, labels, NAMES[:3], 255)
    b = confusion_of(truth, other, NAMES[:3], 255)
    assert np.array_equal(a.counts, b.counts)


def test_large_counts_do_not_overflow() -> None:
    counts = np.full((2, 2), 2**60, np.int64)
    assert s.pixel_accuracy(counts // 2) == 0.5
    np.testing.assert_allclose(s.dice(counts // 2), [0.5, 0.5])
