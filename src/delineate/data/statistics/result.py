"""The figures of a dataset, as frozen values that become JSON as they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from delineate.types import PixelType

ObjectsFrom = Literal["instances", "components", "both"]

NEAR_EMPTY_SHARE = 0.999
"""An image is near-empty when one class has this share of its labelled pixels or more."""


@dataclass(frozen=True)
class Histogram:
    """Counts between edges: ``counts[i]`` values lie in ``edges[i] <= value < edges[i + 1]``."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Distribution:
    """Percentiles of ``count`` values, between two of them interpolated as NumPy does."""

    count: int
    mean: float
    minimum: float
    p05: float
    p25: float
    median: float
    p75: float
    p95: float
    maximum: float


@dataclass(frozen=True)
class ObjectStatistics:
    """The objects of one class.

    Attributes:
        count: how many.
        images: images with one or more.
        most_in_one_image: the largest number in one image.
        at_edge: objects that touch the edge of their image, and may go on beyond it.
        area_px: pixels of an object. Areas from 65536 px on are rounded down to 11 binary digits
            (0.1 %), so that the memory has a bound; the mean is exact.
        area_um2: the same in square micrometres, where the pixel size is known.
        equivalent_diameter_px: diameter of the disc of the same area, ``2 sqrt(area / pi)``.
        equivalent_diameter_um: the same in micrometres.
        area_histogram_px: objects by area; the edges grow by the square root of two.
    """

    count: int
    images: int
    most_in_one_image: int
    at_edge: int
    area_px: Distribution
    area_um2: Distribution | None
    equivalent_diameter_px: Distribution
    equivalent_diameter_um: Distribution | None
    area_histogram_px: Histogram


@dataclass(frozen=True)
class ClassStatistics:
    """One class.

    Attributes:
        id: in the masks.
        name: of the class.
        background: whether its name says that it is everything that is nothing else; then it
            has no thickness, and objects only where instances lie on it.
        pixels: how many.
        pixel_share: of the labelled pixels that are not ignored, 0 to 1.
        images: labelled images with one or more of its pixels.
        image_share: of the labelled images, 0 to 1.
        objects: None where there are none.
        thickness_px: how thick its structures are at their ridge, see
            :func:`delineate.data.statistics.measure.ridge_thickness`; each value counts as often
            as the ridge has pixels of it. None where the class is absent or the background.
        thickness_um: the same in micrometres, where the pixel size is known.
    """

    id: int
    name: str
    background: bool
    pixels: int
    pixel_share: float
    images: int
    image_share: float
    objects: ObjectStatistics | None
    thickness_px: Distribution | None
    thickness_um: Distribution | None


@dataclass(frozen=True)
class ChannelStatistics:
    """Raw pixel values of one channel.

    Attributes:
        channel: from 0.
        region: ``all`` pixels, or ``foreground``: labelled, not ignored and no background.
        count: pixels.
        mean: exact for integers.
        std: of the pixels themselves (divided by ``count``).
        p00_5: the 0.5th percentile; exact for integers, of a sample for float32.
        median: as ``p00_5``.
        p99_5: as ``p00_5``.
        histogram: up to 64 bins of one width. uint8 over its whole range; others from ``p00_5``
            to ``p99_5``. Pixels, or sampled pixels for float32.
    """

    channel: int
    region: Literal["all", "foreground"]
    count: int
    mean: float
    std: float
    minimum: float
    p00_5: float
    median: float
    p99_5: float
    maximum: float
    histogram: Histogram


@dataclass(frozen=True)
class PixelTypeStatistics:
    """The images of one number of channels and one pixel type."""

    channels: int
    dtype: PixelType
    images: int
    intensity: tuple[ChannelStatistics, ...]


@dataclass(frozen=True)
class SizeCount:
    """Images of one size."""

    height_px: int
    width_px: int
    images: int


@dataclass(frozen=True)
class BorderStatistics:
    """Where two classes touch; ``first`` is below ``second``.

    Attributes:
        first: class id.
        second: class id.
        length_px: pairs of pixels, one above or beside the other, of these two classes.
        images: images with such a pair.
    """

    first: int
    second: int
    length_px: int
    images: int


@dataclass(frozen=True)
class Example:
    """An image that shows a class well: the split, the name of the sample, and the share."""

    class_id: int
    split: str
    sample: str
    pixel_share: float


@dataclass(frozen=True)
class SplitStatistics:
    """One split, or all of them together.

    Attributes:
        name: of the split.
        images: all.
        labelled_images: those with a mask.
        labelled_pixels: pixels of masks that are not ignored.
        ignored_pixels: pixels of masks that are.
        ignored_share: of the pixels of all masks, 0 to 1.
        sizes: distinct sizes, the most frequent first.
        pixel_types: the most frequent first.
        classes: by id; every class of the dataset.
        borders: pairs of classes that touch anywhere, by ids.
        objects_from: ``instances`` (ids beside the masks), ``components`` (8-connected pixels of
            one class) or ``both``; None without masks.
        objects_ignored: instances all of whose pixels are ignored; they count nowhere else.
        groups: images of each group, by name; None where the dataset has no groups.
        near_empty: SPLIT/NAME of labelled images of which one class has 99.9 % or more of the
            labelled pixels, or that have none.
    """

    name: str
    images: int
    labelled_images: int
    labelled_pixels: int
    ignored_pixels: int
    ignored_share: float
    sizes: tuple[SizeCount, ...]
    height_px: Distribution
    width_px: Distribution
    pixel_types: tuple[PixelTypeStatistics, ...]
    classes: tuple[ClassStatistics, ...]
    borders: tuple[BorderStatistics, ...]
    objects_from: ObjectsFrom | None
    objects_ignored: int
    groups: Mapping[str, int] | None
    near_empty: tuple[str, ...]


@dataclass(frozen=True)
class Statistics:
    """The figures of a dataset.

    Attributes:
        dataset: its folder.
        classes: names by id.
        ignore_index: the id of pixels that count nowhere.
        pixel_size_um: side of a pixel in micrometres, where known.
        splits: each split by itself, in the order of the dataset.
        whole: all splits together.
        examples: up to four images of each class that show it well, the best first.
    """

    dataset: str
    classes: tuple[str, ...]
    ignore_index: int | None
    pixel_size_um: float | None
    splits: tuple[SplitStatistics, ...]
    whole: SplitStatistics
    examples: tuple[Example, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)
