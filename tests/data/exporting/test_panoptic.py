from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from delineate.data.exporting.export import export_dataset
from delineate.data.exporting.settings import ExportSettings

CLASSES = ("background", "cell", "wall")


def test_things_stuff_crowds_and_void(write: Callable[..., Path], tmp_path: Path) -> None:
    first = np.array([[0, 1, 1], [2, 2, 255]])
    objects = np.array([[0, 8, 0], [0, 0, 8]])
    second = np.array([[1, 1], [0, 0]])
    dataset = write(
        {"train/a": first, "train/b": second}, CLASSES, ignore=255, objects={"train/a": objects}
    )
    out = tmp_path / "out"
    report = export_dataset(ExportSettings(dataset=dataset, out=out, format="coco-panoptic"))
    assert report.notes == (
        "1 object has ignored pixels, which are written as ignored and belong to no object.",
        "3 segments of pixels that belong to no object: stuff, or iscrowd 1 where the class has "
        "objects elsewhere.",
    )
    document = json.loads((out / "annotations/panoptic_train.json").read_bytes())
    assert [(c["name"], c["isthing"]) for c in document["categories"]] == [
        ("background", 0),
        ("cell", 1),
        ("wall", 0),
    ]
    segments = [
        [(s["id"], s["category_id"], s["iscrowd"], s["area"]) for s in a["segments_info"]]
        for a in document["annotations"]
    ]
    assert segments == [
        [(1, 2, 0, 1), (2, 1, 0, 1), (3, 2, 1, 1), (4, 3, 0, 2)],
        [(1, 1, 0, 2), (2, 2, 1, 2)],
    ]
    with Image.open(out / "annotations/panoptic_train/a.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    assert (pixels @ [1, 256, 65536]).tolist() == [[2, 1, 3], [4, 4, 0]]


def test_more_segments_than_a_channel_holds(write: Callable[..., Path], tmp_path: Path) -> None:
    objects = np.arange(1, 301).reshape(15, 20)
    dataset = write({"a": np.ones((15, 20))}, CLASSES, objects={"a": objects})
    out = tmp_path / "out"
    report = export_dataset(ExportSettings(dataset=dataset, out=out, format="coco-panoptic"))
    assert (report.objects, report.notes) == (300, ())
    with Image.open(out / "annotations/panoptic_all/a.png") as picture:
        pixels = np.asarray(picture).astype(int)
    assert np.array_equal(pixels @ [1, 256, 65536], objects)
