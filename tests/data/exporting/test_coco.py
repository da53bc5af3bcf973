from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO

from delineate.data.exporting.export import export_dataset
from delineate.data.exporting.settings import ExportSettings
from delineate.errors import SettingsError

LABELS = np.array(
    [
        [1, 1, 1, 0, 2],
        [1, 0, 1, 0, 0],
        [1, 1, 1, 255, 2],
    ],
    np.uint8,
)
OBJECTS = np.zeros((3, 5), np.uint16)
OBJECTS[LABELS == 1] = 70
OBJECTS[0, 4] = 3
CLASSES = ("background", "ring", "dot")


def read(out: Path, split: str) -> tuple[COCO, list[dict[str, Any]]]:
    file = out / "annotations" / f"instances_{split}.json"
    coco = COCO(file)
    return coco, coco.loadAnns(coco.getAnnIds())


# pycocotools hands NumPy 2 an array by the protocol of NumPy 1
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_objects_and_what_belongs_to_none(
    write: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = write(
        {"train/a": LABELS, "val/b": LABELS}, CLASSES, ignore=255, objects={"train/a": OBJECTS}
    )
    out = tmp_path / "out"
    report = export_dataset(ExportSettings(dataset=dataset, out=out, format="coco"))
    assert report.objects == 2
    assert report.samples == {"train": 1, "val": 1}
    assert report.notes == (
        "3 annotations of pixels that belong to no object have iscrowd 1.",
        "Ignored pixels are annotations of the category __ignore__, iscrowd 1.",
    )
    coco, found = read(out, "train")
    assert [c["name"] for c in coco.loadCats(coco.getCatIds())] == ["ring", "dot", "__ignore__"]
    assert coco.loadImgs([1]) == [{"id": 1, "file_name": "a.png", "width": 5, "height": 3}]
    summary = [(a["id"], a["category_id"], a["iscrowd"], a["area"], a["bbox"]) for a in found]
    assert summary == [
        (1, 2, 0, 1, [4, 0, 1, 1]),
        (2, 1, 0, 8, [0, 0, 3, 3]),
        (3, 2, 1, 1, [4, 2, 1, 1]),
        (4, 3, 1, 1, [3, 2, 1, 1]),
    ]
    masks = [coco.annToMask(annotation) for annotation in found]
    assert np.array_equal(masks[1], LABELS == 1)  # the hole is one
    assert np.array_equal(sum(masks), LABELS > 0)
    assert [a["id"] for a in read(out, "val")[1]] == [5, 6, 7]
    pictures = ((dataset, "train/images/a.png"), (out, "train/a.png"))
    assert len({(root / name).read_bytes() for root, name in pictures}) == 1
    assert "Done" in capsys.readouterr().out  # what pycocotools prints


def test_without_objects_each_class_is_one_annotation(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    dataset = write({"a": LABELS}, CLASSES, ignore=255)
    out = tmp_path / "out"
    report = export_dataset(ExportSettings(dataset=dataset, out=out, format="coco"))
    assert report.notes[0] == "Without object ids, each class of an image is one annotation."
    found = json.loads((out / "annotations/instances_all.json").read_bytes())["annotations"]
    summary = [(a["category_id"], a["iscrowd"], a["area"]) for a in found]
    assert summary == [(1, 0, 8), (2, 0, 2), (3, 1, 1)]
    assert (out / "images" / "a.png").is_file()


def test_a_first_class_of_another_name_is_written(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    dataset = write({"a": np.zeros((2, 2))}, ("sky", "ground"))
    export_dataset(ExportSettings(dataset=dataset, out=tmp_path / "out", format="coco"))
    document = json.loads((tmp_path / "out/annotations/instances_all.json").read_bytes())
    assert [(c["id"], c["name"]) for c in document["categories"]] == [(1, "sky"), (2, "ground")]
    assert [a["area"] for a in document["annotations"]] == [4]


def test_a_split_without_masks_is_image_info(write: Callable[..., Path], tmp_path: Path) -> None:
    dataset = write({"train/a": LABELS, "test/b": LABELS}, CLASSES, ignore=255)
    (dataset / "test/masks/b.png").unlink()
    out = tmp_path / "out"
    report = export_dataset(ExportSettings(dataset=dataset, out=out, format="coco"))
    assert report.notes[-1] == "Without masks, and so without labels: test."
    document = json.loads((out / "annotations/image_info_test.json").read_bytes())
    assert [image["file_name"] for image in document["images"]] == ["b.png"]
    assert "annotations" not in document


def test_the_name_of_ignored_pixels_is_taken(write: Callable[..., Path], tmp_path: Path) -> None:
    dataset = write({"a": LABELS}, ("background", "__ignore__", "dot"), ignore=255)
    with pytest.raises(SettingsError) as caught:
        export_dataset(ExportSettings(dataset=dataset, out=tmp_path / "out", format="coco"))
    assert str(caught.value) == (
        "classes: the class __ignore__ has the name that ignored pixels get in coco. Rename the "
        "class in dataset.yaml."
    )
    assert not (tmp_path / "out").exists()
