"""Work on many samples at once, results in order, few of them waiting."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Given = TypeVar("Given")
Result = TypeVar("Result")

AHEAD = 4  # results that may wait for each thread


def ordered_map(
    function: Callable[[Given], Result], items: Iterable[Given], workers: int | None = None
) -> Generator[Result, None, None]:
    """``map`` in threads: results in the order of ``items``, at most ``AHEAD`` a thread waiting.

    Unlike ``ThreadPoolExecutor.map`` it takes items as it goes, so 100,000 of them cost nothing,
    and stops taking them when the caller stops or a call raises.

    Args:
        workers: threads; as many as processors when left out.
    """
    threads = workers or os.cpu_count() or 1
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) >= AHEAD * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
