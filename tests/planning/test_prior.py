from __future__ import annotations

from collections.abc import Callable

import pytest

from delineate.config import ModelSettings
from delineate.planning.candidates import FAMILIES, candidate
from delineate.planning.fingerprint import Fingerprint
from delineate.planning.prior import Trained, expected, measured

Make = Callable[..., Fingerprint]
FAST = candidate(ModelSettings(architecture="fast-scnn"))
HALF = candidate(ModelSettings.model_validate({"architecture": "fast-scnn", "downscale": 2}))


def row(crops: float, miou: float, *, dataset: str = "a", ceiling: float = 1.0) -> Trained:
    return Trained(
        model=FAST.model,
        dataset=dataset,
        ceiling=ceiling,
        crops=float(crops),
        miou=miou,
        steps=1,
        commit="none",
    )


def miou(crops: float, fingerprint: Fingerprint, *rows: Trained) -> float:
    found = expected(FAST, float(crops), fingerprint, rows)
    assert found is not None
    return found.miou


def test_between_two_trainings_the_logarithm_of_the_crops_counts(make_fingerprint: Make) -> None:
    rows = row(100, 0.4), row(10000, 0.6)
    assert miou(100, make_fingerprint(), *rows) == pytest.approx(0.4)
    assert miou(1000, make_fingerprint(), *rows) == pytest.approx(0.5)
    assert miou(10000, make_fingerprint(), *rows) == pytest.approx(0.6)


def test_past_the_longest_it_grows_at_half_the_slope(make_fingerprint: Make) -> None:
    rows = row(100, 0.4), row(1000, 0.5)
    assert miou(10000, make_fingerprint(), *rows) == pytest.approx(0.55)
    assert miou(10, make_fingerprint(), *rows) == pytest.approx(0.3)
    assert miou(1e30, make_fingerprint(), *rows) == 0.97
    assert miou(1e-9, make_fingerprint(), *rows) >= 0


def test_the_ceiling_of_the_labels_at_hand_replaces_that_of_the_table(
    make_fingerprint: Make,
) -> None:
    thin = make_fingerprint(ceilings=(1.0, 0.9, 0.8, 0.5, 0.2, 0.1))
    assert miou(100, thin, row(100, 0.4, ceiling=0.8)) == pytest.approx(0.5 * 0.5)
    at_half = expected(HALF, 100.0, thin, [row(100, 0.4, ceiling=0.8)])
    assert at_half is not None
    assert at_half.miou == pytest.approx(0.5 * 0.2)
    assert at_half.source == "1 training on 1 dataset at another input scale"


def test_datasets_count_alike(make_fingerprint: Make) -> None:
    rows = row(100, 0.2), row(1000, 0.2), row(100, 0.6, dataset="b")
    assert miou(500, make_fingerprint(), *rows) == pytest.approx(0.4)


def test_networks_are_compared_on_datasets_that_all_have_seen(make_fingerprint: Make) -> None:
    other = candidate(ModelSettings(architecture="pan"))
    also = row(100, 0.8).model_copy(update={"model": other.model})
    rows = row(100, 0.4), row(100, 0.9, dataset="easy"), also
    assert miou(100, make_fingerprint(), *rows) == pytest.approx(0.4)


def test_nothing_is_known_of_other_networks(make_fingerprint: Make) -> None:
    other = candidate(ModelSettings(architecture="pan"))
    assert expected(other, 100.0, make_fingerprint(), [row(100, 0.5)]) is None


def test_the_table_on_disk(make_fingerprint: Make) -> None:
    families = {candidate(family).model.model_copy(update={"downscale": 1}) for family in FAMILIES}
    assert measured()
    for item in measured():
        assert 0 < item.miou <= item.ceiling <= 1
        assert item.model.model_copy(update={"downscale": 1}) in families
        found = expected(candidate(item.model), item.crops, make_fingerprint())
        assert found is not None
        assert 0 < found.miou < 1
