from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from delineate.data.exporting.export import export_dataset
from delineate.data.exporting.settings import ExportSettings
from delineate.errors import DatasetError, MaskError, SettingsError


def test_layout_ids_and_colours(write: Callable[..., Path], tmp_path: Path) -> None:
    labels = np.array([[0, 1, 2], [7, 2, 2]])
    objects = np.array([[0, 900, 30], [0, 30, 0]])
    dataset = write(
        {"train/a": labels, "val/b": labels},
        ("background", "cat", "dog"),
        ignore=7,
        objects={"train/a": objects},
    )
    out = tmp_path / "out"
    report = export_dataset(ExportSettings(dataset=dataset, out=out, format="voc"))
    assert (report.objects, report.notes) == (2, ())
    with Image.open(out / "SegmentationClass/a.png") as picture:
        assert picture.mode == "P"
        assert np.asarray(picture).tolist() == [[0, 1, 2], [255, 2, 2]]
        palette = picture.getpalette() or []
        assert palette[:9] == [0, 0, 0, 128, 0, 0, 0, 128, 0]
        assert palette[765:] == [224, 224, 192]
    with Image.open(out / "SegmentationObject/a.png") as picture:
        assert np.asarray(picture).tolist() == [[0, 2, 1], [255, 1, 0]]
    assert (out / "ImageSets/Segmentation/val.txt").read_text() == "b\n"
    assert (out / "class_names.txt").read_text() == "background\ncat\ndog\n"
    names = sorted(file.name for file in (out / "JPEGImages").iterdir())
    assert names == ["a.png", "b.png"]


def test_too_many_classes_are_refused_by_name(write: Callable[..., Path], tmp_path: Path) -> None:
    dataset = write({"a": np.zeros((1, 1))}, tuple(f"c{i}" for i in range(256)))
    with pytest.raises(SettingsError) as caught:
        export_dataset(ExportSettings(dataset=dataset, out=tmp_path / "out", format="voc"))
    assert str(caught.value) == (
        "--format: voc holds 255 classes, ids 0 to 254 in 8 bits, and the dataset has 256. Use "
        "--format coco, coco-panoptic or class-id, which hold them all."
    )
    assert sorted(file.name for file in tmp_path.iterdir()) == ["dataset"]


def test_too_many_objects_are_refused_by_name(write: Callable[..., Path], tmp_path: Path) -> None:
    objects = np.arange(1, 256).reshape(1, 255)
    dataset = write({"a": np.ones((1, 255))}, ("bg", "dot"), objects={"a": objects})
    with pytest.raises(MaskError) as caught:
        export_dataset(ExportSettings(dataset=dataset, out=tmp_path / "out", format="voc"))
    assert caught.value.found == "has 255 objects, and VOC numbers 1 to 254 in 8 bits"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["dataset"]
    settings = ExportSettings(dataset=dataset, out=tmp_path / "out", format="voc", instances=False)
    assert export_dataset(settings).notes == (
        "The object ids are not written: they were not wanted.",
    )


def test_two_splits_may_not_share_a_name(write: Callable[..., Path], tmp_path: Path) -> None:
    dataset = write({"train/a": np.zeros((1, 1)), "val/a": np.zeros((1, 1))}, ("bg", "dot"))
    with pytest.raises(DatasetError) as caught:
        export_dataset(ExportSettings(dataset=dataset, out=tmp_path / "out", format="voc"))
    assert str(caught.value) == (
        f"{dataset}: has a sample 'a' in train and in val, and voc keeps all images in one folder. "
        "Export one split at a time, such as --split val, or rename one."
    )


def test_a_class_name_has_to_be_a_line(write: Callable[..., Path], tmp_path: Path) -> None:
    dataset = write({"a": np.zeros((1, 1))}, ("bg", "two\nlines"))
    with pytest.raises(SettingsError, match="cannot be a line of VOC's class_names"):
        export_dataset(ExportSettings(dataset=dataset, out=tmp_path / "out", format="voc"))
