"""GeoJSON (RFC 7946) beside each image, with the fields of QuPath 0.4 and later.

    OUT/SPLIT/NAME.tif   OUT/SPLIT/NAME.geojson

Polygons run along the edges of pixels, so that the centre of a pixel is inside exactly where it
has the class. Coordinates are x and y in pixels from the top left corner; where the image is a
GeoTIFF whose coordinate system has an EPSG code, they are in that system, named by the member
``crs`` of the GeoJSON of 2008.
"""

from __future__ import annotations

import threading
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import tifffile

from delineate.data.dataset import DatasetInfo, Sample
from delineate.data.exporting.categories import IGNORE_NAME, refuse_ignore_name
from delineate.data.exporting.pieces import (
    Piece,
    Pieces,
    counts_of,
    ignored_objects_note,
    pieces_of,
)
from delineate.data.exporting.writer import Labelled, Writer, Written, split_folder
from delineate.data.images import sniff
from delineate.data.palette import Colour
from delineate.errors import ImageError, MissingExtraError, SettingsError
from delineate.words import plural

IGNORE_CLASS = "Ignore*"
"""How QuPath calls what no measurement counts."""

_IGNORE_COLOUR: Colour = (180, 180, 180)
_GEO_KEYS = 34735  # the TIFF tag that every GeoTIFF has
_HEAD_BYTES = 64


class GeoJsonWriter(Writer):
    """One feature for each object, and one for the rest of each class; several parts make a
    MultiPolygon. Where there are objects, a rest has the property ``is_object``, false. A class 0
    that is called background is what no feature covers.

    Raises:
        SettingsError: a class is called as the category of ignored pixels, or its name ends in a
            star, and QuPath does not count such classes.
        MissingExtraError: rasterio is not installed.
    """

    def __init__(self, folder: Path, info: DatasetInfo, colours: tuple[Colour, ...]) -> None:
        refuse_ignore_name(info, "geojson")
        _refuse_starred(info)
        try:
            import rasterio.features
        except ImportError as error:
            raise MissingExtraError("rasterio", "geo") from error
        self._rasterio = rasterio
        self._folder = folder
        self._info = info
        self._colours = colours
        # readers take the star away, and the name may be that of a class then
        self._ignored_name = IGNORE_NAME if "ignore" in info.classes else IGNORE_CLASS
        # it silences its own warnings, and their filters belong to the whole process
        self._rasterio_lock = threading.Lock()

    def image_folder(self, split: str) -> Path:
        return split_folder(self._folder, split)

    def write(self, item: Labelled) -> Written:
        pieces = pieces_of(item, self._info, "GeoJSON")
        epsg, transform = self._georeference(item.sample.image)
        parts = self._polygons(pieces, transform)
        features = [
            {"type": "Feature", "geometry": _geometry(parts[index]), "properties": properties}
            for index, piece in enumerate(pieces.members)
            if not piece.background
            for properties in [self._properties(piece, item)]
        ]
        document: dict[str, Any] = {"type": "FeatureCollection"}
        if epsg is not None:
            name = f"urn:ogc:def:crs:EPSG::{epsg}"
            document["crs"] = {"type": "name", "properties": {"name": name}}
        document["features"] = features
        file = split_folder(self._folder, item.split) / f"{item.sample.name}.geojson"
        file.write_bytes(msgspec.json.encode(document))
        counts = counts_of(pieces)
        counts["in_pixels"] = int(epsg is None)
        counts["georeferenced"] = int(epsg is not None)
        return Written(counts=counts)

    def collect(self, sample: Sample, split: str, hw: tuple[int, int], record: Any) -> None:
        """Nothing is common to all samples."""

    def close(self) -> None:
        """Nothing is common to all samples."""

    def notes(self, counts: Counter[str]) -> list[str]:
        notes = ignored_objects_note(counts)
        if counts["objects"] and counts["rests"]:
            notes.append(
                f"{plural(counts['rests'], 'feature')} of pixels that belong to no object, with "
                "is_object false: other readers than delineate take each for an object."
            )
        if not counts["objects"]:
            notes.append("Without object ids, each class of an image is one feature.")
        if counts["georeferenced"]:
            notes.append(
                f"{plural(counts['georeferenced'], 'file')} in the coordinates of the raster, "
                f"{counts['in_pixels']:,} in pixels."
            )
        return notes

    def _georeference(self, image: Path) -> tuple[int | None, Any]:
        """EPSG code and affine transform of a GeoTIFF; None for all others."""
        with image.open("rb") as file:
            if sniff(file.read(_HEAD_BYTES), str(image)) != "TIFF":
                return None, None
        try:
            with tifffile.TiffFile(image) as tif:
                if _GEO_KEYS not in tif.pages.first.tags:
                    return None, None
            with self._rasterio_lock, warnings.catch_warnings():
                warnings.simplefilter("ignore", self._rasterio.errors.NotGeoreferencedWarning)
                with self._rasterio.open(image) as raster:
                    epsg = None if raster.crs is None else raster.crs.to_epsg()
                    if epsg is None:
                        return None, None
                    return int(epsg), raster.transform
        except (OSError, tifffile.TiffFileError, self._rasterio.errors.RasterioError) as error:
            raise ImageError(
                f"has tags of a GeoTIFF that cannot be read ({error})",
                where=image,
                mend="Write it again with GDAL, or export to another format.",
            ) from error

    def _polygons(self, pieces: Pieces, transform: Any) -> list[list[Any]]:
        """The polygons of each piece: rings of (x, y), the outer one first."""
        parts: list[list[Any]] = [[] for _ in pieces.members]
        wanted = np.array([not piece.background for piece in pieces.members])[pieces.ids]
        with self._rasterio_lock:
            shapes = self._rasterio.features.shapes(
                pieces.ids.astype(np.int32), mask=wanted, connectivity=4
            )
            for shape, index in shapes:
                rings = [_moved(ring, transform) for ring in shape["coordinates"]]
                parts[int(index)].append(rings)
        return parts

    def _properties(self, piece: Piece, item: Labelled) -> dict[str, Any]:
        if piece.ignored:
            name, colour = self._ignored_name, _IGNORE_COLOUR
        else:
            name, colour = self._info.classes[piece.class_id], self._colours[piece.class_id]
        properties: dict[str, Any] = {
            "objectType": "annotation",
            "classification": {"name": name, "color": list(colour)},
        }
        if item.instances is not None and not piece.instance:
            properties["is_object"] = False
        return properties


def _refuse_starred(info: DatasetInfo) -> None:
    for name in info.classes:
        if name.endswith("*"):
            raise SettingsError(
                f"the class {name!r} ends in a star, and QuPath does not count such classes",
                where="classes",
                mend="Rename it in dataset.yaml, or use another format than geojson.",
            )


def _geometry(polygons: list[Any]) -> dict[str, Any]:
    if len(polygons) == 1:
        return {"type": "Polygon", "coordinates": polygons[0]}
    return {"type": "MultiPolygon", "coordinates": polygons}


def _moved(ring: list[tuple[float, float]], transform: Any) -> list[Any]:
    """Points of a ring in the coordinates of ``transform``; whole numbers without one."""
    x, y = np.asarray(ring).T
    if transform is None:
        x, y = x.astype(np.int64), y.astype(np.int64)
    else:
        a, b, c, d, e, f = transform[:6]
        x, y = a * x + b * y + c, d * x + e * y + f
    moved: list[Any] = np.stack([x, y], axis=1).tolist()
    return moved
