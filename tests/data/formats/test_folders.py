"""Masks in folders, in all the values that people give them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image as Pillow

from delineate.data.dataset import Dataset, read_instances
from delineate.data.formats.settings import ImportSettings
from delineate.data.importing import ImportReport, import_dataset
from delineate.data.masks import read_mask
from delineate.errors import DatasetError, DelineateError, MaskError, SettingsError

SHARED = Path(__file__).resolve().parents[3].parent / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/data")
RNG = np.random.default_rng(3)


def picture(path: Path, hw: tuple[int, int] = (6, 8)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), RNG.integers(0, 256, (*hw, 3), dtype=np.uint8))


def grey(path: Path, values: Any, dtype: Any = np.uint8) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.asarray(values, dtype)
    if array.ndim == 3:
        array = array[:, :, ::-1]
    assert cv2.imwrite(str(path), array)


def run(source: Path, out: Path, **options: Any) -> ImportReport:
    return import_dataset(ImportSettings(source=source, out=out, val_fraction=0, **options))


def labels_of(out: Path) -> dict[str, list[list[int]]]:
    samples = Dataset.open(out).split("all")
    return {s.name: read_mask(s.mask).tolist() for s in samples if s.mask is not None}


def refused(kind: type[DelineateError], source: Path, out: Path, **options: Any) -> str:
    with pytest.raises(kind) as caught:
        run(source, out, **options)
    assert not out.exists()
    assert not list(out.parent.glob(".*")), "something was left behind"
    return str(caught.value)


def test_grey_values(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    picture(source / "images/a.png", (1, 5))
    grey(source / "masks/a.png", [[0, 128, 255, 7, 0]])
    values = {0: "background", 128: "cytoplasm", 255: "nucleus", 7: "ignore"}
    report = run(source, out, values=values)
    assert report.format == "values"
    assert report.classes == ("background", "cytoplasm", "nucleus")
    assert labels_of(out) == {"a": [[0, 1, 2, 255, 0]]}
    assert Dataset.open(out).info.ignore_index == 255
    again = tmp_path / "again"  # the user's order, and two values of one class
    classes = ("background", "nucleus")
    values = {0: "background", 128: "nucleus", 255: "nucleus", 7: "background"}
    run(source, again, values=values, classes=classes)
    assert labels_of(again) == {"a": [[0, 1, 1, 0, 0]]}
    message = refused(MaskError, source, tmp_path / "no", values={0: "background", 255: "n"})
    assert message == (
        f"{source / 'masks/a.png'}: has 2 values without a class: 7 (1 px), 128 (1 px). Add them "
        "to --values; values between two classes come from smoothing, and the mask must be "
        "exported without."
    )
    assert refused(SettingsError, source, tmp_path / "no", format="values") == (
        "--values: the classes of the grey values are missing. For example: --values "
        "0=background,128=cytoplasm,255=nucleus"
    )


def test_colours(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    picture(source / "images/a.png", (1, 3))
    grey(source / "masks/a.png", [[(255, 0, 0), (0, 0, 0), (0, 255, 0)]])
    colours = ((0, 0, 0), (255, 0, 0), (0, 255, 0))
    report = run(source, out, format="rgb", colours=colours, classes=("bg", "red", "green"))
    assert labels_of(out) == {"a": [[1, 0, 2]]}
    assert report.pixels == {0: 1, 1: 1, 2: 1}
    assert Dataset.open(out).info.colours == colours
    options = {"format": "rgb", "colours": colours[:2], "classes": ("bg", "red")}
    message = refused(MaskError, source, tmp_path / "no", **options)
    assert message.startswith(f"{source / 'masks/a.png'}: has 1 colour without a class: (0, 255, 0")
    message = refused(SettingsError, source, tmp_path / "no", format="rgb", classes=("a", "b"))
    assert message.startswith("--colours: the colours of the classes are missing.")


@pytest.mark.parametrize("layout", ["folders", "files"])
def test_one_binary_mask_a_class(tmp_path: Path, layout: str) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    for name in ("a", "a_b"):
        picture(source / f"images/{name}.jpg", (1, 4))

    def mask(name: str, kind: str, values: list[list[int]]) -> None:
        file = f"{kind}/{name}.png" if layout == "folders" else f"{name}_{kind}.png"
        grey(source / "masks" / file, values)

    mask("a", "gland", [[255, 255, 0, 0]])
    mask("a", "nucleus", [[0, 255, 255, 0]])
    mask("a_b", "nucleus", [[0, 0, 0, 1]])
    options: dict[str, Any] = {"format": "binary"}
    if layout == "files":
        options["classes"] = ("background", "gland", "nucleus")
    report = run(source, out, **options)
    assert report.classes == ("background", "gland", "nucleus")
    assert labels_of(out) == {"a": [[1, 2, 2, 0]], "a_b": [[0, 0, 0, 2]]}
    run(source, tmp_path / "earlier", **options, overlap="earlier")
    assert labels_of(tmp_path / "earlier")["a"] == [[1, 1, 2, 0]]
    mask("a_b", "gland", [[1, 1, 0]])
    message = refused(MaskError, source, tmp_path / "no", **options)
    assert message.endswith(
        "is 3 x 1 pixels (width x height), and its image is 4 x 1. Export the mask at 4 x 1, "
        "without interpolation."
    )


def test_one_binary_mask_a_class_with_splits(tmp_path: Path) -> None:
    source = tmp_path / "in"
    for split, kind in (("train", "gland"), ("val", "nucleus")):
        picture(source / split / "images/a.png", (1, 2))
        grey(source / split / "masks" / kind / "a.png", [[0, 255]])
    report = import_dataset(ImportSettings(source=source, out=tmp_path / "out"))
    assert (report.format, report.samples) == ("binary", {"train": 1, "val": 1})
    assert report.classes == ("background", "gland", "nucleus")
    (sample,) = Dataset.open(tmp_path / "out").split("val")
    assert sample.mask is not None
    assert read_mask(sample.mask).tolist() == [[0, 2]]


def test_splits_of_any_name(tmp_path: Path) -> None:
    source = tmp_path / "in"
    for split in ("fold1", "train"):
        picture(source / split / "images/a.png", (1, 2))
        grey(source / split / "masks/a.png", [[0, 1]])
    report = import_dataset(ImportSettings(source=source, out=tmp_path / "o", classes=("a", "b")))
    assert report.samples == {"train": 1, "fold1": 1}


def test_images_without_any_binary_mask(tmp_path: Path) -> None:
    source = tmp_path / "in"
    for name in ("a", "b"):
        picture(source / f"images/{name}.jpg", (1, 2))
    grey(source / "masks/gland/a.png", [[255, 0]])
    assert refused(DatasetError, source, tmp_path / "no") == (
        f"{source}: there are 1 images without any mask or masks without an image (b.jpg). Add "
        "what is missing, or leave it out with --drop-unpaired."
    )
    report = run(source, tmp_path / "out", drop_unpaired=True)
    assert [file.name for file in report.dropped] == ["b.jpg"]
    assert labels_of(tmp_path / "out") == {"a": [[1, 0]]}


def test_object_ids_come_along(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    ids = np.array([[0, 1, 300], [0, 0, 300]], np.uint16)
    picture(source / "images/a.png", (2, 3))
    grey(source / "masks/a.png", (ids > 0) * 255)
    grey(source / "objects/a.tif", ids, np.uint16)
    report = run(source, out, format="binary", instances=source / "objects")
    assert report.objects == 2
    (sample,) = Dataset.open(out).split("all")
    np.testing.assert_array_equal(read_instances(sample, (2, 3)), ids)
    mapped = tmp_path / "mapped"
    run(
        source, mapped, format="class-id", classes=("bg", *map(str, range(1, 256))),
        instances=source / "objects", class_map="255=bg",
    )  # fmt: skip
    (sample,) = Dataset.open(mapped).split("all")
    np.testing.assert_array_equal(read_instances(sample, (2, 3)), np.zeros((2, 3)))
    grey(source / "objects/a.tif", ids.T, np.uint16)
    message = refused(MaskError, source, tmp_path / "no", instances=source / "objects",
                      format="binary")  # fmt: skip
    assert message == (
        f"{source / 'objects/a.tif'}: is 2 x 3 pixels (width x height), and its image is 3 x 2. "
        "Export the object ids at 3 x 2."
    )


def test_voc_with_objects_and_splits(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    for name in ("a", "b"):
        picture(source / f"JPEGImages/{name}.jpg", (1, 3))
        grey(source / f"SegmentationClass/{name}.png", [[0, 15, 255]])
        grey(source / f"SegmentationObject/{name}.png", [[0, 1, 255]])
    for split, name in (("train", "a"), ("val", "b")):
        file = source / "ImageSets/Segmentation" / f"{split}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{name}\n")
    report = import_dataset(ImportSettings(source=source, out=out))
    assert (report.format, report.samples, report.objects) == ("voc", {"train": 1, "val": 1}, 2)
    (sample,) = Dataset.open(out).split("val")
    assert (sample.name, report.pixels) == ("b", {0: 2, 15: 2, 255: 2})
    np.testing.assert_array_equal(read_instances(sample, (1, 3)), [[0, 1, 0]])
    picture(source / "JPEGImages/for detection.jpg")  # in no list
    picture(source / "JPEGImages/c d.jpg")
    (source / "ImageSets/Segmentation/test.txt").write_text("c d\n")
    report = import_dataset(ImportSettings(source=source, out=tmp_path / "again"))
    assert report.samples == {"train": 1, "val": 1, "test": 1}
    assert Dataset.open(tmp_path / "again").split("test")[0].mask is None
    (source / "ImageSets/Segmentation/val.txt").write_text("b\na\n")
    message = refused(DatasetError, source, tmp_path / "no")
    assert message == (
        f"{source / 'ImageSets/Segmentation/val.txt'}: names a, which train.txt names as well. "
        "Keep it in one split."
    )


def test_cityscapes(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    for split, city in (("train", "aachen"), ("val", "ulm"), ("test", "bonn")):
        stem = f"{city}_000000_000019"
        picture(source / f"leftImg8bit/{split}/{city}/{stem}_leftImg8bit.png", (1, 4))
        if split != "test":
            labels = source / f"gtFine/{split}/{city}/{stem}_gtFine_labelIds.png"
            grey(labels, [[7, 0, 26, 26]])
            grey(
                labels.with_name(f"{stem}_gtFine_instanceIds.png"),
                [[7, 0, 26001, 26000]],
                np.uint16,
            )
    report = import_dataset(ImportSettings(source=source, out=out))
    assert report.format == "cityscapes"
    assert report.samples == {"test": 1, "train": 1, "val": 1}
    (sample,) = Dataset.open(out).split("train")
    assert (sample.name, sample.group) == ("aachen_000000_000019", "aachen")
    assert sample.mask is not None
    assert read_mask(sample.mask).tolist() == [[0, 255, 13, 13]]
    found = read_instances(sample, (1, 4))
    assert found is not None
    assert found.tolist() == [[0, 0, 2, 1]]
    assert Dataset.open(out).info.classes[13] == "car"
    labels = source / "gtFine/train/aachen/aachen_000000_000019_gtFine_labelIds.png"
    grey(labels, [[7, 0, 40, 26]])
    message = refused(MaskError, source, tmp_path / "no")
    assert message.startswith(f"{labels}: has the label id 40, and Cityscapes' go to 33.")
    labels.unlink()
    assert refused(DatasetError, source, tmp_path / "no") == f"{labels}: no such label file."


def test_a_map_keeps_the_objects_of_a_first_class_that_is_no_background(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    picture(source / "images/a.png", (1, 3))
    grey(source / "masks/a.png", [[0, 1, 1]])
    grey(source / "instances/a.png", [[1, 2, 3]], np.uint16)
    report = run(source, out, classes=("cell", "junk"), class_map="junk=dirt")
    assert report.objects == 3
    assert run(source, tmp_path / "o2", classes=("cell", "junk"), class_map="junk=bg").objects == 1


def test_object_ids_of_splits_and_of_masks_for_each_class(tmp_path: Path) -> None:
    source = tmp_path / "in"
    for split in ("train", "val"):
        picture(source / split / "images/a.png", (1, 2))
        grey(source / split / "masks/gland/a.png", [[0, 255]])
        grey(tmp_path / "ids" / split / "a.png", [[0, 7]], np.uint16)
    options: dict[str, Any] = {"instances": tmp_path / "ids"}
    assert run(source, tmp_path / "out", **options).objects == 2
    (tmp_path / "ids/val/a.png").unlink()
    report = run(source, tmp_path / "one", **options)
    assert report.objects == 1
    assert report.notes == ("images without object ids, where others have some: 1",)
    (tmp_path / "ids/val").rmdir()
    message = refused(DatasetError, source, tmp_path / "no", **options)
    assert message == (
        f"{tmp_path / 'ids/val'}: no such folder. The source has splits: put the object ids into a "
        "folder for each."
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"values": {0: "a"}, "format": "class-id"}, "--values: has no meaning for class-id."),
        ({"images": Path("x")}, "--images: has no meaning for class-id."),
        ({"class_property": "x"}, "--class-property: has no meaning for class-id."),
        (
            {"format": "rgb", "colours": ((1, 1, 1), (1, 1, 1))},
            "--colours: gives the colour (1, 1, 1) to two classes, and in RGB masks a colour is a",
        ),
        (
            {"values": {0: "a", 1: "b"}, "ignore_index": 1},
            "--ignore-index: 1 is the id of the class 'b', all of which would be ignored. Take 2 "
            "or more; --map b=ignore is the way to ignore a class.",
        ),
    ],
)
def test_options_that_clash(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    source = tmp_path / "in"
    picture(source / "images/a.png", (1, 2))
    grey(source / "masks/a.png", [[0, 1]])
    text = refused(SettingsError, source, tmp_path / "out", classes=("a", "b"), **options)
    assert text.startswith(message)


def test_photos_with_an_orientation_tag(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    (source / "images").mkdir(parents=True)
    exif = Pillow.Exif()
    exif[274] = 6
    photo = Pillow.fromarray(RNG.integers(0, 256, (2, 3, 3), dtype=np.uint8))
    photo.save(source / "images/a.jpg", exif=exif)
    grey(source / "masks/a.png", np.zeros((3, 2)))
    report = run(source, out, classes=("a", "b"))
    assert report.notes == (
        "images with an orientation tag, which is applied before labels are laid over: 1",
    )
    grey(source / "masks/a.png", np.zeros((2, 3)))
    message = refused(MaskError, source, tmp_path / "no", classes=("a", "b"))
    assert message.endswith(
        "Export the mask at 2 x 3, without interpolation. Labels are taken in the upright frame: "
        "an orientation tag is applied first."
    )


def test_a_list_of_names_and_masks_for_each_class(tmp_path: Path) -> None:
    source = tmp_path / "in"
    picture(source / "images/a.png", (1, 2))
    grey(source / "masks/a_gland.png", [[0, 255]])
    names = tmp_path / "names.txt"
    names.write_text("background\ngland\n")
    report = run(source, tmp_path / "out", format="binary", classes=names)
    assert report.pixels == {0: 1, 1: 1}


def test_a_class_map_at_import(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    picture(source / "images/a.png", (1, 4))
    grey(source / "masks/a.png", [[0, 1, 2, 3]])
    names = ("road", "car", "truck", "sky")
    colours = ((1, 1, 1), (2, 2, 2), (3, 3, 3), (4, 4, 4))
    report = run(
        source, out, classes=names, colours=colours, class_map="car=vehicle,truck=vehicle,sky=void"
    )
    assert report.classes == ("road", "vehicle")
    assert labels_of(out) == {"a": [[0, 1, 1, 255]]}
    assert Dataset.open(out).info.colours == ((1, 1, 1), (2, 2, 2))
    message = refused(SettingsError, source, tmp_path / "no", classes=names, class_map="bus=x")
    assert message == (
        "--map: maps 'bus', and there is no such class. There are road, car, truck, sky."
    )


@needs_shared
def test_white_blood_cells_equal_values_read_independently(tmp_path: Path) -> None:
    values = {0: "background", 128: "cytoplasm", 255: "nucleus"}
    report = run(SHARED / "white_blood_cells", tmp_path / "out", values=values)
    assert report.samples == {"all": 100}
    for sample in Dataset.open(tmp_path / "out").split("all"):
        assert sample.mask is not None
        file = SHARED / "white_blood_cells/masks" / f"{sample.name}.png"
        expected = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        found = read_mask(sample.mask)
        np.testing.assert_array_equal(np.array([0, 128, 255])[found], expected)


@needs_shared
def test_aerial_masks_by_suffix(tmp_path: Path) -> None:
    names = tuple(f"class{i}" for i in range(8))
    source = SHARED / "aerial"
    report = run(source, tmp_path / "out", classes=names, mask_suffix="_mask")
    assert report.samples == {"all": 3}
    for sample in Dataset.open(tmp_path / "out").split("all"):
        assert sample.mask is not None
        expected = cv2.imread(str(source / f"{sample.name}_mask.png"), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(read_mask(sample.mask), expected)
