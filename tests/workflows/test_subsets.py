from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from delineate.data.dataset import Dataset, Sample
from delineate.errors import DatasetError
from delineate.workflows.subsets import class_presence, divide, nested, pooled

ROOT = Path("data")


def samples_of(groups: list[str | None]) -> list[Sample]:
    return [
        Sample(f"s{i}", ROOT / f"train/images/s{i}.png", None, group)
        for i, group in enumerate(groups)
    ]


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[Sample], dict[Sample, frozenset[int]], int]:
    groups = draw(st.lists(st.sampled_from([None, "a", "b", "c", "d", "e"]), min_size=8))
    samples = samples_of(groups)
    held = st.frozensets(st.integers(0, 4))
    presence = {sample: draw(held) for sample in samples}
    units = len({g for g in groups if g is not None}) + groups.count(None)
    return samples, presence, draw(st.integers(2, max(2, min(5, units))))


@given(cases(), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_every_sample_is_in_one_part_and_groups_stay_whole(
    case: tuple[list[Sample], dict[Sample, frozenset[int]], int], seed: int
) -> None:
    samples, presence, parts = case
    try:
        found = divide(samples, parts, seed=seed, presence=presence, root=ROOT)
    except DatasetError:
        assert len({s.group for s in samples}) < parts
        return
    assert sorted((s for part in found for s in part), key=lambda s: s.name) == sorted(
        samples, key=lambda s: s.name
    )
    assert all(found)
    for one in found:
        for other in found:
            shared = {s.group for s in one} & {s.group for s in other}
            assert one is other or shared <= {None}
    assert found == divide(samples[::-1], parts, seed=seed, presence=presence, root=ROOT)


def test_a_rare_class_is_spread_evenly() -> None:
    samples = samples_of([None] * 50)
    presence = {s: frozenset({0, 1} if i < 5 else {0}) for i, s in enumerate(samples)}
    found = divide(samples, 5, seed=3, presence=presence, root=ROOT)
    assert [len(part) for part in found] == [10] * 5
    assert [sum(1 in presence[s] for s in part) for part in found] == [1] * 5


def test_another_seed_another_division() -> None:
    samples = samples_of([None] * 30)
    presence = {s: frozenset({0}) for s in samples}
    found = [divide(samples, 3, seed=seed, presence=presence, root=ROOT) for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]


def test_images_without_any_class() -> None:
    samples = samples_of([None] * 6)
    found = divide(samples, 3, seed=0, presence=dict.fromkeys(samples, frozenset()), root=ROOT)
    assert [len(part) for part in found] == [2, 2, 2]


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (["a", "a", "b"], "data: 5 parts need 5 groups, and there are 2. Use 2 or fewer."),
        ([None] * 3, "data: 5 parts need 5 images, and there are 3. Use 3 or fewer."),
        (["a", "a"], "data: 5 parts need 5 groups, and there are 1. Give more data."),
    ],
)
def test_too_few_groups(groups: list[str | None], message: str) -> None:
    samples = samples_of(groups)
    with pytest.raises(DatasetError) as caught:
        divide(samples, 5, seed=0, presence=dict.fromkeys(samples, frozenset()), root=ROOT)
    assert str(caught.value) == message


def test_the_quarter_is_in_the_half_and_has_the_rare_class() -> None:
    samples = samples_of([None] * 40)
    presence = {s: frozenset({0, 1} if i == 17 else {0}) for i, s in enumerate(samples)}
    quarter, half = nested(samples, seed=0, presence=presence, root=ROOT)
    assert (len(quarter), len(half)) == (10, 20)
    assert set(quarter) < set(half)
    assert samples[17] in quarter


def test_what_masks_hold(tmp_path: Path, make_dataset: Callable[..., Path]) -> None:
    data = Dataset.open(make_dataset(tmp_path / "data", ignore_index=255))
    found = class_presence(data.split("train"), 3)
    assert set(found) == set(data.split("train"))
    assert all(held == {0, 1, 2} for held in found.values())


def test_a_dataset_that_was_never_split(tmp_path: Path, make_dataset: Callable[..., Path]) -> None:
    data = Dataset.open(make_dataset(tmp_path / "data"))
    samples = data.split("train")
    found = pooled(Dataset(data.path, data.info, {"all": samples}))
    assert dict(found.splits) == {"train": samples[:-1], "val": samples[-1:]}
    whole = Dataset(data.path, data.info, {**data.splits, "test": samples})
    assert dict(pooled(whole).splits) == dict(data.splits)
