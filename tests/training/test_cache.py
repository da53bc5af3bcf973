"""Decoded samples are kept up to a limit, and never changed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from delineate.data.dataset import Sample
from delineate.training.cache import SampleCache


def sample(name: str) -> Sample:
    return Sample(name, Path(f"{name}.png"), Path(f"{name}-mask.png"), None)


class Reader:
    def __init__(self) -> None:
        self.read: list[str] = []

    def __call__(self, item: Sample) -> tuple[np.ndarray, np.ndarray]:
        self.read.append(item.name)
        return np.full((2, 3, 1), len(self.read), np.uint8), np.zeros((2, 3), np.uint8)


def test_a_sample_that_fits_is_read_once() -> None:
    reader = Reader()
    cache = SampleCache(reader, limit_bytes=12)
    first, again = cache(sample("a")), cache(sample("a"))
    assert reader.read == ["a"]
    assert again[0] is first[0]
    assert again[1] is first[1]


def test_what_does_not_fit_is_read_every_time() -> None:
    reader = Reader()
    cache = SampleCache(reader, limit_bytes=23)  # a pair takes 12 bytes
    for name in ("a", "b", "a", "b"):
        cache(sample(name))
    assert reader.read == ["a", "b", "b"]


def test_kept_arrays_cannot_be_written() -> None:
    image, mask = SampleCache(Reader(), limit_bytes=100)(sample("a"))
    with pytest.raises(ValueError, match="read-only"):
        image[0, 0, 0] = 1
    with pytest.raises(ValueError, match="read-only"):
        mask[0, 0] = 1
