"""A GeoJSON file -> features with checked polygons (RFC 7946, the older ``crs``, QuPath's)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import numpy as np
from jaxtyping import Float64

from delineate.data.formats.pairing import decode_json
from delineate.errors import DatasetError, MaskError

LARGEST_BYTES = 2**31
"""The largest file that is read; a larger one is refused."""

LON_LAT = "OGC:CRS84"
"""What RFC 7946 measures in: WGS 84, degrees, longitude first."""

Ring: TypeAlias = Float64[np.ndarray, "_ 2"]
Polygon: TypeAlias = list[Ring]
"""The outline, then the holes."""

_HEAD_BYTES = 2**16
_TYPE = re.compile(rb'"type"\s*:\s*"(FeatureCollection|Feature)"')
_BOM = b"\xef\xbb\xbf"
_GEOMETRIES = frozenset(
    {
        "Point",
        "MultiPoint",
        "LineString",
        "MultiLineString",
        "Polygon",
        "MultiPolygon",
        "GeometryCollection",
    }
)
_MEND = "Draw the polygon again, or delete the feature."
_NULL = msgspec.Raw(b"null")


class _Feature(msgspec.Struct):
    id: str | int | float | None = None
    geometry: msgspec.Raw = _NULL
    properties: dict[str, msgspec.Raw] | None = None
    nucleus: msgspec.Raw = msgspec.field(default=_NULL, name="nucleusGeometry")


class _Document(msgspec.Struct):
    type: str
    features: list[_Feature] | None = None
    crs: Any = None


class _Plane(msgspec.Struct):
    z: int = 0
    t: int = 0


class _Geometry(msgspec.Struct):
    type: str
    coordinates: msgspec.Raw = _NULL
    geometries: list[_Geometry] | None = None
    plane: _Plane | None = None


@dataclass(frozen=True)
class Feature:
    """One feature, its polygons not yet read.

    Attributes:
        where: the file, the place in it from 0, and the id if there is one.
        properties: the JSON of each.
        has_nucleus: a cell of QuPath whose nucleus is outlined as well.
    """

    where: str
    properties: dict[str, msgspec.Raw]
    geometry: msgspec.Raw
    has_nucleus: bool

    def value(self, name: str) -> Any:
        """A property, None where there is none.

        Raises:
            DatasetError: it is no JSON.
        """
        if name not in self.properties:
            return None
        return decode_json(bytes(self.properties[name]), Any, self.where)


@dataclass(frozen=True)
class GeoFile:
    """A GeoJSON file.

    Attributes:
        crs: what its ``crs`` member names, None without one.
        is_qupath: it was written by QuPath, so that coordinates are pixels.
    """

    features: Sequence[Feature]
    crs: str | None
    is_qupath: bool


@dataclass(frozen=True)
class Area:
    """What a feature covers.

    Attributes:
        polygons: in the coordinates of the file; rings are closed.
        others: types of its parts that have no area.
        unclosed: how many rings had to be closed.
        elsewhere: it lies on another plane (depth or time) of a stack than the first.
    """

    polygons: list[Polygon]
    others: list[str]
    unclosed: int
    elsewhere: bool


def is_geojson(path: Path) -> bool:
    """Whether the first 64 KiB of a file say that it holds GeoJSON features."""
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES).removeprefix(_BOM).lstrip()
    except OSError:
        return False
    return head[:1] in (b"{", b"[") and _TYPE.search(head) is not None


def read_geojson(path: Path) -> GeoFile:
    """Read a collection, one feature, one geometry, or QuPath's plain list of features.

    Raises:
        DatasetError: not there, over :data:`LARGEST_BYTES`, no JSON, no GeoJSON, an unknown
            kind of ``crs``.
    """
    data = _read(path)
    if data.lstrip()[:1] == b"[":
        return _finish(decode_json(data, list[_Feature], path), None, path)
    document = decode_json(data, _Document, path)
    if document.type == "FeatureCollection" and document.features is not None:
        found = document.features
    elif document.type == "Feature":
        found = [decode_json(data, _Feature, path)]
    elif document.type in _GEOMETRIES:
        found = [_Feature(geometry=msgspec.Raw(data))]
    else:
        without = ", without features" if document.type == "FeatureCollection" else ""
        raise DatasetError(
            f"is no GeoJSON: its type is {document.type!r}{without}",
            where=path,
            mend="Export a FeatureCollection.",
        )
    return _finish(found, _crs_name(document.crs, path), path)


def read_area(feature: Feature) -> Area:
    """The polygons of a feature; all are one object.

    A ring whose last point is not its first is closed, as GDAL does. Heights are left out.

    Raises:
        MaskError: a coordinate is no number or not finite, a ring has fewer than 4 points.
    """
    area = Area([], [], 0, elsewhere=False)
    try:
        geometry = msgspec.json.decode(feature.geometry, type=_Geometry | None)
        return area if geometry is None else _collect(geometry, area, feature.where)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MaskError(f"has a damaged geometry: {error}", where=feature.where, mend=_MEND) from (
            error
        )


def _read(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > LARGEST_BYTES:
            raise DatasetError(
                f"has {size} bytes, more than the {LARGEST_BYTES} that are read at once",
                where=path,
                mend="Split it, for example with: ogr2ogr -where, or one file for each image.",
            )
        return path.read_bytes().removeprefix(_BOM)
    except OSError as error:
        raise DatasetError(f"cannot be read ({error.strerror or error})", where=path) from error


def _finish(found: Sequence[_Feature], crs: str | None, path: Path) -> GeoFile:
    features = [
        Feature(
            where=f"{path}, feature {index}" + ("" if f.id is None else f" (id {f.id!r})"),
            properties=f.properties or {},
            geometry=f.geometry,
            has_nucleus=bytes(f.nucleus) != b"null",
        )
        for index, f in enumerate(found)
    ]
    is_qupath = crs is None and any(
        "objectType" in f.properties
        or bytes(f.properties.get("classification", _NULL)).startswith(b"{")
        for f in features
    )
    return GeoFile(features, crs, is_qupath)


def _crs_name(crs: Any, path: Path) -> str | None:
    match crs:
        case None:
            return None
        case {"type": "name", "properties": {"name": str(name)}}:
            return name
        case _:
            raise DatasetError(
                f"has a coordinate system of an unknown kind, {str(crs)[:80]}",
                where=path,
                mend="Write it in longitude and latitude with: "
                "ogr2ogr -t_srs EPSG:4326 -f GeoJSON OUT.geojson IN.geojson",
            )


def _collect(geometry: _Geometry, area: Area, where: str) -> Area:
    if geometry.plane is not None and (geometry.plane.z or geometry.plane.t):
        return Area([], [], 0, elsewhere=True)
    polygons, others, unclosed = list(area.polygons), list(area.others), area.unclosed
    match geometry.type:
        case "Polygon" | "MultiPolygon":
            parts: list[list[list[list[float]]]]
            if geometry.type == "Polygon":
                parts = [msgspec.json.decode(geometry.coordinates, type=list[list[list[float]]])]
            else:
                parts = msgspec.json.decode(
                    geometry.coordinates, type=list[list[list[list[float]]]]
                )
            for part in parts:
                rings = [_ring(points, where) for points in part]
                unclosed += sum(was_open for _, was_open in rings)
                if rings:
                    polygons.append([ring for ring, _ in rings])
        case "GeometryCollection":
            for member in geometry.geometries or ():
                inner = _collect(member, Area([], [], 0, elsewhere=False), where)
                polygons += inner.polygons
                others += inner.others
                unclosed += inner.unclosed
        case name if name in _GEOMETRIES:
            others.append(name)
        case name:
            raise MaskError(f"has a geometry of the type {name!r}", where=where, mend=_MEND)
    return Area(polygons, others, unclosed, elsewhere=False)


def _ring(points: list[list[float]], where: str) -> tuple[Ring, bool]:
    """The points of a ring, closed, and whether it was open."""
    short = next((i for i, point in enumerate(points) if len(point) < 2), None)
    if short is not None:
        raise MaskError(
            f"has {points[short]} where a point's two coordinates are expected (point {short})",
            where=where,
            mend=_MEND,
        )
    ring = np.array([point[:2] for point in points], np.float64).reshape(-1, 2)
    was_open = len(ring) > 0 and not np.array_equal(ring[0], ring[-1])
    if was_open:
        ring = np.concatenate([ring, ring[:1]])
    if len(ring) < 4:
        raise MaskError(
            f"has a ring of {len(points)} point{'' if len(points) == 1 else 's'}, and a ring has "
            "at least 4, of which the last repeats the first",
            where=where,
            mend=_MEND,
        )
    return ring, was_open
