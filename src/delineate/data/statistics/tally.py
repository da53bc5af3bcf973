"""The figures of many images added up. All sums are of whole numbers, or in a fixed order."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar, cast

from delineate.data.dataset import DatasetInfo, Sample
from delineate.data.palette import is_background
from delineate.data.statistics.distributions import (
    area_histogram,
    distribution,
    equivalent_diameters,
    kept_area,
)
from delineate.data.statistics.intensity import RealValues, Region, Values, WholeValues
from delineate.data.statistics.measure import (
    THICKNESS_STEP_PX,
    Measured,
    MeasuredLabels,
    Objects,
)
from delineate.data.statistics.result import (
    NEAR_EMPTY_SHARE,
    BorderStatistics,
    ChannelStatistics,
    ClassStatistics,
    Distribution,
    ObjectsFrom,
    ObjectStatistics,
    PixelTypeStatistics,
    SizeCount,
    SplitStatistics,
)
from delineate.types import PixelType

_Pair = TypeVar("_Pair", tuple[int, int], tuple[int, str])


@dataclass
class _Class:
    """One class so far."""

    pixels: int = 0
    images: int = 0
    areas: Counter[int] = field(default_factory=Counter)
    area_sum: int = 0
    object_images: int = 0
    most_in_one_image: int = 0
    at_edge: int = 0
    ridge: Counter[int] = field(default_factory=Counter)

    def add_objects(self, objects: Objects) -> None:
        self.areas.update(kept_area(area) for area in objects.areas_px)
        self.area_sum += sum(objects.areas_px)
        self.object_images += 1
        self.most_in_one_image = max(self.most_in_one_image, len(objects.areas_px))
        self.at_edge += objects.at_edge

    def merge(self, other: _Class) -> None:
        self.pixels += other.pixels
        self.images += other.images
        self.areas += other.areas
        self.area_sum += other.area_sum
        self.object_images += other.object_images
        self.most_in_one_image = max(self.most_in_one_image, other.most_in_one_image)
        self.at_edge += other.at_edge
        self.ridge += other.ridge


@dataclass
class _Pixels:
    """Images of one pixel type so far."""

    images: int = 0
    values: dict[Region, Values] = field(default_factory=dict)

    def add(self, region: Region, values: Values) -> None:
        mine = self.values.get(region)
        if mine is None:
            # a copy, so that adding to it leaves what was added as it is
            self.values[region] = _copy(values)
        elif isinstance(mine, WholeValues):
            mine.add(cast(WholeValues, values))
        else:
            mine.add(cast(RealValues, values))

    def result(self, channels: int) -> tuple[ChannelStatistics, ...]:
        return tuple(
            values.channel(channel, region)
            for region, values in sorted(self.values.items())
            for channel in range(channels)
        )


class Tally:
    """The figures of one split so far."""

    def __init__(self, name: str, info: DatasetInfo) -> None:
        self._name = name
        self._info = info
        self._images = 0
        self._labelled = 0
        self._with_instances = 0
        self._ignored_pixels = 0
        self._ignored_objects = 0
        self._sizes: Counter[tuple[int, int]] = Counter()
        self._kinds: defaultdict[tuple[int, str], _Pixels] = defaultdict(_Pixels)
        self._classes: defaultdict[int, _Class] = defaultdict(_Class)
        self._borders: Counter[tuple[int, int]] = Counter()
        self._border_images: Counter[tuple[int, int]] = Counter()
        self._groups: Counter[str] = Counter()
        self._near_empty: list[str] = []

    def add(self, sample: Sample, measured: Measured) -> None:
        """Count one more image."""
        self._images += 1
        self._sizes[measured.hw] += 1
        kind = self._kinds[measured.channels, measured.dtype]
        kind.images += 1
        kind.add("all", measured.values)
        if measured.foreground is not None:
            kind.add("foreground", measured.foreground)
        if sample.group is not None:
            self._groups[sample.group] += 1
        if measured.labels is not None:
            self._add_labels(sample, measured.labels)

    def _add_labels(self, sample: Sample, labels: MeasuredLabels) -> None:
        self._labelled += 1
        self._with_instances += labels.from_instances
        self._ignored_objects += labels.objects_ignored
        counted = dict(labels.pixels)
        if self._info.ignore_index is not None:
            self._ignored_pixels += counted.pop(self._info.ignore_index, 0)
        for class_id, pixels in counted.items():
            self._classes[class_id].pixels += pixels
            self._classes[class_id].images += 1
        for class_id, objects in labels.objects.items():
            self._classes[class_id].add_objects(objects)
        for class_id, ridge in labels.ridges.items():
            self._classes[class_id].ridge.update(ridge)
        self._borders.update(labels.borders)
        self._border_images.update(labels.borders.keys())
        total = sum(counted.values())
        if max(counted.values(), default=0) >= NEAR_EMPTY_SHARE * total:
            self._near_empty.append(f"{self._name}/{sample.name}")

    def merge(self, other: Tally) -> None:
        """Count the images of ``other`` as well."""
        self._images += other._images
        self._labelled += other._labelled
        self._with_instances += other._with_instances
        self._ignored_pixels += other._ignored_pixels
        self._ignored_objects += other._ignored_objects
        self._sizes += other._sizes
        for kind, pixels in other._kinds.items():
            self._kinds[kind].images += pixels.images
            for region, values in pixels.values.items():
                self._kinds[kind].add(region, values)
        for class_id, found in other._classes.items():
            self._classes[class_id].merge(found)
        self._borders += other._borders
        self._border_images += other._border_images
        self._groups += other._groups
        self._near_empty += other._near_empty

    def result(self) -> SplitStatistics:
        """The figures."""
        labelled = sum(found.pixels for found in self._classes.values())
        masks = labelled + self._ignored_pixels
        heights: Counter[int] = Counter()
        widths: Counter[int] = Counter()
        for (height, width), images in self._sizes.items():
            heights[height] += images
            widths[width] += images
        return SplitStatistics(
            name=self._name,
            images=self._images,
            labelled_images=self._labelled,
            labelled_pixels=labelled,
            ignored_pixels=self._ignored_pixels,
            ignored_share=_share(self._ignored_pixels, masks),
            sizes=tuple(
                SizeCount(height, width, images)
                for (height, width), images in _most_first(self._sizes)
            ),
            height_px=distribution(heights),
            width_px=distribution(widths),
            pixel_types=self._pixel_types(),
            classes=tuple(
                self._class(class_id, name, labelled)
                for class_id, name in enumerate(self._info.classes)
            ),
            borders=tuple(
                BorderStatistics(*pair, self._borders[pair], self._border_images[pair])
                for pair in sorted(self._borders)
            ),
            objects_from=self._objects_from(),
            objects_ignored=self._ignored_objects,
            groups=None if self._info.groups is None else dict(sorted(self._groups.items())),
            near_empty=tuple(self._near_empty),
        )

    def _pixel_types(self) -> tuple[PixelTypeStatistics, ...]:
        counts = {kind: pixels.images for kind, pixels in self._kinds.items()}
        return tuple(
            PixelTypeStatistics(
                channels,
                cast(PixelType, dtype),
                images,
                self._kinds[channels, dtype].result(channels),
            )
            for (channels, dtype), images in _most_first(counts)
        )

    def _objects_from(self) -> ObjectsFrom | None:
        if not self._labelled:
            return None
        if self._with_instances == self._labelled:
            return "instances"
        return "both" if self._with_instances else "components"

    def _class(self, class_id: int, name: str, labelled: int) -> ClassStatistics:
        found = self._classes.get(class_id) or _Class()
        size_um = self._info.pixel_size_um
        return ClassStatistics(
            id=class_id,
            name=name,
            background=is_background(name),
            pixels=found.pixels,
            pixel_share=_share(found.pixels, labelled),
            images=found.images,
            image_share=_share(found.images, self._labelled),
            objects=_objects(found, size_um),
            thickness_px=_ridge(found, 1.0),
            thickness_um=None if size_um is None else _ridge(found, size_um),
        )


def _objects(found: _Class, size_um: float | None) -> ObjectStatistics | None:
    if not found.areas:
        return None
    mean = found.area_sum / found.areas.total()
    known = size_um is not None
    size = size_um or 1.0
    return ObjectStatistics(
        count=found.areas.total(),
        images=found.object_images,
        most_in_one_image=found.most_in_one_image,
        at_edge=found.at_edge,
        area_px=distribution(found.areas, mean=mean),
        area_um2=distribution(found.areas, size * size, mean) if known else None,
        equivalent_diameter_px=equivalent_diameters(found.areas),
        equivalent_diameter_um=equivalent_diameters(found.areas, size) if known else None,
        area_histogram_px=area_histogram(found.areas),
    )


def _ridge(found: _Class, pixel_size: float) -> Distribution | None:
    return distribution(found.ridge, THICKNESS_STEP_PX * pixel_size) if found.ridge else None


def _copy(values: Values) -> Values:
    if isinstance(values, WholeValues):
        return WholeValues(values.counts)
    return RealValues(values.moments, list(values.samples))


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _most_first(counts: Mapping[_Pair, int]) -> list[tuple[_Pair, int]]:
    return sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))
