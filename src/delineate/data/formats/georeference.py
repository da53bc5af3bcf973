"""Where a raster lies, so that map coordinates become pixels."""

from __future__ import annotations

import math
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from jaxtyping import Float64

from delineate.data.images import image_size
from delineate.errors import DatasetError, ImageError, MaskError, MissingExtraError

_SAME_SIDES = 0.01  # pixels whose sides differ by less count as square
_UM_PER_M = 1e6
_APERIO = re.compile(r"\bMPP\s*=\s*([0-9]+\.?[0-9]*)")
_OME = re.compile(r'\bPhysicalSizeX="([0-9]+\.?[0-9]*(?:[eE][+-]?[0-9]+)?)"')
_OME_UNIT = re.compile(r'\bPhysicalSizeXUnit="([^"]+)"')
_OME_UNITS = {"µm": 1.0, "μm": 1.0, "um": 1.0, "nm": 1e-3, "mm": 1e3}
_FARTHEST_PX = 2.0**30


@dataclass(frozen=True)
class Georeference:
    """Where the pixels of a raster lie.

    Attributes:
        hw: height and width in pixels; upright, where there is no georeference.
        transform: a, b, c, d, e, f of ``x = a * column + b * row + c``,
            ``y = d * column + e * row + f``; None without a georeference.
        crs: coordinate system as WKT, None where it is not stated.
    """

    hw: tuple[int, int]
    transform: tuple[float, float, float, float, float, float] | None
    crs: str | None

    def bounds(self) -> tuple[float, float, float, float]:
        """Smallest x and y, largest x and y of the raster's corners, in its coordinates."""
        height, width = self.hw
        corners = np.array([(0, 0), (width, 0), (0, height), (width, height)], np.float64)
        if self.transform is not None:
            a, b, c, d, e, f = self.transform
            corners = corners @ np.array([[a, d], [b, e]]) + (c, f)
        left, low = corners.min(axis=0).tolist()
        right, high = corners.max(axis=0).tolist()
        return left, low, right, high


def read_georeference(path: Path) -> Georeference:
    """Where the raster at ``path`` lies, from its header and world file; by rasterio.

    Raises:
        DatasetError: it has ground control points alone.
        ImageError: rasterio cannot open it.
        MissingExtraError: rasterio is not installed.
    """
    rasterio = import_rasterio()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            with rasterio.open(path) as raster:
                hw = (int(raster.height), int(raster.width))
                transform = raster.transform
                crs = None if raster.crs is None else str(raster.crs.to_wkt())
                points = len(raster.gcps[0])
    except rasterio.errors.RasterioError as error:
        raise ImageError(f"cannot be opened as a raster ({error})", where=path) from error
    if transform.is_identity:
        if points:
            raise DatasetError(
                f"has {points} ground control points and no transform",
                where=path,
                mend="Straighten it with: gdalwarp IN.tif OUT.tif",
            )
        # GDAL sees the stored pixels; shapes are drawn on the upright ones
        return Georeference(image_size(path), None, None)
    a, b, c, d, e, f = (float(number) for number in transform[:6])
    if not math.isfinite(a * e - b * d) or a * e == b * d:
        raise DatasetError(
            f"has a transform that cannot be inverted, {(a, b, c, d, e, f)}", where=path
        )
    return Georeference(hw, (a, b, c, d, e, f), crs)


def to_pixels(
    points: Float64[np.ndarray, "n 2"], crs: str | None, raster: Georeference, where: str
) -> Float64[np.ndarray, "n 2"]:
    """(x, y) in map coordinates -> (column, row) in pixels; (0, 0) is the first pixel's corner.

    Only the points are projected: the edges between them stay straight.

    Args:
        crs: of the points; None for that of the raster.

    Raises:
        DatasetError: the coordinate system is unknown.
        MaskError: a point cannot be projected, or lies absurdly far outside.
    """
    if raster.transform is None or not len(points):
        pixels = points
    else:
        if crs is not None and raster.crs is not None:
            points = _project(points, crs, raster.crs, where)
        a, b, c, d, e, f = raster.transform
        x, y = points[:, 0] - c, points[:, 1] - f
        scale = a * e - b * d
        pixels = np.stack([(e * x - b * y) / scale, (a * y - d * x) / scale], axis=1)
    far = ~(np.abs(pixels) < _FARTHEST_PX).all(axis=1)
    if far.any():
        x, y = points[int(np.flatnonzero(far)[0])].tolist()
        raise MaskError(
            f"has a point at ({x:g}, {y:g}), which is nowhere near the raster",
            where=where,
            mend="Check the coordinate system of the GeoJSON, or mend that point.",
        )
    return pixels


def pixel_size_um(path: Path, raster: Georeference) -> float | None:
    """Side of a square pixel in micrometres, None where the file does not say.

    Of a georeferenced raster in a projected coordinate system; otherwise as Aperio (``MPP``) and
    OME (``PhysicalSizeX``) write it.
    """
    if raster.transform is None:
        return _size_in_description(path)
    if raster.crs is None:
        return None
    crs = import_rasterio().crs.CRS.from_wkt(raster.crs)
    if not crs.is_projected:
        return None
    a, b, _, d, e, _ = raster.transform
    sides = math.hypot(a, d), math.hypot(b, e)
    if abs(sides[0] - sides[1]) > _SAME_SIDES * max(sides):
        return None
    return math.sqrt(sides[0] * sides[1]) * float(crs.linear_units_factor[1]) * _UM_PER_M


def import_rasterio() -> Any:
    """The package rasterio.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import rasterio
        import rasterio.crs
        import rasterio.errors
        import rasterio.features
        import rasterio.warp
    except ImportError as error:
        raise MissingExtraError("rasterio", "geo") from error
    return rasterio


def crs_label(crs: str | None) -> str:
    """A short name of a coordinate system: its EPSG code or name."""
    if crs is None:
        return "pixels"
    rasterio = import_rasterio()
    try:
        known = rasterio.crs.CRS.from_user_input(crs)
    except rasterio.errors.CRSError:
        return crs
    code = known.to_epsg()
    return crs[:60] if code is None else f"EPSG:{code}"


def _project(
    points: Float64[np.ndarray, "n 2"], crs: str, target: str, where: str
) -> Float64[np.ndarray, "n 2"]:
    rasterio = import_rasterio()
    try:
        source = rasterio.crs.CRS.from_user_input(crs)
    except rasterio.errors.CRSError as error:
        raise DatasetError(
            f"names the coordinate system {crs!r}, which PROJ does not know",
            where=where,
            mend="Name one by its EPSG code, such as urn:ogc:def:crs:EPSG::32616.",
        ) from error
    known = rasterio.crs.CRS.from_wkt(target)
    if source == known:
        return points
    try:
        xs, ys = rasterio.warp.transform(
            source, known, points[:, 0].tolist(), points[:, 1].tolist()
        )
    except Exception as error:  # GDAL's errors share no class that rasterio exports
        raise MaskError(
            f"cannot be projected from {crs_label(crs)} to {crs_label(target)} ({error})",
            where=where,
            mend="Check the coordinate system of the GeoJSON: without a crs member it is longitude "
            "and latitude.",
        ) from error
    return np.stack([np.asarray(xs, np.float64), np.asarray(ys, np.float64)], axis=1)


def _size_in_description(path: Path) -> float | None:
    try:
        with tifffile.TiffFile(path) as tif:
            text = str(tif.pages.first.description)
    except Exception:  # not a TIFF; whether it is an image at all is seen when it is read
        return None
    factor: float | None = 1.0
    found = _APERIO.search(text)
    if found is None:
        found, unit = _OME.search(text), _OME_UNIT.search(text)
        factor = 1.0 if unit is None else _OME_UNITS.get(unit[1])
    if found is None or factor is None:
        return None
    size_um = float(found[1]) * factor
    return size_um if size_um > 0 else None
