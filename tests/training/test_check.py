from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from delineate.data.dataset import Sample
from delineate.errors import MaskError
from delineate.training import check

CLASSES = ("sky", "road", "car")


def samples(*names: str) -> list[Sample]:
    return [Sample(name, Path(f"{name}.png"), Path(f"{name}.png"), None) for name in names]


class Reader:
    """Masks of one class each: a and c are sky, b road, d and e car."""

    def __init__(self, bad: str = "") -> None:
        self.read: list[str] = []
        self.bad = bad

    def __call__(self, item: Sample) -> tuple[np.ndarray, np.ndarray]:
        self.read.append(item.name)
        if item.name == self.bad:
            raise MaskError("has the id 7", where=item.image)
        class_id = {"a": 0, "b": 1, "c": 0}.get(item.name, 2)
        mask = np.full((2, 3), class_id, np.uint8)
        mask[0, 0] = 255
        return np.zeros((2, 3, 1), np.uint8), mask


def read_all(train: list[Sample], val: list[Sample], reader: Reader, **options: Any) -> Any:
    return check.read_all(train, val, reader, classes=CLASSES, ignore_index=255, **options)


def test_all_are_read_once_and_those_for_training_kept() -> None:
    reader = Reader()
    train, val = samples("a", "b", "c"), samples("d", "e")
    found = read_all(train, val, reader)
    assert sorted(reader.read) == ["a", "b", "c", "d", "e"]
    for sample in (*train, *val):
        found.cache(sample)
    assert sorted(reader.read[5:]) == ["d", "e"]


def test_classes_are_counted_in_what_is_trained_on() -> None:
    index = read_all(samples("a", "b", "c"), samples("d", "e"), Reader()).index
    assert index.shares == pytest.approx((2 / 3, 1 / 3, 0))
    assert index.empty == ("car",)
    drawn = {index.draw(np.random.default_rng(seed)) for seed in range(50)}
    assert {(sample.name, class_id) for sample, class_id in drawn} == {("a", 0), ("b", 1), ("c", 0)}


@pytest.mark.parametrize("bad", ["c", "e"])
def test_a_bad_sample_is_found(bad: str) -> None:
    with pytest.raises(MaskError) as caught:
        read_all(samples("a", "b", "c"), samples("d", "e"), Reader(bad))
    assert str(caught.value) == f"{bad}.png: has the id 7."


def test_progress_is_told_when_it_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[float] = []
    read_all(samples("a", "b", "c"), samples("d"), Reader(), watch=told.append)
    assert told == []
    times = iter(range(0, 100, 2))
    monkeypatch.setattr(check, "time", SimpleNamespace(monotonic=lambda: next(times)))
    read_all(samples("a", "b", "c"), samples("d"), Reader(), watch=told.append)
    assert told == [0.75, 1.0]
