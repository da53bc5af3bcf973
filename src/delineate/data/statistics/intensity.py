"""Pixel values counted over many images: the same for any order of work."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Int64, Shaped, UInt8

from delineate.data.statistics.distributions import percentiles, value_histogram
from delineate.data.statistics.result import ChannelStatistics, Histogram
from delineate.types import Image

SAMPLED_VALUES = 1 << 22
"""float32 values of a channel that are kept for percentiles, over all images together."""

Region: TypeAlias = Literal["all", "foreground"]

_BINS = 64
_PERCENTS = (0.5, 50.0, 99.5)
_LEAST_SAMPLED = 64
# calcHist counts in float32, which holds whole numbers up to 2**24
_BLOCK_PX = 1 << 24
_GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True)
class Moments:
    """Number, mean and sum of squared differences from it, merged as by Chan et al. (1983)."""

    count: int
    mean: float
    squares: float
    minimum: float
    maximum: float

    def merged(self, other: Moments) -> Moments:
        count = self.count + other.count
        step = other.mean - self.mean
        return Moments(
            count=count,
            mean=self.mean + step * other.count / count,
            squares=self.squares + other.squares + step**2 * self.count * other.count / count,
            minimum=min(self.minimum, other.minimum),
            maximum=max(self.maximum, other.maximum),
        )


@dataclass
class WholeValues:
    """How often each value of an unsigned integer type is there, for each channel."""

    counts: Int64[np.ndarray, "c v"]

    def add(self, other: WholeValues) -> None:
        self.counts = self.counts + other.counts

    def channel(self, index: int, region: Region) -> ChannelStatistics:
        """The figures of one channel; there is one pixel at least."""
        row = self.counts[index]
        counts = {int(value): int(row[value]) for value in np.flatnonzero(row)}
        count = sum(counts.values())
        total = sum(value * times for value, times in counts.items())
        squares = sum(value * value * times for value, times in counts.items())
        low, median, high = percentiles(counts, _PERCENTS)
        shown = (0, 255) if len(row) == 256 else (math.floor(low), math.ceil(high))
        return ChannelStatistics(
            channel=index,
            region=region,
            count=count,
            mean=total / count,
            std=math.sqrt((count * squares - total * total) / count**2),
            minimum=float(min(counts)),
            p00_5=low,
            median=median,
            p99_5=high,
            maximum=float(max(counts)),
            histogram=value_histogram(counts, *shown, _BINS),
        )


@dataclass
class RealValues:
    """Moments of float32 values, and an evenly spread sample of them, for each channel."""

    moments: tuple[Moments, ...]
    samples: list[Float32[np.ndarray, "c _"]] = field(default_factory=list)

    def add(self, other: RealValues) -> None:
        pairs = zip(self.moments, other.moments, strict=True)
        self.moments = tuple(mine.merged(theirs) for mine, theirs in pairs)
        self.samples.extend(other.samples)

    def channel(self, index: int, region: Region) -> ChannelStatistics:
        """The figures of one channel; there is one pixel at least."""
        moments = self.moments[index]
        sample = np.concatenate([part[index] for part in self.samples]).astype(np.float64)
        low, median, high = (float(value) for value in np.percentile(sample, _PERCENTS))
        inside = sample[(sample >= low) & (sample <= high)]
        bins = _BINS if high > low else 1
        counts, edges = np.histogram(inside, bins, (low, high))
        return ChannelStatistics(
            channel=index,
            region=region,
            count=moments.count,
            mean=moments.mean,
            std=math.sqrt(moments.squares / moments.count),
            minimum=moments.minimum,
            p00_5=low,
            median=median,
            p99_5=high,
            maximum=moments.maximum,
            histogram=Histogram(
                tuple(float(edge) for edge in edges), tuple(int(count) for count in counts)
            ),
        )


Values: TypeAlias = WholeValues | RealValues


def count_values(image: Image, mask: Bool[np.ndarray, "h w"] | None, sample: int) -> Values | None:
    """The values of ``image`` (H, W, C), or of those pixels that ``mask`` (H, W) marks.

    Args:
        image: uint8, uint16 or float32.
        mask: None for all pixels.
        sample: how many float32 values of a channel to keep.

    Returns:
        None where the mask marks no pixel.
    """
    if mask is not None and not mask.any():
        return None
    if image.dtype == np.float32:
        return _real_values(image, mask, sample)
    marked = None if mask is None else mask.view(np.uint8)
    rows = [_count_whole(image[:, :, c], marked) for c in range(image.shape[2])]
    return WholeValues(np.stack(rows))


def sample_size(images: int) -> int:
    """Values of a channel to keep from each of ``images`` images."""
    return max(_LEAST_SAMPLED, SAMPLED_VALUES // max(1, images))


def _count_whole(
    channel: Shaped[np.ndarray, "h w"], marked: UInt8[np.ndarray, "h w"] | None
) -> Int64[np.ndarray, " v"]:
    height, width = channel.shape
    values = 256 if channel.dtype == np.uint8 else 65536
    counts = np.zeros(values, np.int64)
    step = max(1, _BLOCK_PX // width)
    for top in range(0, height, step):
        block = np.ascontiguousarray(channel[top : top + step])
        part = None if marked is None else np.ascontiguousarray(marked[top : top + step])
        found = cv2.calcHist([block], [0], part, [values], [0, values])
        counts += found.reshape(-1).astype(np.int64)
    return counts


def _real_values(
    image: Float32[np.ndarray, "h w c"], mask: Bool[np.ndarray, "h w"] | None, sample: int
) -> RealValues:
    pixels = image.reshape(-1, image.shape[2]) if mask is None else image[mask]
    n = len(pixels)
    if n <= sample:
        chosen = np.arange(n)
    else:  # multiples of the golden ratio are spread evenly and follow no row or column
        chosen = (np.arange(sample) * _GOLDEN % 1.0 * n).astype(np.int64)
    return RealValues(
        tuple(_moments(pixels[:, c]) for c in range(pixels.shape[1])), [pixels[chosen].T.copy()]
    )


def _moments(values: Float32[np.ndarray, " n"]) -> Moments:
    mean = float(values.mean(dtype=np.float64))
    return Moments(
        count=len(values),
        mean=mean,
        squares=float(np.square(values - mean, dtype=np.float64).sum()),
        minimum=float(values.min()),
        maximum=float(values.max()),
    )
