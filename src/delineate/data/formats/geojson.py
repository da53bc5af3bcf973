"""GeoJSON over a georeferenced raster or over a slide (RFC 7946; QuPath's export).

Coordinates are in the system that the old ``crs`` member names, otherwise WGS 84 longitude and
latitude, and are projected into that of the raster. They are pixels of the full-resolution image,
counted from the corner of the first pixel, in files that QuPath wrote and over images without a
georeference.

A pixel belongs to a polygon when its centre is inside, GDAL's rule without ``ALL_TOUCHED``. A ring
that crosses itself is filled by the even-odd rule. All polygons of a feature are one object.
"""

from __future__ import annotations

import threading
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float64, UInt32

from delineate.data.dataset import ONLY_SPLIT, DatasetInfo
from delineate.data.formats.canvas import Canvas
from delineate.data.formats.geojson_file import Polygon, is_geojson, read_area, read_geojson
from delineate.data.formats.geojson_survey import (
    CLASS_PROPERTIES,
    ONLY_CLASS,
    REGION,
    Survey,
    class_of,
    in_pixels,
    is_outside,
)
from delineate.data.formats.georeference import (
    Georeference,
    import_rasterio,
    pixel_size_um,
    read_georeference,
)
from delineate.data.formats.naming import (
    fill_id,
    id_of,
    ids_by_name,
    means_background,
    refuse_link_outside,
    sample_names,
)
from delineate.data.formats.pairing import (
    list_files,
    list_images,
    read_bytes,
    read_item_image,
    refuse_absent,
    refuse_unannotated,
)
from delineate.data.formats.settings import ImportSettings
from delineate.data.formats.source import Item, Labels
from delineate.errors import DatasetError, MaskError

__all__ = ["GeoJsonSource", "is_geojson", "open_geojson"]

_SUFFIXES = frozenset({".geojson", ".json"})


@dataclass(frozen=True)
class _Key:
    """What an item's labels are read from."""

    labels: Path
    raster: Georeference


class GeoJsonSource:
    """Rasters and their GeoJSON, as :class:`delineate.data.formats.source.Source`.

    Items hold where their raster lies; files of features are read again for each.
    """

    def __init__(self, settings: ImportSettings) -> None:
        import_rasterio()
        self._overlap = settings.overlap
        self._lock = threading.Lock()
        pairs, bare, dropped = _pairs(settings)
        unlabelled, unannotated = _test_images(pairs, bare, settings)
        place = settings.images or settings.source
        refuse_unannotated(unannotated, place, drop=settings.drop_unpaired)
        images = [*(image for _, image in pairs), *unlabelled]
        names = sample_names(_relative(image, settings) for image in images)
        asked = settings.class_property
        survey = Survey(CLASS_PROPERTIES if asked is None else (asked,))
        items: list[Item] = []
        sizes_um: dict[str, float | None] = {}
        for file, image in pairs:
            raster = read_georeference(image)
            survey.look(file, image, raster)
            name = names[_relative(image, settings)]
            split = _split(_relative(image, settings))
            key = _Key(file, raster)
            items.append(Item(name, name + image.suffix, str(file), image, split, key=key))
            sizes_um[name] = pixel_size_um(image, raster)
        for image in unlabelled:
            name = names[_relative(image, settings)]
            file_name = name + image.suffix
            items.append(Item(name, file_name, str(image), image, "test", labelled=False))
        if not survey.features:
            raise DatasetError("has no features", where=settings.source)
        self.items: Sequence[Item] = tuple(items)
        self._property = survey.class_property(asked=asked is not None)
        proposal = survey.propose(self._property, sizes_um)
        self.proposal = replace(proposal, dropped=(*dropped, *unannotated))

    def image_bytes(self, item: Item) -> bytes:
        return read_item_image(item)

    def evidence(self, item: Item) -> bytes:
        key: _Key = item.key
        return read_bytes(key.labels) + repr((key.raster, self._property)).encode()

    def labels(self, item: Item, hw: tuple[int, int], info: DatasetInfo) -> Labels:
        key: _Key = item.key
        if key.raster.hw != hw:
            raise MaskError(
                f"has a raster of {key.raster.hw[1]} x {key.raster.hw[0]} pixels (width x "
                f"height) that is read as {hw[1]} x {hw[0]}",
                where=item.where,
                mend="Remove the orientation tag of the raster.",
            )
        fill = fill_id(info)
        canvas = Canvas(hw, info, item.where)
        file = read_geojson(key.labels)
        ids = ids_by_name(info)
        class_ids, instances = [0], [0]
        shapes: list[tuple[int, list[Polygon]]] = []
        for feature in file.features:
            name = ONLY_CLASS if self._property is None else class_of(feature, self._property)
            polygons = read_area(feature).polygons
            if name is None or name == REGION or not polygons:
                continue
            pixels = in_pixels(polygons, file, key.raster, feature.where)
            if is_outside(pixels, hw):
                continue
            if fill is not None and name not in ids and means_background(name):
                class_id = fill
            else:
                class_id = id_of(name, ids, feature.where)
            is_object = class_id not in (fill, info.ignore_index)
            # our export says so of pixels that belong to no object
            is_object &= feature.value("is_object") is not False
            shapes.append((len(class_ids), pixels))
            class_ids.append(class_id)
            instances.append(canvas.new_instance() if is_object else 0)
        numbers = self._burn(shapes, hw)
        where = np.flatnonzero(numbers)
        covered = numbers[where]
        canvas.paint_pixels(where, np.array(class_ids)[covered], np.array(instances)[covered])
        return canvas.labels()

    def _burn(
        self, shapes: list[tuple[int, list[Polygon]]], hw: tuple[int, int]
    ) -> UInt32[np.ndarray, " p"]:
        """The number of the shape that has each pixel, 0 for none, counted down the columns."""
        if self._overlap == "earlier":
            shapes = shapes[::-1]
        elif self._overlap == "smaller":
            shapes = sorted(shapes, key=lambda shape: -_area(shape[1]))
        if not shapes:
            return np.zeros(hw[0] * hw[1], np.uint32)
        # polygon by polygon: GDAL empties the pixels that two of one multipolygon share
        geometries = [
            ({"type": "Polygon", "coordinates": [ring.tolist() for ring in polygon]}, number)
            for number, polygons in shapes
            for polygon in polygons
        ]
        with self._lock:  # rasterio silences its own warnings, which threads undo
            burnt = import_rasterio().features.rasterize(
                geometries, out_shape=hw, dtype="uint32", all_touched=False
            )
        numbers: UInt32[np.ndarray, " p"] = burnt.T.reshape(-1)
        return numbers


def open_geojson(settings: ImportSettings) -> GeoJsonSource:
    """A GeoJSON file and its raster, or a folder of NAME.geojson and NAME.tif.

    ``settings.images`` names the raster or their folder where they lie elsewhere. One file and
    one raster belong together whatever their names. Images of a folder test without any GeoJSON
    are unlabelled where train or val has some.

    Classes come from ``settings.class_property``, or from the first of ``CLASS_PROPERTIES``
    that any feature has; a value is text, a number or, as QuPath writes, an object with a
    ``name``. Without any, everything is one class, ``object``. Features without a value
    where others have one are left out and counted in a note, and so are points, lines, empty
    geometries, other planes of a stack, QuPath's ``Region*`` (which QuPath does not fill) and
    what lies wholly outside of the raster. QuPath's ``Ignore*`` is the ignore index.

    Raises:
        DatasetError: no pairs, damaged files, nothing that lies on its raster.
        ImageError: a raster cannot be opened.
        MaskError: a geometry is damaged; the feature is named.
        SettingsError: no feature has ``class_property``.
        MissingExtraError: rasterio is not installed.
    """
    return GeoJsonSource(settings)


def _pairs(settings: ImportSettings) -> tuple[list[tuple[Path, Path]], list[Path], list[Path]]:
    """GeoJSON files with their images; images without one; files without an image."""
    source, links, drop = settings.source, settings.follow_links, settings.drop_unpaired
    place = settings.images or (source if source.is_dir() else source.parent)
    if not place.exists():
        raise DatasetError("no such file or folder", where=place)
    images = list_images(place, follow_links=links) if place.is_dir() else [place]
    if not source.is_dir():
        named = [image for image in images if source.stem in (image.stem, image.name)]
        found = images if len(images) == 1 else named
        if len(found) != 1:
            raise DatasetError(
                f"belongs to one of the {len(images)} images in {place}, and {len(found)} have "
                "its name",
                where=source,
                mend=f"Name the raster with --images, or call it {source.stem}.tif.",
            )
        return [(source, found[0])], [], []
    files = [f for f in list_files(source, _SUFFIXES, follow_links=links) if is_geojson(f)]
    if not files:
        raise DatasetError("has no GeoJSON file", where=source, mend="Name the file itself.")
    for file in (*files, *images):
        root = source if file.is_relative_to(source) else place
        refuse_link_outside(file, root, follow_links=links)
    if len(files) == len(images) == 1:
        return [(files[0], images[0])], [], []
    by_name = _by_name(images)
    of_file = {file: by_name.get(_composed(file.stem)) for file in files}
    pairs = [(file, image) for file, image in of_file.items() if image is not None]
    alone = [file for file, image in of_file.items() if image is None]
    refuse_absent([f"that of {file.name}" for file in alone], place, drop=drop)
    paired = {image for _, image in pairs}
    bare = [image for image in images if image not in paired]
    if not pairs:
        raise DatasetError(
            f"has {len(files)} GeoJSON files and no image of the same name", where=source
        )
    return sorted(pairs, key=lambda pair: pair[1]), bare, alone


def _test_images(
    pairs: Sequence[tuple[Path, Path]], bare: Sequence[Path], settings: ImportSettings
) -> tuple[list[Path], list[Path]]:
    """Images without labels: those of a test split that has none at all, and the others."""
    splits = {_split(_relative(image, settings)) for _, image in pairs}
    if "test" in splits or ONLY_SPLIT in splits:
        return [], list(bare)
    test = [image for image in bare if _split(_relative(image, settings)) == "test"]
    return test, [image for image in bare if image not in set(test)]


def _by_name(images: Iterable[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for image in images:
        for name in {_composed(image.stem), _composed(image.name)}:
            other = found.setdefault(name, image)
            if other != image:
                raise DatasetError(
                    f"{other} and {image} both belong to {name}.geojson",
                    mend="Rename or remove one of them.",
                )
    return found


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _relative(image: Path, settings: ImportSettings) -> str:
    for root in (settings.images, settings.source):
        if root is not None and root.is_dir() and image.is_relative_to(root):
            return image.relative_to(root).as_posix()
    return image.name


def _split(relative: str) -> str:
    """The folder that a file lies in, if that is named as a split."""
    first, slash, _ = relative.partition("/")
    return first if slash and first in ("train", "val", "test") else ONLY_SPLIT


def _area(polygons: list[Polygon]) -> float:
    """Area in pixels by the shoelace formula, holes taken off."""
    sizes = [[abs(_shoelace(ring)) for ring in polygon] for polygon in polygons]
    return float(sum(outline - sum(holes) for outline, *holes in sizes))


def _shoelace(ring: Float64[np.ndarray, "n 2"]) -> float:
    x, y = (ring - ring[0]).T
    return float(np.dot(x[:-1], y[1:]) - np.dot(x[1:], y[:-1])) / 2
