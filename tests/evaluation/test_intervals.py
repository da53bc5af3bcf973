from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from delineate.errors import SettingsError
from delineate.evaluation.comparison import Comparison, compare_models
from delineate.evaluation.confusion import Confusion
from delineate.evaluation.intervals import (
    ImageCounts,
    ImageCountsTally,
    bootstrap,
    interval_of,
    resample,
)
from delineate.evaluation.scores import Scores, compute_scores

CLASSES = ("sky", "road", "sign")


def counts_of(
    confusions: list[Confusion], groups: list[str] | None = None, ignore_index: int | None = None
) -> ImageCounts:
    tally = ImageCountsTally(CLASSES, ignore_index)
    for i, confusion in enumerate(confusions):
        tally.update(f"im{i}", None if groups is None else groups[i], confusion)
    return tally.result()


def random_confusions(seed: int, n: int, wrong: float = 0.3) -> list[Confusion]:
    rng, found = np.random.default_rng(seed), []
    for _ in range(n):
        truth = rng.integers(0, 3, (8, 8)).astype(np.uint8)
        other = rng.integers(0, 3, (8, 8)).astype(np.uint8)
        confusion = Confusion(CLASSES)
        confusion.update(truth, np.where(rng.random((8, 8)) < wrong, other, truth))
        found.append(confusion)
    return found


def merged(confusions: list[Confusion]) -> Confusion:
    together = Confusion(CLASSES)
    for confusion in confusions:
        together.merge(confusion)
    return together


def total(confusions: list[Confusion]) -> Scores:
    return compute_scores(merged(confusions))


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000), st.integers(2, 9))
def test_a_draw_is_the_score_of_the_images_drawn(seed: int, n: int) -> None:
    confusions = random_confusions(seed, n)
    found = resample(counts_of(confusions).units(), None, 5, seed)
    weights = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), 5)
    for row, times in enumerate(weights):
        drawn = [c for c, t in zip(confusions, times, strict=True) for _ in range(t)]
        scores = total(drawn)
        assert found.mean_iou[row] == pytest.approx(scores.mean_iou)
        assert found.mean_dice[row] == pytest.approx(scores.mean_dice)
        assert found.iou[row] == pytest.approx(scores.iou)


def test_intervals_hold_the_score_and_shrink_with_the_images() -> None:
    few, many = random_confusions(0, 8), random_confusions(0, 80)
    widths = []
    for confusions in (few, many):
        found, scores = bootstrap(counts_of(confusions)), total(confusions)
        assert found is not None
        assert found.mean_iou[0] < scores.mean_iou < found.mean_iou[1]
        assert found.mean_dice[0] < scores.mean_dice < found.mean_dice[1]
        assert all(low < s < high for (low, high), s in zip(found.iou, scores.iou, strict=True))
        widths.append(found.mean_iou[1] - found.mean_iou[0])
    assert widths[1] < 0.6 * widths[0]
    assert bootstrap(counts_of(few)) == bootstrap(counts_of(few))
    assert bootstrap(counts_of(few)) != bootstrap(counts_of(few), seed=1)


def test_the_interval_is_about_the_normal_one() -> None:
    confusions = random_confusions(1, 100)
    found = bootstrap(counts_of(confusions))
    assert found is not None
    each = np.array([total([c]).mean_iou for c in confusions])
    expected = 2 * 1.96 * each.std() / 10  # every image has as many pixels
    assert found.mean_iou[1] - found.mean_iou[0] == pytest.approx(expected, rel=0.25)


def test_groups_are_drawn_whole() -> None:
    confusions = random_confusions(2, 6)
    grouped = counts_of(confusions, ["b", "a", "b", "a", "c", "c"])
    assert (grouped.unit, len(grouped.units())) == ("groups", 3)
    pairs = [merged([confusions[i], confusions[j]]) for i, j in ((1, 3), (0, 2), (4, 5))]
    found, expected = bootstrap(grouped), bootstrap(counts_of(pairs))
    assert found is not None
    assert expected is not None
    assert (found.mean_iou, found.unit, found.units) == (expected.mean_iou, "groups", 3)


def test_images_without_a_counted_pixel_are_not_drawn() -> None:
    empty = Confusion(CLASSES)
    confusions = random_confusions(3, 5)
    with_empty = bootstrap(counts_of([*confusions, empty]))
    assert with_empty == bootstrap(counts_of(confusions))
    assert bootstrap(counts_of([confusions[0], empty])) is None


def test_classes_that_are_not_there() -> None:
    confusions = []
    for seed in range(4):
        truth = np.random.default_rng(seed).integers(0, 2, (8, 8)).astype(np.uint8)
        confusion = Confusion(CLASSES, 1)
        confusion.update(truth, np.zeros((8, 8), np.uint8))
        confusions.append(confusion)
    found = bootstrap(counts_of(confusions, ignore_index=1))
    assert found is not None
    assert found.iou[0] == found.mean_iou == (1.0, 1.0)
    assert all(math.isnan(bound) for bound in (*found.iou[1], *found.iou[2]))
    assert found.to_dict()["iou"] == [[1.0, 1.0], None, None]


def test_an_interval_of_nothing() -> None:
    assert all(math.isnan(bound) for bound in interval_of(np.full(5, np.nan)))
    assert interval_of(np.array([np.nan, 0.5])) == (0.5, 0.5)


def compared(a: list[Confusion], b: list[Confusion]) -> Comparison:
    return compare_models(("old", "new"), (total(a), total(b)), (counts_of(a), counts_of(b)))


def test_a_clear_difference() -> None:
    # the same seed draws the same truth, so that the two are paired
    a, b = random_confusions(4, 30, wrong=0.4), random_confusions(4, 30, wrong=0.2)
    found = compared(a, b)
    low, high = found.mean_iou.interval
    assert found.mean_iou.value == total(b).mean_iou - total(a).mean_iou > 0
    assert 0 < low < found.mean_iou.value < high
    assert (found.mean_iou.share_better, found.mean_iou.clear) == (1.0, True)
    points = 100 * found.mean_iou.value
    assert found.verdict() == (
        f"new is better by {points:.1f} points of mean IoU, 95 % interval "
        f"{100 * low:.1f} to {100 * high:.1f}"
    )
    back = compared(b, a)
    assert back.verdict().startswith(f"old is better by {points:.1f} points of mean IoU, 95 % ")
    assert back.mean_iou.interval == pytest.approx((-high, -low))
    assert found.to_dict()["scores_b"] == total(b).to_dict()


def test_no_difference() -> None:
    a = random_confusions(5, 10)
    found = compared(a, a)
    assert found.mean_iou.interval == (0.0, 0.0)
    assert found.mean_iou.share_better == 0.0
    assert found.verdict() == "old and new have the same mean IoU"


def test_a_difference_that_is_not_clear() -> None:
    a = random_confusions(9, 12)
    b = [*random_confusions(9, 6, wrong=0.2), *random_confusions(9, 12, wrong=0.39)[6:]]
    found = compared(a, b)
    low, high = sorted(
        abs(found.mean_iou.value) / found.mean_iou.value * 100 * bound
        for bound in found.mean_iou.interval
    )
    assert low < 0 < high
    assert not found.mean_iou.clear
    assert found.verdict() == (
        f"{'new' if found.mean_iou.value > 0 else 'old'} is better by "
        f"{100 * abs(found.mean_iou.value):.1f} points of mean IoU, 95 % interval {low:.1f} to "
        f"{high:.1f}: these images do not show which is better"
    )


def test_other_truth_is_refused() -> None:
    with pytest.raises(SettingsError) as caught:
        compared(random_confusions(6, 5), random_confusions(7, 5))
    assert str(caught.value) == (
        "old and new were not scored on the same truth. Evaluate both on the same split, with "
        "the same classes and the same --map."
    )


def test_one_image_is_refused() -> None:
    one = random_confusions(8, 1)
    with pytest.raises(SettingsError) as caught:
        compared(one, one)
    assert str(caught.value) == (
        "there are 1 images with a score, and a comparison needs 2. Name a split with more "
        "images, or more groups."
    )
