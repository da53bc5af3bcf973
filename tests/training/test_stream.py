from __future__ import annotations

import threading
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from delineate.data.dataset import Sample
from delineate.errors import ImageError
from delineate.training.stream import AHEAD, SampleStream


def samples(n: int) -> list[Sample]:
    return [Sample(str(i), Path(f"{i}.png"), None, None) for i in range(n)]


def read(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    """An image and a mask that tell the number of their sample."""
    return np.full((4, 5, 2), int(sample.name), np.uint8), np.full(
        (4, 5), int(sample.name), np.uint8
    )


def prepare(
    image: np.ndarray, mask: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Channel 1 tells what was drawn."""
    image = image.copy()
    image[..., 1] = rng.integers(256)
    return image, mask


def stream(n: int = 7, batch_size: int = 2, seed: int = 0, reader: Callable = read) -> SampleStream:
    return SampleStream(samples(n), reader, prepare, batch_size, seed)


def numbers(batch: tuple[np.ndarray, np.ndarray]) -> list[int]:
    return [int(mask[0, 0]) for mask in batch[1]]


def readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "samples"]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**40), st.integers(0, 500), st.integers(1, 9), st.integers(1, 5))
def test_a_batch_depends_on_seed_and_step_alone(seed: int, step: int, n: int, batch: int) -> None:
    used = stream(n, batch, seed)
    for earlier in range(3):
        used.batch(earlier)
    for a, b in zip(used.batch(step), stream(n, batch, seed).batch(step), strict=True):
        assert np.array_equal(a, b)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**40), st.integers(0, 20), st.integers(1, 12))
def test_an_epoch_is_a_permutation(seed: int, epoch: int, n: int) -> None:
    found = [numbers(stream(n, 1, seed).batch(epoch * n + i))[0] for i in range(n)]
    assert sorted(found) == list(range(n))


def test_epochs_and_seeds_differ() -> None:
    whole = stream(30, 30)
    orders = [numbers(whole.batch(epoch)) for epoch in range(3)]
    orders.append(numbers(stream(30, 30, seed=1).batch(0)))
    assert len({tuple(order) for order in orders}) == 4
    drawn = [whole.batch(epoch)[0][:, 0, 0, 1].tolist() for epoch in range(3)]
    assert drawn[0] != drawn[1] != drawn[2]


def test_a_batch_may_lie_on_two_epochs() -> None:
    found = [n for step in range(7) for n in numbers(stream(7, 2).batch(step))]
    assert sorted(found[:7]) == sorted(found[7:]) == list(range(7))


def test_batches_are_those_of_their_steps() -> None:
    ahead = stream().batches(5)
    for step, found in zip(range(5, 15), ahead, strict=False):
        for a, b in zip(found, stream().batch(step), strict=True):
            assert np.array_equal(a, b)
    ahead.close()
    assert readers() == []


def test_shapes_and_types_are_those_of_the_samples() -> None:
    images, masks = stream().batch(0)
    assert (images.shape, images.dtype) == ((2, 4, 5, 2), np.uint8)
    assert (masks.shape, masks.dtype) == ((2, 4, 5), np.uint8)


def test_an_error_while_reading_reaches_the_consumer() -> None:
    def broken(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
        if sample.name == "3":
            raise ImageError("is truncated", where=sample.image)
        return read(sample)

    ahead = stream(reader=broken).batches(0)
    order = [numbers(stream(batch_size=1).batch(i))[0] for i in range(7)]
    for _ in range(order.index(3) // 2):
        next(ahead)
    with pytest.raises(ImageError, match=r"^3\.png: is truncated\.$"):
        next(ahead)
    assert readers() == []


def test_no_thread_is_left_when_the_consumer_stops_or_fails() -> None:
    ahead = stream().batches(0)
    next(ahead)
    assert len(readers()) == 1
    ahead.close()
    assert readers() == []

    def consume() -> None:
        batches = stream().batches(0)
        try:
            next(batches)
            raise ValueError
        finally:
            batches.close()

    with pytest.raises(ValueError, match=r"^$"):
        consume()
    assert readers() == []


def test_only_a_few_batches_are_read_ahead() -> None:
    count = 0

    def counting(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
        nonlocal count
        count += 1
        return read(sample)

    ahead = stream(batch_size=1, reader=counting).batches(0)
    list(islice(ahead, 3))
    for _ in range(200):  # until the thread has nothing more to do
        if count >= 3 + AHEAD + 1:
            break
        time.sleep(0.01)
    time.sleep(0.05)
    assert count == 3 + AHEAD + 1  # those that wait, and one in the thread's hands
    ahead.close()
