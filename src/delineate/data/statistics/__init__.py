"""What is in a dataset: sizes, classes, objects, thickness, intensity and neighbours."""

from delineate.data.statistics.describe import describe
from delineate.data.statistics.result import (
    BorderStatistics,
    ChannelStatistics,
    ClassStatistics,
    Distribution,
    Example,
    Histogram,
    ObjectStatistics,
    PixelTypeStatistics,
    SizeCount,
    SplitStatistics,
    Statistics,
)

__all__ = [
    "BorderStatistics",
    "ChannelStatistics",
    "ClassStatistics",
    "Distribution",
    "Example",
    "Histogram",
    "ObjectStatistics",
    "PixelTypeStatistics",
    "SizeCount",
    "SplitStatistics",
    "Statistics",
    "describe",
]
