from __future__ import annotations

import threading
import time
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from delineate.data.dataset import Sample
from delineate.errors import ImageError
from delineate.training.stream import AHEAD, Batch, Choice, SampleStream, default_workers


def samples(n: int) -> list[Sample]:
    return [Sample(str(i), Path(f"{i}.png"), None, None) for i in range(n)]


def make_crop(
    sample: Sample, rng: np.random.Generator, class_id: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """A crop that tells its sample, its class (0 for none) and what was drawn."""
    told = [int(sample.name), rng.integers(256), class_id or 0]
    image = np.broadcast_to(np.array(told, np.uint8), (4, 5, 3)).copy()
    return image, np.full((4, 5), int(sample.name), np.uint8)


def stream(n: int = 7, batch_size: int = 2, seed: int = 0, **options: Any) -> SampleStream:
    maker = options.pop("make_crop", make_crop)
    return SampleStream(samples(n), maker, batch_size, seed, **options)


def numbers(batch: Batch) -> list[int]:
    assert batch.names == tuple(str(n) for n in batch.masks[:, 0, 0])
    return [int(name) for name in batch.names]


def same(a: Batch, b: Batch) -> bool:
    return (
        np.array_equal(a.images, b.images)
        and np.array_equal(a.masks, b.masks)
        and a.names == b.names
    )


def readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("samples")]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**40), st.integers(0, 500), st.integers(1, 9), st.integers(1, 5))
def test_a_batch_depends_on_seed_and_step_alone(seed: int, step: int, n: int, batch: int) -> None:
    used = stream(n, batch, seed)
    for earlier in range(3):
        used.batch(earlier)
    assert same(used.batch(step), stream(n, batch, seed).batch(step))


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
    drawn = [whole.batch(epoch).images[:, 0, 0, 1].tolist() for epoch in range(3)]
    assert drawn[0] != drawn[1] != drawn[2]


def test_a_batch_may_lie_on_two_epochs() -> None:
    found = [n for step in range(7) for n in numbers(stream(7, 2).batch(step))]
    assert sorted(found[:7]) == sorted(found[7:]) == list(range(7))


def choose(turn: Sample, rng: np.random.Generator) -> Choice:
    """Every other crop is of sample 3 and class 2."""
    return Choice(samples(4)[3], 2) if rng.random() < 0.5 else Choice(turn)


def test_what_was_chosen_is_cropped() -> None:
    batch = stream(7, 70, choose=choose).batch(0)
    asked = batch.images[:, 0, 0, 2] == 2
    assert 20 < asked.sum() < 50
    names = np.array(numbers(batch))
    assert set(names[asked]) == {3}
    assert len(set(names[~asked])) > 3


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**40),
    step=st.integers(0, 50),
    n=st.integers(1, 9),
    world=st.integers(1, 4),
    each=st.integers(1, 3),
)
def test_the_parts_of_all_processes_are_the_batch_of_one(
    seed: int, step: int, n: int, world: int, each: int
) -> None:
    whole = stream(n, world * each, seed, choose=choose).batch(step)
    parts = [
        stream(n, world * each, seed, choose=choose, rank=rank, world=world).batch(step)
        for rank in range(world)
    ]
    joined = Batch(
        np.concatenate([part.images for part in parts]),
        np.concatenate([part.masks for part in parts]),
        tuple(name for part in parts for name in part.names),
    )
    assert same(whole, joined)


def scaling_of(sample: Sample) -> np.ndarray:
    return np.full((2, 3), int(sample.name), np.float32)


def test_each_crop_has_the_scaling_of_its_own_image() -> None:
    batch = stream(7, 70, choose=choose, scaling_of=scaling_of).batch(0)
    assert batch.scalings is not None
    assert batch.scalings.shape == (70, 2, 3)
    assert batch.scalings[:, 1, 2].tolist() == numbers(batch)
    parts = [batch.part(slice(start, start + 30)) for start in range(0, 70, 30)]
    for part in parts:
        assert part.scalings is not None
        assert part.scalings[:, 0, 0].tolist() == numbers(part)
    joined = parts[0].joined(parts[1]).joined(parts[2])
    assert same(joined, batch)
    assert joined.scalings is not None
    np.testing.assert_array_equal(joined.scalings, batch.scalings)
    assert stream(7, 2).batch(0).scalings is None


@pytest.mark.parametrize("workers", [1, 3])
def test_batches_are_those_of_their_steps_whatever_the_threads(workers: int) -> None:
    def slow_at_times(
        sample: Sample, rng: np.random.Generator, class_id: int | None
    ) -> tuple[np.ndarray, np.ndarray]:
        time.sleep(0.002 * (int(sample.name) % 3))
        return make_crop(sample, rng, class_id)

    ahead = stream(workers=workers, make_crop=slow_at_times).batches(5)
    for step, found in zip(range(5, 25), ahead, strict=False):
        assert same(found, stream().batch(step))
    ahead.close()
    assert readers() == []


def test_shapes_and_types_are_those_of_the_samples() -> None:
    batch = stream().batch(0)
    assert (batch.images.shape, batch.images.dtype) == ((2, 4, 5, 3), np.uint8)
    assert (batch.masks.shape, batch.masks.dtype) == ((2, 4, 5), np.uint8)


@pytest.mark.parametrize("workers", [1, 3])
def test_an_error_while_reading_reaches_the_consumer(workers: int) -> None:
    def broken(
        sample: Sample, rng: np.random.Generator, class_id: int | None
    ) -> tuple[np.ndarray, np.ndarray]:
        if sample.name == "3":
            raise ImageError("is truncated", where=sample.image)
        return make_crop(sample, rng, class_id)

    ahead = stream(make_crop=broken, workers=workers).batches(0)
    order = [numbers(stream(batch_size=1).batch(i))[0] for i in range(7)]
    for _ in range(order.index(3) // 2):
        next(ahead)
    with pytest.raises(ImageError, match=r"^3\.png: is truncated\.$"):
        next(ahead)
    assert readers() == []


def test_no_thread_is_left_when_the_consumer_stops_or_fails() -> None:
    ahead = stream(workers=2).batches(0)
    next(ahead)
    assert 1 <= len(readers()) <= 2
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


@pytest.mark.parametrize("workers", [1, 2])
def test_only_a_few_batches_are_read_ahead(workers: int) -> None:
    count = 0
    lock = threading.Lock()

    def counting(
        sample: Sample, rng: np.random.Generator, class_id: int | None
    ) -> tuple[np.ndarray, np.ndarray]:
        nonlocal count
        with lock:
            count += 1
        return make_crop(sample, rng, class_id)

    ahead = stream(batch_size=1, make_crop=counting, workers=workers).batches(0)
    list(islice(ahead, 3))
    for _ in range(200):  # until the threads have nothing more to do
        if count >= 3 + AHEAD + workers:
            break
        time.sleep(0.01)
    time.sleep(0.05)
    assert count == 3 + AHEAD + workers
    ahead.close()


@pytest.mark.parametrize(
    ("cores", "accelerator", "processes", "expected"),
    [
        (2, False, 1, 1),
        (2, True, 1, 1),
        (1, True, 1, 1),
        (8, True, 1, 4),
        (16, True, 1, 8),
        (128, True, 1, 8),
        (16, True, 4, 2),
        (16, False, 1, 2),
        (2, False, 2, 1),
        (4, True, 8, 1),
    ],
)
def test_default_workers(cores: int, accelerator: bool, processes: int, expected: int) -> None:
    assert default_workers(cores, accelerator=accelerator, processes=processes) == expected
