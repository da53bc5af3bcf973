from __future__ import annotations

import json
import sys
import tempfile
import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from rasterio.features import rasterize
from rasterio.transform import Affine
from rasterio.warp import transform_geom

from delineate.data.dataset import DatasetInfo
from delineate.data.formats import geojson_file
from delineate.data.formats.geojson import GeoJsonSource, is_geojson, open_geojson
from delineate.data.formats.settings import ImportSettings
from delineate.data.formats.source import Labels, Source
from delineate.errors import (
    DatasetError,
    DelineateError,
    ImageError,
    MaskError,
    MissingExtraError,
    SettingsError,
)

SHARED = Path(__file__).resolve().parents[3].parent / "shared" / "data"
UTM = "EPSG:32616"
PLACE = Affine(0.5, 0.0, 500_000.0, 0.0, -0.5, 4_000_000.0)
UTM_MEMBER = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32616"}}
SQUARE = [[1, 1], [4, 1], [4, 3], [1, 3], [1, 1]]
CENTRES = "a pixel belongs to a polygon when its centre is inside"


def raster(
    path: Path, hw: tuple[int, int] = (6, 8), transform: Any = PLACE, crs: str | None = UTM
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path, "w", driver="GTiff", height=hw[0], width=hw[1], count=1, dtype="uint8", crs=crs,
        transform=transform,
    ) as file:  # fmt: skip
        file.write(np.full((1, *hw), 7, np.uint8))
    return path


def plain(path: Path, hw: tuple[int, int] = (6, 8)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((*hw, 3), 7, np.uint8))
    return path


def feature(
    coordinates: Any, kind: str = "Polygon", *, id_: Any = None, **properties: Any
) -> dict[str, Any]:
    made = {
        "type": "Feature",
        "geometry": {"type": kind, "coordinates": coordinates},
        "properties": properties,
    }
    return made if id_ is None else {**made, "id": id_}


def write(path: Path, features: list[Any], crs: Any = None) -> Path:
    document = {"type": "FeatureCollection", "features": features}
    path.write_text(json.dumps(document if crs is None else {**document, "crs": crs}))
    return path


def opened(source: Path, **options: Any) -> GeoJsonSource:
    return open_geojson(ImportSettings(source=source, out=source.parent / "out", **options))


def labels(source: GeoJsonSource, hw: tuple[int, int] = (6, 8), **info: Any) -> Labels:
    own = source.proposal
    assert own.classes is not None
    about = {"classes": own.classes, "ignore_index": own.ignore_index, **info}
    return source.labels(source.items[0], hw, DatasetInfo(**about))


def to_map(ring: list[list[float]]) -> list[list[float]]:
    return [list(PLACE @ (x, y)) for x, y in ring]


def refusal(kind: type[DelineateError], source: Path, **options: Any) -> str:
    with pytest.raises(kind) as caught:
        opened(source, **options)
    return str(caught.value)


@pytest.mark.skipif(not (SHARED / "geotiff").is_dir(), reason="no ../shared/data")
def test_the_shared_buildings() -> None:
    file = SHARED / "geotiff" / "buildings_uint16.geojson"
    source = opened(file, class_property="building")
    assert source.proposal.classes == ("background", "yes")
    assert source.proposal.pixel_size_um == 500_000.0
    assert source.proposal.notes == ("classes are from the property 'building'", CENTRES)
    found = labels(source, (900, 900))
    shapes = [f["geometry"] for f in json.loads(file.read_text())["features"]]
    with rasterio.open(file.with_suffix(".tif")) as tif:
        expected = rasterize(
            [(shape, i + 1) for i, shape in enumerate(shapes)],
            out_shape=tif.shape,
            transform=tif.transform,
            dtype="uint16",
        )
    assert found.instances is not None
    np.testing.assert_array_equal(found.instances, expected)
    np.testing.assert_array_equal(found.classes, expected > 0)
    assert found.instances.max() == 43
    assert round(float(found.classes.mean()), 4) == 0.0418

    default = opened(file)
    assert default.proposal.classes == ("background", "object")
    assert default.proposal.notes[0] == (
        "every feature is of the class 'object', as none has a property that names classes; "
        "--class-property takes one of: building, osm_id, tags, z_order, way_area, origarea, "
        "origlen, partialDec, truncated, name"
    )
    np.testing.assert_array_equal(labels(default, (900, 900)).classes, found.classes)


def test_map_coordinates_in_the_system_of_the_raster_and_in_degrees(tmp_path: Path) -> None:
    raster(tmp_path / "a.tif")
    expected = np.zeros((6, 8), np.uint8)
    expected[1:3, 1:4] = 1
    shape = {"type": "Polygon", "coordinates": [to_map(SQUARE)]}
    degrees = transform_geom(UTM, "OGC:CRS84", shape)
    for crs, geometry in ((UTM_MEMBER, shape), (None, degrees)):
        file = write(tmp_path / "a.geojson", [feature(geometry["coordinates"])], crs)
        source = opened(file)
        found = labels(source)
        np.testing.assert_array_equal(found.classes, expected)
        assert isinstance(source, Source)
        item = source.items[0]
        assert (item.name, item.file_name, item.image) == ("a", "a.tif", tmp_path / "a.tif")
        assert source.image_bytes(item) == (tmp_path / "a.tif").read_bytes()


def test_a_rotated_raster(tmp_path: Path) -> None:
    turned = PLACE @ Affine.rotation(30)
    raster(tmp_path / "a.tif", transform=turned)
    ring = [list(turned @ (x, y)) for x, y in SQUARE]
    found = labels(opened(write(tmp_path / "a.geojson", [feature([ring])], UTM_MEMBER)))
    assert found.classes[1:3, 1:4].all()
    assert found.classes.sum() == 6


def test_classes_of_qupath_are_in_pixels(tmp_path: Path) -> None:
    raster(tmp_path / "a.tif")  # its georeference does not count
    hole = [[2, 1], [3, 1], [3, 2], [2, 2], [2, 1]]
    features = [
        feature([SQUARE, hole], objectType="annotation", classification={"name": "Tumor"}),
        feature(
            [[[5, 0], [8, 0], [8, 6], [5, 6], [5, 0]]],
            objectType="annotation",
            classification={"name": "Ignore*", "color": [1, 2, 3]},
        ),
        feature(
            [[[6, 3], [8, 3], [8, 6], [6, 6], [6, 3]]],
            objectType="cell",
            classification={"names": ["Stroma", "Positive"]},
        ),
        feature(
            [[[0, 0], [8, 0], [8, 6], [0, 6], [0, 0]]],
            objectType="annotation",
            classification={"name": "Region*"},
        ),
        feature([SQUARE], objectType="annotation", name="no class"),
    ]
    features[2]["nucleusGeometry"] = {"type": "Polygon", "coordinates": [SQUARE]}
    file = tmp_path / "a.geojson"
    file.write_text(json.dumps(features))  # a plain list, as QuPath may write it
    source = opened(file)
    assert source.proposal.classes == ("background", "Stroma: Positive", "Tumor")
    assert source.proposal.ignore_index == 255
    assert source.proposal.notes == (
        "classes are from the property 'classification'",
        "1 features without 'classification', left out",
        "1 features of class Region*, left out",
        f"1 cells with an outline of the nucleus; the cell's is taken (first: {file}, feature 2)",
        CENTRES,
    )
    expected = np.zeros((6, 8), np.uint8)
    expected[1:3, 1:4], expected[1, 2] = 2, 0
    expected[:, 5:], expected[3:, 6:] = 255, 1
    found = labels(source)
    np.testing.assert_array_equal(found.classes, expected)
    assert found.instances is not None
    np.testing.assert_array_equal(
        found.instances, np.where(expected == 2, 1, np.where(expected == 1, 2, 0))
    )
    with pytest.raises(MaskError) as caught:
        labels(source, ignore_index=None)
    assert str(caught.value) == (
        f"{file}, feature 1: labels pixels as 'ignore', and there is no ignore index. "
        "Add --ignore-index 255."
    )


@pytest.mark.parametrize(
    ("properties", "chosen", "classes"),
    [
        ({"label": "b", "class": "a"}, None, ("background", "a")),
        ({"label": "b", "class": ""}, None, ("background", "b")),
        ({"category": 3.0}, None, ("background", "3")),
        ({"classification": True}, None, ("background", "true")),
        ({"name": "Town hall"}, None, ("background", "object")),
        ({"name": "Town hall"}, "name", ("background", "Town hall")),
        ({"class": "Background*"}, None, ("Background*",)),
    ],
)
def test_where_the_class_is_found(
    tmp_path: Path, properties: dict[str, Any], chosen: str | None, classes: tuple[str, ...]
) -> None:
    plain(tmp_path / "a.png")
    file = write(tmp_path / "a.geojson", [feature([SQUARE], **properties)])
    assert opened(file, class_property=chosen).proposal.classes == classes


def test_classes_in_the_order_of_numbers_then_names(tmp_path: Path) -> None:
    plain(tmp_path / "a.png")
    features = [feature([SQUARE], label=value) for value in ("b", 10, "a", 9)]
    source = opened(write(tmp_path / "a.geojson", features))
    assert source.proposal.classes == ("background", "9", "10", "a", "b")


@pytest.mark.parametrize(("overlap", "owner"), [("later", 2), ("earlier", 1), ("smaller", 1)])
def test_overlap(tmp_path: Path, overlap: str, owner: int) -> None:
    plain(tmp_path / "a.png")
    small = [[2, 2], [4, 2], [4, 4], [2, 4], [2, 2]]
    large = [[0, 0], [8, 0], [8, 6], [0, 6], [0, 0]]
    file = write(tmp_path / "a.geojson", [feature([small]), feature([large])])
    found = labels(opened(file, overlap=overlap))
    assert found.instances is not None
    assert set(found.instances[2:4, 2:4].ravel()) == {owner}
    assert found.instances[0, 0] == 2


def test_many_polygons_are_one_object_and_do_not_empty_each_other(tmp_path: Path) -> None:
    plain(tmp_path / "a.png")
    other = [[3, 2], [6, 2], [6, 5], [3, 5], [3, 2]]
    collection = {
        "type": "Feature",
        "properties": {},
        "geometry": {
            "type": "GeometryCollection",
            "geometries": [
                {"type": "Polygon", "coordinates": [[[7, 5], [8, 5], [8, 6], [7, 6], [7, 5]]]},
                {"type": "Point", "coordinates": [1, 1]},
            ],
        },
    }
    features = [feature([[SQUARE], [other]], "MultiPolygon"), collection]
    file = write(tmp_path / "a.geojson", features)
    source = opened(file)
    found = labels(source).instances
    expected = np.zeros((6, 8), np.uint16)
    expected[1:3, 1:4] = expected[2:5, 3:6] = 1
    expected[5, 7] = 2
    np.testing.assert_array_equal(found, expected)
    assert (
        "1 geometries of the type Point, which has no area, left out "
        f"(first: {file}, feature 1)" in source.proposal.notes
    )


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    plain(tmp_path / "a.png")
    away = [[20, 20], [30, 20], [30, 30], [20, 20]]
    tiny = [[0.6, 0.6], [0.9, 0.6], [0.9, 0.9], [0.6, 0.6]]
    sliver = [[0.4, 0.4], [2.7, 2.6], [2.7, 2.65], [0.4, 0.4]]
    elsewhere = feature([SQUARE])
    elsewhere["geometry"]["plane"] = {"c": -1, "z": 3, "t": 0}
    features = [
        feature([SQUARE[:-1]]),
        feature([away], id_="far"),
        feature([[0, 0], [1, 1]], "LineString"),
        {"type": "Feature", "geometry": None, "properties": None},
        feature([], id_=7),
        feature([tiny]),
        elsewhere,
        feature([sliver]),
    ]
    file = write(tmp_path / "a.geojson", features)
    source = opened(file)
    assert source.proposal.notes[1:] == (
        f"1 images without a georeference; coordinates are pixels (first: {tmp_path / 'a.png'})",
        f"1 features with a ring that was not closed; it was closed (first: {file}, feature 0)",
        f"1 features wholly outside of the raster, left out (first: {file}, feature 1 (id 'far'))",
        "1 geometries of the type LineString, which has no area, left out "
        f"(first: {file}, feature 2)",
        f"2 features without a geometry, left out (first: {file}, feature 3)",
        f"2 features too small to hold the centre of a pixel (first: {file}, feature 5)",
        f"1 features on other planes of the stack, left out (first: {file}, feature 6)",
        CENTRES,
    )
    assert labels(source).classes.sum() == 6


def centres_inside(polygon: list[np.ndarray], hw: tuple[int, int]) -> np.ndarray:
    """Even-odd test of each pixel's centre; NaN where it lies on an edge."""
    inside = np.zeros(hw)
    for row, column in np.ndindex(hw):
        x, y = column + 0.5, row + 0.5
        odd = False
        for start, end in (edge for ring in polygon for edge in pairwise(ring)):
            (x0, y0), along = start, end - start
            length = along @ along or 1.0
            share = np.clip(((x, y) - start) @ along / length, 0, 1)
            if np.hypot(*((x, y) - start - share * along)) < 1e-6:
                inside[row, column] = np.nan
            if (y0 > y) != (end[1] > y) and x < along[0] * (y - y0) / along[1] + x0:
                odd = not odd
        inside[row, column] += odd
    return inside


points = st.tuples(st.integers(-9, 90), st.integers(-9, 72)).map(lambda p: [p[0] / 9, p[1] / 9])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(points, min_size=3, max_size=6), min_size=1, max_size=2))
def test_pixels_are_those_whose_centre_is_inside(rings: list[list[list[float]]]) -> None:
    closed = [[*ring, ring[0]] for ring in rings]
    with tempfile.TemporaryDirectory() as name:
        plain(Path(name) / "a.png")
        whole = [[0, 0], [8, 0], [8, 6], [0, 6], [0, 0]]
        features = [feature([whole], label="field"), feature(closed, label="thing")]
        source = opened(write(Path(name) / "a.geojson", features))
        assert source.proposal.classes is not None
        found = labels(source).classes == source.proposal.classes.index("thing")
    expected = centres_inside([np.array(ring) for ring in closed], (6, 8))
    sure = np.isfinite(expected)
    np.testing.assert_array_equal(found[sure], expected[sure])


def test_pairs_in_a_folder(tmp_path: Path) -> None:
    for name in ("a", "b"):
        raster(tmp_path / "set" / "sub" / f"{name}.tif")
        write(tmp_path / "set" / "sub" / f"{name}.geojson", [feature([to_map(SQUARE)])], UTM_MEMBER)
    source = opened(tmp_path / "set")
    assert [item.name for item in source.items] == ["a", "b"]
    evidence = [source.evidence(item) for item in source.items]
    (tmp_path / "set" / "sub" / "b.geojson").rename(tmp_path / "set" / "b.tif.geojson")
    again = opened(tmp_path / "set")
    assert [again.evidence(item) for item in again.items] == evidence
    write(tmp_path / "set" / "sub" / "a.geojson", [feature([to_map(SQUARE)])] * 2, UTM_MEMBER)
    assert again.evidence(again.items[0]) != evidence[0]

    (tmp_path / "set" / "sub" / "a.geojson").unlink()
    assert refusal(DatasetError, tmp_path / "set") == (
        f"{tmp_path / 'set'}: 1 image has no annotations: a.tif. "
        "Annotate it, or leave it out with --drop-unpaired."
    )
    left = opened(tmp_path / "set", drop_unpaired=True)
    assert [item.name for item in left.items] == ["b"]
    assert left.proposal.dropped == (tmp_path / "set" / "sub" / "a.tif",)
    write(tmp_path / "set" / "c.geojson", [feature([to_map(SQUARE)])], UTM_MEMBER)
    assert refusal(DatasetError, tmp_path / "set") == (
        f"{tmp_path / 'set'}: 1 annotated image is not there: that of c.geojson. "
        "Name its folder with --images, or leave it out with --drop-unpaired."
    )


def test_one_file_and_one_raster_whatever_their_names(tmp_path: Path) -> None:
    image = raster(tmp_path / "images" / "tile.tif")
    file = write(tmp_path / "labels.json", [feature([to_map(SQUARE)])], UTM_MEMBER)
    for where in (image, image.parent):
        assert [item.name for item in opened(file, images=where).items] == ["tile"]
    raster(tmp_path / "images" / "tile2.tif")
    assert refusal(DatasetError, file, images=image.parent) == (
        f"{file}: belongs to one of the 2 images in {image.parent}, and 0 have its name. "
        "Name the raster with --images, or call it labels.tif."
    )
    assert refusal(DatasetError, file, images=tmp_path / "no") == (
        f"{tmp_path / 'no'}: no such file or folder."
    )
    assert refusal(DatasetError, image.parent) == (
        f"{image.parent}: has no GeoJSON file. Name the file itself."
    )


def test_everything_outside_is_refused(tmp_path: Path) -> None:
    raster(tmp_path / "a.tif")
    away = [[x - 87, y + 30] for x, y in SQUARE]
    file = write(tmp_path / "a.geojson", [feature([away])])
    assert refusal(DatasetError, file) == (
        f"{file}: all 1 features lie outside of a.tif: they reach from (-86, 31) to (-83, 33) in "
        "OGC:CRS84, and it from (500000, 3999997) to (500004, 4000000) in EPSG:32616. Give the "
        "raster that they were drawn on, or write the GeoJSON's true coordinate system into its "
        "crs member."
    )
    plain(tmp_path / "b.png")
    write(file, [feature([to_map(SQUARE)])])
    message = refusal(MaskError, file)
    start = f"{file}, feature 0: cannot be projected from OGC:CRS84 to EPSG:32616 ("
    assert message.startswith(start)
    assert message.endswith(
        "Check the coordinate system of the GeoJSON: without a crs member it is longitude and "
        "latitude."
    )
    file = write(tmp_path / "b.geojson", [feature([to_map(SQUARE)])])
    assert "in pixels, and it from (0, 0) to (8, 6) in pixels" in refusal(DatasetError, file)


@pytest.mark.parametrize(
    ("geometry", "found"),
    [
        ('{"type": "Polygon", "coordinates": [[[0, 0], [1, null], [1, 1], [0, 0]]]}',
         "has a damaged geometry: Expected `float`, got `null` - at `$[0][1][1]`"),
        ('{"type": "Polygon", "coordinates": [[[0, 0], [1, 1e999], [1, 1], [0, 0]]]}',
         "has a damaged geometry: Number out of range - at `$[0][1][1]`"),
        ('{"type": "Polygon", "coordinates": [[[0, 0], [1, 1], [0, 0]]]}',
         "has a ring of 3 points, and a ring has at least 4, of which the last repeats the first"),
        ('{"type": "Polygon", "coordinates": [[[0, 0]]]}',
         "has a ring of 1 point, and a ring has at least 4, of which the last repeats the first"),
        ('{"type": "Polygon", "coordinates": [[[0, 0], [1], [1, 1], [0, 0]]]}',
         "has [1.0] where a point's two coordinates are expected (point 1)"),
        ('{"type": "Blob", "coordinates": []}', "has a geometry of the type 'Blob'"),
        ('{"coordinates": []}',
         "has a damaged geometry: Object missing required field `type`"),
        ('{"type": "Polygon"}', "has a damaged geometry: Expected `array`, got `null`"),
    ],
)  # fmt: skip
def test_damaged_geometries(tmp_path: Path, geometry: str, found: str) -> None:
    plain(tmp_path / "a.png")
    file = tmp_path / "a.geojson"
    file.write_text(
        '{"type": "FeatureCollection", "features": [{"type": "Feature", "id": "x", '
        f'"properties": {{}}, "geometry": {geometry}}}]}}'
    )
    assert refusal(MaskError, file) == (
        f"{file}, feature 0 (id 'x'): {found}. Draw the polygon again, or delete the feature."
    )


def test_points_that_no_projection_has(tmp_path: Path) -> None:
    raster(tmp_path / "a.tif")
    ring = [[0, 0], [1e12, 1], [1, 1], [0, 0]]
    file = write(tmp_path / "a.geojson", [feature([ring])], UTM_MEMBER)
    assert refusal(MaskError, file) == (
        f"{file}, feature 0: has a point at (1e+12, 1), which is nowhere near the raster. "
        "Check the coordinate system of the GeoJSON, or mend that point."
    )
    file = write(tmp_path / "a.geojson", [feature([[[0, 0], [0, 1e30], [1, 1], [0, 0]]])])
    assert str(file) in refusal(MaskError, file)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read as annotations: Input data was truncated"),
        ('{"type": "FeatureCollection", "features": [NaN]}', "holds NaN at byte 43"),
        ('{"type": "Topology"}', "is no GeoJSON: its type is 'Topology'"),
        ('{"type": "FeatureCollection"}',
         "is no GeoJSON: its type is 'FeatureCollection', without features"),
        ('{"type": "FeatureCollection", "features": []}', "has no features"),
        ('{"type": "FeatureCollection", "features": {}}', "cannot be read as annotations"),
        ("[" * 100_000, "cannot be read as annotations"),
        ('{"type": "FeatureCollection", "features": [], "crs": {"type": "link"}}',
         "has a coordinate system of an unknown kind, {'type': 'link'}"),
    ],
)  # fmt: skip
def test_what_is_no_geojson(tmp_path: Path, text: str, message: str) -> None:
    plain(tmp_path / "a.png")
    file = tmp_path / "a.geojson"
    file.write_text(text)
    assert refusal(DatasetError, file).startswith(f"{file}: {message}")


def test_one_feature_one_geometry_and_a_byte_order_mark(tmp_path: Path) -> None:
    plain(tmp_path / "a.png")
    file = tmp_path / "a.json"
    for document in (feature([SQUARE]), {"type": "Polygon", "coordinates": [SQUARE]}):
        file.write_text("\ufeff" + json.dumps(document), encoding="utf-8")
        assert labels(opened(file)).classes.sum() == 6


def test_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain(tmp_path / "a.png")
    file = write(tmp_path / "a.geojson", [])
    monkeypatch.setattr(geojson_file, "LARGEST_BYTES", 10)
    assert refusal(DatasetError, file).startswith(
        f"{file}: has {file.stat().st_size} bytes, more than the 10 that are read at once."
    )


def test_properties_and_systems_that_are_not_there(tmp_path: Path) -> None:
    raster(tmp_path / "a.tif")
    file = write(tmp_path / "a.geojson", [feature([to_map(SQUARE)], kind_="x")], UTM_MEMBER)
    assert refusal(SettingsError, file, class_property="color") == (
        "--class-property: no feature has the property 'color'; there are kind_. Name one of "
        "these, or leave it out: everything is one class then."
    )
    write(file, [feature([to_map(SQUARE)], **{"class": ["a"]})], UTM_MEMBER)
    assert refusal(MaskError, file) == (
        f"{file}, feature 0: has a list as its class, which names no class. "
        "Name another property with --class-property."
    )
    unknown = {"type": "name", "properties": {"name": "EPSG:0"}}
    write(file, [feature([to_map(SQUARE)])], unknown)
    assert "names the coordinate system 'EPSG:0', which PROJ does not know" in refusal(
        DatasetError, file
    )


def test_rasters_that_cannot_be_placed(tmp_path: Path) -> None:
    file = write(tmp_path / "a.geojson", [feature([SQUARE])])
    (tmp_path / "a.tif").write_bytes(b"II*\0broken")
    assert refusal(ImageError, file).startswith(
        f"{tmp_path / 'a.tif'}: cannot be opened as a raster ("
    )
    (tmp_path / "a.tif").unlink()
    point = rasterio.control.GroundControlPoint
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        raster(tmp_path / "a.tif", transform=Affine.identity(), crs=None)
        with rasterio.open(tmp_path / "a.tif", "r+") as tif:
            tif.gcps = ([point(0, 0, 1, 1), point(0, 8, 2, 1), point(6, 0, 1, 2)], UTM)
    assert refusal(DatasetError, file) == (
        f"{tmp_path / 'a.tif'}: has 3 ground control points and no transform. "
        "Straighten it with: gdalwarp IN.tif OUT.tif"
    )


def test_labels_that_do_not_fit(tmp_path: Path) -> None:
    plain(tmp_path / "a.png")
    file = write(tmp_path / "a.geojson", [feature([SQUARE], label="cell")])
    source = opened(file)
    with pytest.raises(MaskError) as caught:
        labels(source, (8, 6))
    assert str(caught.value) == (
        f"{file}: has a raster of 8 x 6 pixels (width x height) that is read as 6 x 8. "
        "Remove the orientation tag of the raster."
    )
    with pytest.raises(MaskError) as caught:
        labels(source, classes=("background", "cel"))
    assert str(caught.value) == (
        f"{file}, feature 0: names the class 'cell', which is none of background, cel "
        "(near: cel). Add it to --classes, or map it with --map cell=CLASS."
    )
    with pytest.raises(MaskError, match="none of the classes cell, gland is the background"):
        labels(source, classes=("cell", "gland"))


def test_pixel_sizes(tmp_path: Path) -> None:
    import tifffile

    features = [feature([SQUARE], objectType="annotation")]
    for text, size in (
        ("Aperio |AppMag = 20|MPP = 0.4990|x = 1", 0.499),
        ('<OME><Pixels PhysicalSizeX="250" PhysicalSizeXUnit="nm"/></OME>', 0.25),
        ('<OME><Pixels PhysicalSizeX="0.5"/></OME>', 0.5),
        ("nothing", None),
    ):
        pixels = np.zeros((6, 8, 3), np.uint8)
        tifffile.imwrite(tmp_path / "a.tif", pixels, description=text, metadata=None)
        assert opened(write(tmp_path / "a.geojson", features)).proposal.pixel_size_um == size


def test_sniffing(tmp_path: Path) -> None:
    file = write(tmp_path / "a.geojson", [])
    assert is_geojson(file)
    assert not is_geojson(tmp_path)
    assert not is_geojson(tmp_path / "absent")
    file.write_text('{"type": "FeatureCollectio"}')
    assert not is_geojson(file)
    file.write_text('\ufeff [{"type": "Feature"}]', encoding="utf-8")
    assert is_geojson(file)


def test_without_rasterio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain(tmp_path / "a.png")
    file = write(tmp_path / "a.geojson", [feature([SQUARE])])
    monkeypatch.setitem(sys.modules, "rasterio", None)
    assert refusal(MissingExtraError, file) == (
        "this needs rasterio, which is not installed. Install it with: pip install 'delineate[geo]'"
    )


def test_a_test_folder_without_geojson_is_unlabelled(tmp_path: Path) -> None:
    for split in ("train", "test"):
        plain(tmp_path / split / f"{split}1.png")
    write(tmp_path / "train/train1.geojson", [feature([SQUARE])])
    source = opened(tmp_path)
    found = [(item.name, item.split, item.labelled) for item in source.items]
    assert found == [("train1", "train", True), ("test1", "test", False)]
    plain(tmp_path / "val/val1.png")
    with pytest.raises(DatasetError) as caught:
        opened(tmp_path)
    assert caught.value.found == "1 image has no annotations: val1.png"
    assert opened(tmp_path, drop_unpaired=True).proposal.dropped == (tmp_path / "val/val1.png",)


def test_pixels_of_a_turned_photo_are_those_of_the_upright_one(tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(np.zeros((4, 9, 3), np.uint8)).save(tmp_path / "a.jpg", exif=turned)
    write(tmp_path / "a.geojson", [feature([[[0, 5], [4, 5], [4, 9], [0, 9], [0, 5]]])])
    source = opened(tmp_path)
    found = source.labels(source.items[0], (9, 4), DatasetInfo(classes=("background", "object")))
    assert found.classes.sum(axis=1).tolist() == [0, 0, 0, 0, 0, 4, 4, 4, 4]


def test_accents_belong_together_in_either_unicode_form(tmp_path: Path) -> None:
    for name in ("b", "a\u0308"):
        plain(tmp_path / f"{name}.png")
    for name in ("b", "\u00e4"):
        write(tmp_path / f"{name}.geojson", [feature([SQUARE])])
    assert [item.name for item in opened(tmp_path).items] == ["a\u0308", "b"]
