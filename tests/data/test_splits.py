from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from delineate.data.splits import split_names
from delineate.errors import DatasetError

NAMES = st.lists(st.text("abcde0123", min_size=1, max_size=5), min_size=2, max_size=40, unique=True)


@given(names=NAMES, fraction=st.floats(0.01, 0.99), seed=st.integers(0, 99), order=st.randoms())
def test_every_sample_is_on_one_side_whatever_the_order(
    names: list[str], fraction: float, seed: int, order: object
) -> None:
    train, val = split_names(names, fraction, seed, {})
    assert sorted((*train, *val)) == sorted(names)
    assert list(train) == sorted(train)
    assert list(val) == sorted(val)
    assert len(val) == min(max(round(fraction * len(names)), 1), len(names) - 1)
    shuffled = list(names)
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    assert split_names(shuffled, fraction, seed, {}) == (train, val)


@settings(max_examples=60)
@given(
    sizes=st.lists(st.integers(1, 6), min_size=2, max_size=7),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 9),
)
def test_groups_stay_whole_and_the_size_is_the_nearest_there_is(
    sizes: list[int], fraction: float, seed: int
) -> None:
    groups = {f"{g}_{i}": str(g) for g, size in enumerate(sizes) for i in range(size)}
    train, val = split_names(tuple(groups), fraction, seed, groups)
    assert not {groups[n] for n in train} & {groups[n] for n in val}
    target = min(max(round(fraction * len(groups)), 1), len(groups) - 1)
    possible = {sum(c) for k in range(1, len(sizes)) for c in combinations(sizes, k)}
    assert abs(len(val) - target) == min(abs(s - target) for s in possible)


def test_the_split_never_changes_between_versions() -> None:
    names = [f"{i:02}" for i in range(10)]
    assert split_names(names, 0.3, 0, {})[1] == ("01", "05", "08")
    assert split_names(names, 0.3, 1, {})[1] != ("01", "05", "08")


def test_another_seed_chooses_other_groups() -> None:
    groups: dict[str, str | None] = {f"{g}{i}": g for g in "abcdefgh" for i in range(4)}
    chosen = {split_names(tuple(groups), 0.25, seed, groups)[1] for seed in range(20)}
    assert len(chosen) > 5


def test_nothing_and_everything() -> None:
    assert split_names(["b", "a"], 0.0, 0, {}) == (("a", "b"), ())
    assert split_names(["b", "a"], 1.0, 0, {}) == ((), ("a", "b"))


def test_one_group_cannot_be_split() -> None:
    with pytest.raises(DatasetError) as caught:
        split_names(["a", "b"], 0.5, 0, {"a": "p1", "b": "p1"})
    assert str(caught.value) == (
        "there is only one group ('p1'), which cannot be split into train and val. "
        "Use --val-fraction 0, or give more data."
    )
    with pytest.raises(DatasetError, match="there is only one sample"):
        split_names(["a"], 0.5, 0, {})
