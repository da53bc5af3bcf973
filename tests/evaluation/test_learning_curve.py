from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from delineate.errors import SettingsError
from delineate.evaluation.intervals import ImageCounts
from delineate.evaluation.learning_curve import (
    TRAINING_NOISE,
    difference,
    fit_learning_curve,
    miou,
)

IMAGES = (90, 180, 360)


def counts(error: float, *, n: int = 50, noise: float = 0.05) -> ImageCounts:
    """Images whose IoU lies around ``1 - error``; what is hard for one network is for all."""
    rng = np.random.default_rng(0)
    iou = np.clip(1 - error + rng.normal(0, noise, (n, 3)), 0.001, 1.0)
    true = np.full((n, 3), 100_000)
    found = np.round(2 * true * iou / (1 + iou)).astype(int)  # as many predicted as true
    return ImageCounts(
        ("a", "b", "c"),
        None,
        tuple(str(i) for i in range(n)),
        (None,) * n,
        np.stack([found, true, true], axis=1).astype(np.int64),
    )


def test_a_power_law_is_continued() -> None:
    errors = [3.0 * n**-0.5 for n in IMAGES]
    found = fit_learning_curve(IMAGES, [counts(e, noise=0.01) for e in errors])
    assert [m.value for m in found.measured] == pytest.approx([1 - e for e in errors], abs=0.005)
    truth = 1 - 3.0 * 720**-0.5
    assert found.doubled.low <= truth <= found.doubled.high + 0.005
    assert 0.02 < found.gain.value < 0.06
    assert found.images == IMAGES
    assert (found.sizes[0], found.sizes[-1]) == (90, 1440)


def test_no_gain_where_more_images_were_worse() -> None:
    found = fit_learning_curve(IMAGES, [counts(e) for e in (0.40, 0.42, 0.45)])
    assert (found.gain.value, found.gain.low) == (0.0, 0.0)
    assert found.gain.high < 0.01
    assert found.doubled.value == pytest.approx(0.55, abs=0.02)


def test_a_curve_that_levels_off_is_not_trusted() -> None:
    flat = fit_learning_curve(IMAGES, [counts(e) for e in (0.50, 0.42, 0.415)])
    steep = fit_learning_curve(IMAGES, [counts(e) for e in (0.60, 0.50, 0.415)])
    assert flat.gain.low < 0.01
    assert steep.gain.low > flat.gain.low
    assert steep.gain.value > flat.gain.value


@given(st.lists(st.floats(0.02, 0.98), min_size=3, max_size=3), st.integers(2, 30))
@settings(max_examples=15, deadline=None)
def test_whatever_was_measured_the_forecast_is_a_score(errors: list[float], n: int) -> None:
    found = fit_learning_curve((3, 7, 12), [counts(e, n=n) for e in errors])
    gain, doubled = found.gain, found.doubled
    assert 0 <= gain.low <= gain.value <= gain.high <= 1
    assert doubled.low <= doubled.value <= doubled.high <= 1
    values = [each.value for each in found.curve]
    assert all(b >= a - 1e-9 for a, b in pairwise(values))


def test_the_same_draws_the_same_answer() -> None:
    trained = [counts(e) for e in (0.5, 0.4, 0.35)]
    assert fit_learning_curve(IMAGES, trained) == fit_learning_curve(IMAGES, trained)


def test_a_difference_counts_the_luck_of_training() -> None:
    found = difference(counts(0.40), counts(0.37))
    assert found.value == pytest.approx(0.03, abs=0.002)
    # the images are the same, so nearly all that is left is the luck of two trainings
    width = 2 * 1.96 * 2**0.5 * TRAINING_NOISE
    assert found.high - found.low == pytest.approx(width, rel=0.15)


def test_miou_is_that_of_all_images() -> None:
    images = counts(0.3)
    total = images.counts.sum(axis=0)
    assert miou(images) == pytest.approx(float((total[0] / (2 * total[1] - total[0])).mean()))


def test_two_trainings_are_too_few() -> None:
    with pytest.raises(SettingsError) as caught:
        fit_learning_curve((5, 10), [counts(0.5), counts(0.4)])
    assert str(caught.value) == (
        "a learning curve cannot be fitted to 2 trainings and 50 scored images. "
        "Give 3 trainings and a val with labels."
    )
