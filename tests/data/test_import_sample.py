"""Names under which images are written: such that the dataset finds them."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from delineate.data.dataset import Dataset
from delineate.data.formats.settings import ImportSettings
from delineate.data.importing import ImportReport, import_dataset
from delineate.errors import DatasetError


def coco(source: Path, file_name: str, polygons: list[list[float]]) -> None:
    source.mkdir()
    picture = cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8))[1]
    (source / file_name).write_bytes(picture.tobytes())
    annotations = [
        {"id": i, "image_id": 1, "category_id": 1, "iscrowd": 0, "segmentation": [polygon]}
        for i, polygon in enumerate(polygons)
    ]
    document = {
        "images": [{"id": 1, "file_name": file_name, "width": 8, "height": 8}],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "car"}],
    }
    (source / "instances.json").write_text(json.dumps(document))


def run(source: Path, out: Path) -> ImportReport:
    return import_dataset(ImportSettings(source=source, out=out, val_fraction=0))


@pytest.mark.parametrize("name", ["a.jfif", "a", "tile_10.5", "A.JPG"])
def test_a_suffix_by_which_the_dataset_finds_the_image(tmp_path: Path, name: str) -> None:
    coco(tmp_path / "in", name, [[0, 0, 4, 0, 4, 4, 0, 4]])
    assert run(tmp_path / "in", tmp_path / "out").samples == {"all": 1}
    (sample,) = Dataset.open(tmp_path / "out").split("all")
    assert sample.image.suffix.lower() == ".jpg"
    assert sample.mask is not None


def test_hidden_names(tmp_path: Path) -> None:
    coco(tmp_path / "in", ".a.jpg", [[0, 0, 4, 0, 4, 4, 0, 4]])
    with pytest.raises(DatasetError, match="hidden"):
        run(tmp_path / "in", tmp_path / "out")


def test_objects_without_a_pixel_are_told(tmp_path: Path) -> None:
    square = [0.0, 0.0, 4.0, 0.0, 4.0, 4.0, 0.0, 4.0]
    outside = [x + 20 for x in square]
    coco(tmp_path / "in", "a.jpg", [square, square, outside])  # the first is covered
    report = run(tmp_path / "in", tmp_path / "out")
    assert report.objects == 1
    assert report.notes[-1] == (
        "objects without a pixel, as they lie outside, are too small or are wholly covered: 2"
    )


def test_a_source_without_classes(tmp_path: Path) -> None:
    coco(tmp_path / "in", "a.jpg", [])
    file = tmp_path / "in/instances.json"
    document = json.loads(file.read_text())
    file.write_text(json.dumps({**document, "categories": []}))
    with pytest.raises(DatasetError) as caught:
        run(tmp_path / "in", tmp_path / "out")
    assert str(caught.value) == (
        f"{tmp_path / 'in'}: names no class but the background, as nothing in it is labelled. Give "
        "the classes: --classes background,nucleus."
    )
