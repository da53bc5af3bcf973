from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.features import rasterize

from delineate.data.exporting.export import export_dataset
from delineate.data.exporting.settings import ExportSettings
from delineate.errors import MissingExtraError, SettingsError

LABELS = np.array(
    [
        [1, 1, 1, 0, 2],
        [1, 0, 1, 0, 0],
        [1, 1, 1, 255, 2],
    ]
)


def test_qupath_fields_in_pixels(write: Callable[..., Path], tmp_path: Path) -> None:
    dataset = write({"train/a": LABELS}, ("background", "ring", "dot"), ignore=255)
    out = tmp_path / "out"
    report = export_dataset(ExportSettings(dataset=dataset, out=out, format="geojson"))
    assert report.notes == ("Without object ids, each class of an image is one feature.",)
    document = json.loads((out / "train/a.geojson").read_bytes())
    assert list(document) == ["type", "features"]
    ring, dot, ignored = document["features"]
    assert ring["properties"] == {
        "objectType": "annotation",
        "classification": {"name": "ring", "color": [230, 159, 0]},
    }
    assert ring["geometry"]["type"] == "Polygon"
    outer, hole = ring["geometry"]["coordinates"]
    assert {tuple(point) for point in outer} == {(0, 0), (0, 3), (3, 3), (3, 0)}
    assert {tuple(point) for point in hole} == {(1, 1), (1, 2), (2, 2), (2, 1)}
    assert outer[0] == outer[-1]
    assert dot["geometry"]["type"] == "MultiPolygon"
    assert len(dot["geometry"]["coordinates"]) == 2
    assert ignored["properties"]["classification"]["name"] == "Ignore*"


def test_a_georeferenced_raster_keeps_its_coordinates(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    dataset = write({"a": LABELS}, ("background", "ring", "dot"), ignore=255)
    (dataset / "images/a.png").unlink()
    transform = rasterio.Affine(0.3, 0.0, 500000.1, 0.0, -0.3, 4000000.7)
    with rasterio.open(
        dataset / "images/a.tif",
        "w",
        driver="GTiff",
        width=5,
        height=3,
        count=1,
        dtype="uint8",
        crs="EPSG:32616",
        transform=transform,
    ) as raster:
        raster.write(np.ones((1, 3, 5), np.uint8))
    out = tmp_path / "out"
    report = export_dataset(ExportSettings(dataset=dataset, out=out, format="geojson"))
    assert report.notes[-1] == "1 file in the coordinates of the raster, 0 in pixels."
    document = json.loads((out / "a.geojson").read_bytes())
    assert document["crs"]["properties"]["name"] == "urn:ogc:def:crs:EPSG::32616"
    shapes = [
        (feature["geometry"], value)
        for feature, value in zip(document["features"], (1, 2, 255), strict=True)
    ]
    burnt = rasterize(shapes, out_shape=(3, 5), transform=transform)
    assert np.array_equal(burnt, LABELS)


def test_pixels_of_no_object_say_so(write: Callable[..., Path], tmp_path: Path) -> None:
    objects = np.where(LABELS == 2, 4, 0)
    dataset = write(
        {"a": LABELS}, ("background", "ring", "dot"), ignore=255, objects={"a": objects}
    )
    settings = ExportSettings(dataset=dataset, out=tmp_path / "out", format="geojson")
    assert export_dataset(settings).notes == (
        "1 feature of pixels that belong to no object, with is_object false: other readers than "
        "delineate take each for an object.",
    )
    features = json.loads((tmp_path / "out/a.geojson").read_bytes())["features"]
    said = {
        feature["properties"]["classification"]["name"]: feature["properties"].get("is_object")
        for feature in features
    }
    assert said == {"dot": None, "ring": False, "Ignore*": False}


def test_a_class_called_ignore_keeps_its_pixels(write: Callable[..., Path], tmp_path: Path) -> None:
    dataset = write({"a": LABELS}, ("background", "ignore", "dot"), ignore=255)
    out = tmp_path / "out"
    export_dataset(ExportSettings(dataset=dataset, out=out, format="geojson"))
    features = json.loads((out / "a.geojson").read_bytes())["features"]
    names = [feature["properties"]["classification"]["name"] for feature in features]
    assert names == ["ignore", "dot", "__ignore__"]


def test_a_class_that_qupath_does_not_count_is_refused(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    dataset = write({"a": LABELS}, ("background", "Region*", "dot"), ignore=255)
    with pytest.raises(SettingsError) as caught:
        export_dataset(ExportSettings(dataset=dataset, out=tmp_path / "out", format="geojson"))
    assert str(caught.value) == (
        "classes: the class 'Region*' ends in a star, and QuPath does not count such classes. "
        "Rename it in dataset.yaml, or use another format than geojson."
    )
    assert not (tmp_path / "out").exists()


def test_without_rasterio(
    write: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rasterio.features", None)
    dataset = write({"a": LABELS}, ("background", "ring", "dot"), ignore=255)
    with pytest.raises(MissingExtraError, match=r"pip install 'delineate\[geo\]'"):
        export_dataset(ExportSettings(dataset=dataset, out=tmp_path / "out", format="geojson"))
    assert not (tmp_path / "out").exists()
