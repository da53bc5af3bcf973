from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from delineate.data.parallel import AHEAD, ordered_map


def test_results_come_in_the_order_of_the_items() -> None:
    def slow_first(number: int) -> int:
        time.sleep(0.02 if number % 3 == 0 else 0)
        return number * number

    assert list(ordered_map(slow_first, range(40), 4)) == [n * n for n in range(40)]


def test_items_are_taken_as_results_are_used() -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for taken in range(1, 1001):  # noqa: UP028
            yield taken

    before = set(threading.enumerate())
    results = ordered_map(lambda number: number, items(), 2)
    assert next(results) == 1
    assert taken == 2 * AHEAD
    results.close()
    assert taken == 2 * AHEAD
    assert set(threading.enumerate()) <= before


def test_an_error_ends_it() -> None:
    def fail(number: int) -> int:
        if number == 5:
            raise ValueError("five")
        return number

    results = ordered_map(fail, range(10**9), 2)
    with pytest.raises(ValueError, match="five"):
        list(results)
