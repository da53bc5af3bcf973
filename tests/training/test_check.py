from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from delineate.data.dataset import Sample
from delineate.errors import MaskError
from delineate.training import check


def samples(*names: str) -> list[Sample]:
    return [Sample(name, Path(f"{name}.png"), Path(f"{name}.png"), None) for name in names]


class Reader:
    def __init__(self, bad: str = "") -> None:
        self.read: list[str] = []
        self.bad = bad

    def __call__(self, item: Sample) -> tuple[np.ndarray, np.ndarray]:
        self.read.append(item.name)
        if item.name == self.bad:
            raise MaskError("has the id 7", where=item.image)
        return np.zeros((2, 3, 1), np.uint8), np.zeros((2, 3), np.uint8)


def test_all_are_read_once_and_those_for_training_kept() -> None:
    reader = Reader()
    train, val = samples("a", "b", "c"), samples("d", "e")
    cache = check.read_all(train, val, reader)
    assert sorted(reader.read) == ["a", "b", "c", "d", "e"]
    for sample in (*train, *val):
        cache(sample)
    assert sorted(reader.read[5:]) == ["d", "e"]


@pytest.mark.parametrize("bad", ["c", "e"])
def test_a_bad_sample_is_found(bad: str) -> None:
    with pytest.raises(MaskError) as caught:
        check.read_all(samples("a", "b", "c"), samples("d", "e"), Reader(bad))
    assert str(caught.value) == f"{bad}.png: has the id 7."


def test_progress_is_told_when_it_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[float] = []
    check.read_all(samples("a", "b", "c"), samples("d"), Reader(), told.append)
    assert told == []
    times = iter(range(0, 100, 2))
    monkeypatch.setattr(check, "time", SimpleNamespace(monotonic=lambda: next(times)))
    check.read_all(samples("a", "b", "c"), samples("d"), Reader(), told.append)
    assert told == [0.75, 1.0]
