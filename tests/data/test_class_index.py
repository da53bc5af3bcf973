from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from delineate.data import class_index
from delineate.data.class_index import ClassIndex, count_classes
from delineate.data.dataset import Sample

CLASSES = ("sky", "road", "car", "train")


def sample(name: str) -> Sample:
    return Sample(name, Path(f"{name}.png"), Path(f"{name}.png"), None)


def index_of(masks: dict[str, np.ndarray], ignore_index: int | None = 255) -> ClassIndex:
    counts = {sample(n): count_classes(m, len(CLASSES), ignore_index) for n, m in masks.items()}
    return ClassIndex(CLASSES, counts, ignore_index)


@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    strip_px=st.integers(1, 400),
    ignore=st.sampled_from([None, 255, 0]),
    wide=st.booleans(),
    seed=st.integers(0, 1000),
)
@settings(max_examples=60, deadline=None)
def test_counts_are_those_of_the_mask_and_pixels_are_found(
    height: int, width: int, strip_px: int, ignore: int | None, wide: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    ids = [0, 1, 3] + ([] if ignore is None else [ignore])
    mask = rng.choice(ids, (height, width)).astype(np.uint16 if wide else np.uint8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(class_index, "STRIP_PX", strip_px)
        counts = count_classes(mask, 4, ignore)
    expected = {int(i): int((mask == i).sum()) for i in np.unique(mask) if i != ignore}
    assert dict(zip(counts.classes, counts.pixels.sum(axis=0).tolist(), strict=True)) == expected
    one = sample("a")
    index = ClassIndex(CLASSES, {one: counts}, ignore)
    for class_id in counts.classes:
        for _ in range(5):
            assert mask[index.pixel(one, mask, class_id, rng)] == class_id


def test_every_pixel_of_a_class_is_as_likely(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(class_index, "STRIP_PX", 6)  # strips of two rows
    mask = np.zeros((7, 3), np.uint8)
    mask[0, 0] = mask[3] = mask[6, 2] = 2
    index = index_of({"a": mask})
    rng = np.random.default_rng(0)
    drawn = [index.pixel(sample("a"), mask, 2, rng) for _ in range(2000)]
    places = {(0, 0), (3, 0), (3, 1), (3, 2), (6, 2)}
    assert set(drawn) == places
    for place in places:
        assert drawn.count(place) / 2000 == pytest.approx(0.2, abs=0.04)


def test_classes_and_samples_are_drawn_evenly() -> None:
    masks = {name: np.zeros((20, 20), np.uint8) for name in "abcd"}
    masks["c"][0, 0] = 2  # a single pixel
    masks["c"][1, 1:5] = 255
    masks["d"][:] = 1
    index = index_of(masks)
    rng = np.random.default_rng(0)
    drawn = [index.draw(rng) for _ in range(3000)]
    for class_id in (0, 1, 2):
        share = np.mean([found == class_id for _, found in drawn])
        assert share == pytest.approx(1 / 3, abs=0.04)
    of_sky = [one.name for one, class_id in drawn if class_id == 0]
    assert sorted(set(of_sky)) == ["a", "b", "c"]
    assert of_sky.count("c") / len(of_sky) == pytest.approx(1 / 3, abs=0.06)
    assert {one.name for one, class_id in drawn if class_id == 2} == {"c"}


def test_shares_and_empty_classes() -> None:
    mask = np.array([[0, 0, 2], [0, 255, 255]], np.uint8)
    index = index_of({"a": mask})
    assert index.shares == (0.75, 0.0, 0.25, 0.0)
    assert index.present == (0, 2)
    assert index.empty == ("road", "train")
    nothing = index_of({"a": np.full((2, 2), 255, np.uint8)})
    assert nothing.present == ()
    assert nothing.shares == (0.0, 0.0, 0.0, 0.0)


def test_a_class_that_is_the_ignore_index_is_neither_present_nor_missed() -> None:
    index = index_of({"a": np.array([[0, 1, 2, 3]], np.uint8)}, ignore_index=0)
    assert index.present == (1, 2, 3)
    assert index.empty == ()
