"""What GeoJSON files say before anything is painted: classes, and features that are no labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from delineate.data.formats.geojson_file import (
    LON_LAT,
    Area,
    Feature,
    GeoFile,
    Polygon,
    read_area,
    read_geojson,
)
from delineate.data.formats.georeference import Georeference, crs_label, to_pixels
from delineate.data.formats.naming import propose
from delineate.data.formats.settings import IGNORE_NAMES
from delineate.data.formats.source import Proposal
from delineate.errors import DatasetError, MaskError, SettingsError

CLASS_PROPERTIES = ("classification", "class", "class_name", "label", "category")
"""Where classes are looked for unless the user says it; the first that any feature has.

``name`` is not among them: in maps it names the one building or park."""

ONLY_CLASS = "object"
"""The class of all features where none of :data:`CLASS_PROPERTIES` is there."""

REGION = "Region*"
"""QuPath's class for areas that hold other annotations and are not filled themselves."""

_EMPTY = (b'""', b"null")
_LISTED = 12
_FEW_CENTRES = 16


@dataclass
class Survey:
    """What all the files together say.

    Attributes:
        wanted: the properties that may name classes, the first first.
        values: how many features have each class, by property.
        features: how many there are.
        properties: names of all that have a value, in order.
        notes: how many features are what.
        first: where the first of them is.
    """

    wanted: Sequence[str]
    values: dict[str, Counter[str]] = field(default_factory=dict)
    features: int = 0
    properties: dict[str, None] = field(default_factory=dict)
    notes: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)

    def look(self, path: Path, image: Path, raster: Georeference) -> None:
        """Look at every feature of a file once: what it names, and whether it lies on the raster.

        Raises:
            DatasetError: the file is damaged, or all its features lie outside of the raster.
            MaskError: a geometry is damaged.
        """
        file = read_geojson(path)
        if raster.transform is not None and raster.crs is None and not file.is_qupath:
            self._note("rasters that name no coordinate system; the GeoJSON's is taken", str(image))
        if raster.transform is None and not file.is_qupath:
            self._note("images without a georeference; coordinates are pixels", str(image))
        if not file.features:
            self._note("files without features; their images are all background", str(path))
        inside = False
        outside: list[list[Polygon]] = []
        for feature in file.features:
            self._look_at_properties(feature)
            area = read_area(feature)
            self._note_flaws(feature, area)
            if not area.polygons:
                continue
            pixels = in_pixels(area.polygons, file, raster, feature.where)
            if is_outside(pixels, raster.hw):
                self._note("features wholly outside of the raster, left out", feature.where)
                outside.append(area.polygons)
                continue
            inside = True
            if _misses_all_centres(pixels):
                self._note("features too small to hold the centre of a pixel", feature.where)
        if outside and not inside:
            raise _all_outside(path, image, file, raster, outside)

    def class_property(self, *, asked: bool) -> str | None:
        """The property that names classes, None where everything is one class.

        Args:
            asked: the user named the property.

        Raises:
            SettingsError: it was asked for and no feature has it.
        """
        for name in self.wanted:
            if name in self.values:
                return name
        if asked and self.features:
            raise SettingsError(
                f"no feature has the property {self.wanted[0]!r}; there are "
                f"{_some(self.properties)}",
                where="--class-property",
                mend="Name one of these, or leave it out: everything is one class then.",
            )
        return None

    def propose(self, chosen: str | None, sizes_um: Mapping[str, float | None]) -> Proposal:
        """Classes, the pixel size if all images have the same, and notes.

        Args:
            chosen: from :meth:`class_property`.
            sizes_um: pixel size of each image.
        """
        notes = []
        if chosen is None:
            proposal = propose([ONLY_CLASS])
            notes.append(
                f"every feature is of the class {ONLY_CLASS!r}, as none has a property that names "
                f"classes; --class-property takes one of: {_some(self.properties)}"
            )
        else:
            values = self.values[chosen].copy()
            without = self.features - values.total()
            regions = values.pop(REGION, 0)
            proposal = propose(sorted(values, key=_natural))
            notes.append(f"classes are from the property {chosen!r}")
            for count, what in ((without, f"without {chosen!r}"), (regions, f"of class {REGION}")):
                if count:
                    notes.append(f"{count} features {what}, left out")
        notes += [f"{n} {what} (first: {self.first[what]})" for what, n in self.notes.items()]
        notes.append("a pixel belongs to a polygon when its centre is inside")
        different = set(sizes_um.values())
        if len(different) > 1:
            notes.append("the pixel sizes of the images differ, so that none is stated")
        size = different.pop() if len(different) == 1 else None
        return replace(proposal, pixel_size_um=size, notes=tuple(notes))

    def _note(self, what: str, where: str) -> None:
        self.notes[what] += 1
        self.first.setdefault(what, where)

    def _look_at_properties(self, feature: Feature) -> None:
        self.features += 1
        for name, value in feature.properties.items():
            if bytes(value) not in _EMPTY:
                self.properties[name] = None
        for name in self.wanted:
            named = class_of(feature, name)
            if named is not None:
                self.values.setdefault(name, Counter())[named] += 1

    def _note_flaws(self, feature: Feature, area: Area) -> None:
        if area.elsewhere:
            self._note("features on other planes of the stack, left out", feature.where)
        elif not area.polygons and not area.others:
            self._note("features without a geometry, left out", feature.where)
        for kind in area.others:
            self._note(f"geometries of the type {kind}, which has no area, left out", feature.where)
        if area.unclosed:
            self._note("features with a ring that was not closed; it was closed", feature.where)
        if feature.has_nucleus:
            self._note("cells with an outline of the nucleus; the cell's is taken", feature.where)


def class_of(feature: Feature, name: str) -> str | None:
    """The class that the property ``name`` gives, None where it is absent or empty.

    QuPath's ``Ignore*`` becomes ``ignore``.

    Raises:
        MaskError: it is a list.
    """
    value = feature.value(name)
    if isinstance(value, dict):
        names = value.get("names")
        value = ": ".join(map(str, names)) if isinstance(names, list) else value.get("name")
    if value is None or value == "":
        return None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if not isinstance(value, str | int | float):
        raise MaskError(
            f"has a {type(value).__name__} as its {name}, which names no class",
            where=feature.where,
            mend="Name another property with --class-property.",
        )
    text = str(value)
    starred = text.endswith("*") and text.rstrip("*").lower() in IGNORE_NAMES
    return "ignore" if starred else text


def in_pixels(
    polygons: Sequence[Polygon], file: GeoFile, raster: Georeference, where: str
) -> list[Polygon]:
    """The polygons of a feature in pixels of the raster, (0, 0) the corner of the first.

    Raises:
        DatasetError: the file's coordinate system is unknown.
        MaskError: a point cannot be projected.
    """
    rings = [ring for polygon in polygons for ring in polygon]
    place = replace(raster, transform=None) if file.is_qupath else raster
    moved = to_pixels(np.concatenate(rings), file.crs or LON_LAT, place, where)
    parts = iter(np.split(moved, np.cumsum([len(ring) for ring in rings])[:-1]))
    return [[next(parts) for _ in polygon] for polygon in polygons]


def is_outside(polygons: Sequence[Polygon], hw: tuple[int, int]) -> bool:
    """Whether polygons in pixels lie beside an image of the height and width ``hw``."""
    low, high = _extent(polygons)
    return bool((high <= 0).any() or (low >= (hw[1], hw[0])).any())


def _extent(
    polygons: Sequence[Polygon],
) -> tuple[Float64[np.ndarray, " xy"], Float64[np.ndarray, " xy"]]:
    points = np.concatenate([ring for polygon in polygons for ring in polygon])
    return points.min(axis=0), points.max(axis=0)


def _misses_all_centres(polygons: Sequence[Polygon]) -> bool:
    """Whether no pixel's centre is inside; of larger shapes it is not asked."""
    low, high = _extent(polygons)
    first, last = np.ceil(low - 0.5), np.floor(high - 0.5)
    counts = last - first + 1
    if (counts < 1).any():
        return True
    if counts[0] * counts[1] > _FEW_CENTRES:
        return False
    x, y = (np.arange(a, b + 1) + 0.5 for a, b in zip(first, last, strict=True))
    return not any(_contains(polygon, a, b) for polygon in polygons for a in x for b in y)


def _contains(polygon: Polygon, x: float, y: float) -> bool:
    """Whether a ray to the right of the point crosses the rings an odd number of times."""
    crossings = 0
    for ring in polygon:
        start, end = ring[:-1], ring[1:]
        spans = (start[:, 1] <= y) != (end[:, 1] <= y)
        start, end = start[spans], end[spans]
        share = (y - start[:, 1]) / (end[:, 1] - start[:, 1])
        crossings += int((start[:, 0] + share * (end[:, 0] - start[:, 0]) > x).sum())
    return crossings % 2 == 1


def _all_outside(
    path: Path, image: Path, file: GeoFile, raster: Georeference, areas: list[list[Polygon]]
) -> DatasetError:
    points = np.concatenate(
        [ring for polygons in areas for polygon in polygons for ring in polygon]
    )
    low, high = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    in_pixels = file.is_qupath or raster.transform is None
    system = "pixels" if in_pixels else crs_label(file.crs or LON_LAT)
    place = replace(raster, transform=None, crs=None) if in_pixels else raster
    left, bottom, right, top = place.bounds()
    return DatasetError(
        f"all {len(areas)} features lie outside of {image.name}: they reach from "
        f"({low[0]:.8g}, {low[1]:.8g}) to ({high[0]:.8g}, {high[1]:.8g}) in {system}, and it from "
        f"({left:.8g}, {bottom:.8g}) to ({right:.8g}, {top:.8g}) in {crs_label(place.crs)}",
        where=path,
        mend="Give the raster that they were drawn on, or write the GeoJSON's true coordinate "
        "system into its crs member.",
    )


def _natural(name: str) -> tuple[bool, int, str]:
    """Numbers in their order, before words."""
    is_number = name.isdecimal() and len(name) < 10
    return not is_number, int(name) if is_number else 0, name


def _some(names: Iterable[str]) -> str:
    found = list(names)
    return (", ".join(found[:_LISTED]) or "none") + (", ..." if len(found) > _LISTED else "")
