"""Percentiles and histograms from counted values: exact, and the same in any order."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping

import numpy as np

from delineate.data.statistics.result import Distribution, Histogram

_EXACT_BITS = 16
_KEPT_BITS = 11


def kept_area(area_px: int) -> int:
    """``area_px``, from 65536 on rounded down to 11 binary digits."""
    shift = area_px.bit_length() - _KEPT_BITS
    return area_px if area_px.bit_length() <= _EXACT_BITS else area_px >> shift << shift


def percentiles(counts: Mapping[int, int], percents: tuple[float, ...]) -> list[float]:
    """Percentiles of whole numbers that are given with how often each is there.

    As ``numpy.percentile`` with its default, linear, method.

    Args:
        counts: how often each value is there; one value at least.
        percents: 0 to 100.
    """
    values = np.array(sorted(counts), np.int64)
    ends = np.cumsum([counts[int(value)] for value in values], dtype=np.int64)
    last = int(ends[-1]) - 1
    found = []
    for percent in percents:
        position = last * (percent / 100)
        below = math.floor(position)
        low, high = (
            float(values[np.searchsorted(ends, index, side="right")])
            for index in (below, min(below + 1, last))
        )
        found.append(low + (high - low) * (position - below))
    return found


def distribution(
    counts: Mapping[int, int], unit: float = 1.0, mean: float | None = None
) -> Distribution:
    """The distribution of counted whole numbers, each times ``unit``.

    Args:
        counts: how often each value is there; one value at least.
        unit: what 1 stands for.
        mean: of the values before they were rounded, where they were.
    """
    count = sum(counts.values())
    if mean is None:
        mean = sum(value * times for value, times in counts.items()) / count
    minimum, p05, p25, median, p75, p95, maximum = (
        value * unit for value in percentiles(counts, (0.0, 5.0, 25.0, 50.0, 75.0, 95.0, 100.0))
    )
    return Distribution(
        count=count,
        mean=mean * unit,
        minimum=minimum,
        p05=p05,
        p25=p25,
        median=median,
        p75=p75,
        p95=p95,
        maximum=maximum,
    )


def equivalent_diameters(areas: Mapping[int, int], pixel_size: float = 1.0) -> Distribution:
    """Diameters ``2 sqrt(area / pi)`` of discs of these areas, times ``pixel_size``.

    A percentile is the diameter of the percentile of the areas.
    """

    def diameter(area: float) -> float:
        return 2.0 * math.sqrt(area / math.pi) * pixel_size

    mean = sum(diameter(float(area)) * areas[area] for area in sorted(areas)) / sum(areas.values())
    return _changed(distribution(areas), diameter, mean)


def _changed(found: Distribution, change: Callable[[float], float], mean: float) -> Distribution:
    return Distribution(
        count=found.count,
        mean=mean,
        minimum=change(found.minimum),
        p05=change(found.p05),
        p25=change(found.p25),
        median=change(found.median),
        p75=change(found.p75),
        p95=change(found.p95),
        maximum=change(found.maximum),
    )


def area_histogram(areas: Mapping[int, int]) -> Histogram:
    """Areas in bins whose edges grow by the square root of two: 1, 2, 3, 4, 6, 8, 12, 16, ...

    The first bin holds the smallest area and the last the largest.
    """
    smallest, largest = min(areas), max(areas)
    # 2 ** 0.5 and 2 both become 2; 2 ** (k / 2) is rounded up so that bins hold whole numbers
    steps = range(2 * largest.bit_length() + 2)
    edges = sorted({math.isqrt(2**k - 1) + 1 for k in steps})
    first = max(i for i, edge in enumerate(edges) if edge <= smallest)
    last = min(i for i, edge in enumerate(edges) if edge > largest)
    edges = edges[first : last + 1]
    counts = [0] * (len(edges) - 1)
    for area, times in areas.items():
        counts[bisect_right(edges, area) - 1] += times
    return Histogram(tuple(map(float, edges)), tuple(counts))


def value_histogram(counts: Mapping[int, int], low: int, high: int, bins: int) -> Histogram:
    """Whole values from ``low`` to ``high`` in up to ``bins`` bins of one whole width.

    Values outside are left out.
    """
    width = max(1, math.ceil((high - low + 1) / bins))
    n = math.ceil((high - low + 1) / width)
    found = [0] * n
    for value, times in counts.items():
        if low <= value <= high:
            found[(value - low) // width] += times
    return Histogram(tuple(float(low + i * width) for i in range(n + 1)), tuple(found))
