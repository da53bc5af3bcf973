from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image as Pillow

from delineate.data.dataset import Dataset, read_instances
from delineate.data.formats.settings import ImportSettings
from delineate.data.importing import ImportReport, import_dataset
from delineate.data.masks import encode_mask, read_mask
from delineate.data.palette import voc_colours
from delineate.errors import (
    DatasetError,
    DelineateError,
    ImageError,
    MaskError,
    OutputError,
    SettingsError,
)

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/data")
RNG = np.random.default_rng(11)


def put(source: Path, stem: str, mask: np.ndarray | bytes, *, mask_stem: str = "") -> None:
    for folder in ("images", "masks"):
        (source / folder).mkdir(parents=True, exist_ok=True)
    height, width = (6, 8) if isinstance(mask, bytes) else mask.shape[:2]
    picture = RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)
    cv2.imwrite(str(source / "images" / f"{stem}.jpg"), picture)
    file = source / "masks" / f"{mask_stem or stem}.png"
    if isinstance(mask, bytes):
        file.write_bytes(mask)
    else:
        Pillow.fromarray(mask).save(file)


def run(source: Path, out: Path, **options: Any) -> ImportReport:
    return import_dataset(ImportSettings(source=source, out=out, **options))


def refusing(kind: type[DelineateError], source: Path, out: Path, **options: Any) -> str:
    with pytest.raises(kind) as caught:
        run(source, out, **options)
    assert not out.exists()
    assert [p.name for p in out.parent.iterdir()] == [source.name], "something was left behind"
    return str(caught.value)


def labels_of(out: Path) -> dict[str, np.ndarray]:
    dataset = Dataset.open(out)
    return {s.name: read_mask(s.mask) for part in dataset.splits.values() for s in part if s.mask}


def test_class_ids_and_bytes_are_kept(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    masks = {f"s{i}": RNG.integers(0, 3, (6, 8), dtype=np.uint8) for i in range(5)}
    masks["s0"][0] = 255
    for stem, mask in masks.items():
        put(source, stem, mask)
    names = tmp_path / "names.txt"
    names.write_text("background\nsmall thing\n\nlarge thing\n")
    report = run(source, out, classes=names, ignore_index=255, groups="^(s[0-9])")
    assert report.classes == ("background", "small thing", "large thing")
    assert report.samples == {"train": 4, "val": 1}
    every = np.stack(list(masks.values()))
    assert report.pixels == {i: int((every == i).sum()) for i in (0, 1, 2, 255)}
    for name, labels in labels_of(out).items():
        np.testing.assert_array_equal(labels, masks[name])
    dataset = Dataset.open(out)
    assert dataset.info.groups == "^(s[0-9])"
    for sample in (*dataset.split("train"), *dataset.split("val")):
        source_file = source / "images" / sample.image.name
        assert sample.image.read_bytes() == source_file.read_bytes()


def test_the_split_is_decided_by_the_seed_and_by_groups(tmp_path: Path) -> None:
    source = tmp_path / "in"
    for i in range(12):
        put(source, f"p{i % 3}_{i}", np.eye(6, 8, dtype=np.uint8))
    options: dict[str, Any] = {"classes": ("a", "b"), "groups": "^(p[0-9])_", "val_fraction": 0.3}
    run(source, tmp_path / "one", **options)
    run(source, tmp_path / "two", **options)
    one, two = Dataset.open(tmp_path / "one"), Dataset.open(tmp_path / "two")
    assert one.fingerprint() == two.fingerprint()
    assert len(one.split("val")) == 4
    assert len({s.group for s in one.split("val")}) == 1
    run(source, tmp_path / "three", classes=("a", "b"), val_fraction=0)
    assert list(Dataset.open(tmp_path / "three").splits) == ["all"]


def test_a_dataset_keeps_its_splits_and_description(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    for split, stem in (("train", "a"), ("train", "b"), ("val", "c"), ("test", "d")):
        put(source / split, stem, np.eye(6, 8, dtype=np.uint8))
    (source / "test/masks/d.png").unlink()
    yaml = "classes: [sky, rest]\nignore_index: 9\npixel_size_um: 0.5\n"
    (source / "dataset.yaml").write_text(yaml)
    report = run(source, out)
    assert report.samples == {"train": 2, "val": 1, "test": 1}
    info = Dataset.open(out).info
    assert (info.classes, info.ignore_index, info.pixel_size_um) == (("sky", "rest"), 9, 0.5)
    assert Dataset.open(out).split("test")[0].mask is None


def test_binary_masks(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    shape = np.eye(6, 8, dtype=np.uint8)
    put(source, "a", shape * 255)
    put(source, "b", shape)
    put(source, "c", shape.astype(bool))
    put(source, "d", np.dstack([shape * 255] * 3))
    put(source, "e", shape * 0)
    run(source, out, format="binary")
    for name, labels in labels_of(out).items():
        np.testing.assert_array_equal(labels, shape * (name != "e"))
    assert Dataset.open(out).info.classes == ("background", "foreground")


def test_binary_masks_with_an_ignored_value(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    mask = np.array([[0, 255, 128]], np.uint8)
    for stem in "ab":
        put(source, stem, mask)
    run(source, out, format="binary", ignore_index=128)
    for labels in labels_of(out).values():
        assert labels.tolist() == [[0, 1, 128]]


def test_a_binary_mask_with_other_values_is_refused_with_them(tmp_path: Path) -> None:
    source = tmp_path / "in"
    put(source, "a", np.array([[0, 128, 255]], np.uint8))
    assert refusing(MaskError, source, tmp_path / "out", format="binary", val_fraction=0) == (
        f"{source / 'masks' / 'a.png'}: has 3 values (0, 128, 255), and a binary mask has 0 and "
        "255, or 0 and 1. Use --format class-id if they are class ids; if they come from smoothing "
        "or resizing, export the mask without, or threshold it."
    )


VOC = np.array(voc_colours(256), np.uint8)
VOC_LABELS = np.array([[0, 1, 15, 20, 255]], np.uint8)


def renumbered() -> bytes:
    """The VOC mask as a tool saves it that keeps only the colours in use."""
    picture = Pillow.fromarray(np.arange(5, dtype=np.uint8)[None, :])
    picture.putpalette(VOC[VOC_LABELS[0]].tobytes())
    return png_bytes(picture)


def png_bytes(picture: Pillow.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    "mask",
    [
        encode_mask(VOC_LABELS, voc_colours(21)),
        png_bytes(Pillow.fromarray(VOC[VOC_LABELS])),
        png_bytes(Pillow.fromarray(VOC_LABELS)),
        renumbered(),
    ],
    ids=["indexed", "true colour", "grey", "renumbered palette"],
)
def test_voc_masks(tmp_path: Path, mask: bytes) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    put(source, "a", mask)
    cv2.imwrite(str(source / "images/a.jpg"), np.zeros((1, 5, 3), np.uint8))
    run(source, out, format="voc", val_fraction=0)
    np.testing.assert_array_equal(labels_of(out)["a"], VOC_LABELS)
    info = Dataset.open(out).info
    assert (len(info.classes), info.classes[15], info.ignore_index) == (21, "person", 255)
    assert info.colours == voc_colours(21)


def test_own_colours_name_the_classes_of_a_true_colour_mask(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    colours = ((255, 255, 255), (0, 0, 255), (0, 255, 0))
    labels = RNG.integers(0, 3, (6, 8), dtype=np.uint8)
    put(source, "a", np.array(colours, np.uint8)[labels])
    run(
        source, out, format="voc", classes=("road", "roof", "tree"), colours=colours, val_fraction=0
    )
    np.testing.assert_array_equal(labels_of(out)["a"], labels)


def test_colours_without_a_class_are_refused_with_their_count(tmp_path: Path) -> None:
    source = tmp_path / "in"
    mask = np.zeros((6, 8, 3), np.uint8)
    mask[0, :3] = (1, 2, 3)
    put(source, "a", mask)
    assert refusing(MaskError, source, tmp_path / "out", format="voc", val_fraction=0) == (
        f"{source / 'masks' / 'a.png'}: has 1 colour without a class: (1, 2, 3) 3 px. Give the "
        "colour of every class with --colours; colours that no class has come from smoothing or "
        "lossy compression, and the mask must be exported without."
    )


@settings(max_examples=10, deadline=None)
@given(labels=hnp.arrays(np.uint16, (3, 4), elements=st.integers(0, 400)))
def test_ids_beyond_a_byte_survive(
    labels: np.ndarray, tmp_path_factory: pytest.TempPathFactory
) -> None:
    base = tmp_path_factory.mktemp("many")
    put(base / "in", "a", encode_mask(labels, ()))
    cv2.imwrite(str(base / "in/images/a.jpg"), np.zeros((3, 4, 3), np.uint8))
    classes = tuple(f"class {i}" for i in range(401))
    run(base / "in", base / "out", classes=classes, val_fraction=0)
    np.testing.assert_array_equal(labels_of(base / "out")["a"], labels)


def test_masks_named_with_a_suffix_beside_their_images(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    put(source, "a", np.eye(6, 8, dtype=np.uint8), mask_stem="a_mask")
    flat = tmp_path / "flat"
    flat.mkdir()
    for file in (*source.rglob("*.jpg"), *source.rglob("*.png")):
        file.rename(flat / file.name)
    report = run(flat, out, classes=("a", "b"), mask_suffix="_mask", val_fraction=0)
    assert report.samples == {"all": 1}
    assert [p.name for p in (out / "masks").iterdir()] == ["a.png"]


def test_missing_pairs_are_counted_and_can_be_dropped(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    for i in range(9):
        put(source, f"s{i}", np.eye(6, 8, dtype=np.uint8))
    for i in range(6):
        (source / f"masks/s{i}.png").unlink()
    (source / "images/s8.jpg").unlink()
    assert refusing(DatasetError, source, out, classes=("a", "b")) == (
        f"{source / 'images'}: there are 6 of 8 images without a mask (s0.jpg, s1.jpg, s2.jpg, "
        "s3.jpg, s4.jpg, ...) and 1 of 3 masks without an image (s8.png). A mask is called as its "
        "image, whatever the ending. Add what is missing, or leave it out with --drop-unpaired."
    )
    report = run(source, out, classes=("a", "b"), drop_unpaired=True, val_fraction=0)
    assert report.samples == {"all": 2}
    assert [p.name for p in report.dropped] == [*(f"s{i}.jpg" for i in range(6)), "s8.png"]


def test_bad_files_leave_nothing_behind(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    for stem in "abc":
        put(source, stem, np.eye(6, 8, dtype=np.uint8))
    (source / "images/b.jpg").write_bytes(b"GIF89a")
    text = refusing(ImageError, source, out, classes=("a", "b"))
    assert text.startswith(f"{source / 'images' / 'b.jpg'}: is a GIF, not an image that can be")
    put(source, "c", np.eye(3, 3, dtype=np.uint8) * 9)
    text = refusing(DatasetError, source, out, classes=("a", "b"), val_fraction=0)
    assert text.startswith(
        f"{source / 'images' / 'b.jpg'}: 2 of 3 pairs cannot be imported (c.png and this one, "
        "which is a GIF"
    )


def test_the_output_is_protected(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    put(source, "a", np.eye(6, 8, dtype=np.uint8))
    out.mkdir()
    (out / "precious").write_text("x")
    with pytest.raises(OutputError, match="exists already"):
        run(source, out, classes=("a", "b"), val_fraction=0)
    with pytest.raises(OutputError, match="is or holds the source"):
        run(source, source, classes=("a", "b"), val_fraction=0, force=True)
    with pytest.raises(OutputError, match=r"is a folder without dataset\.yaml"):
        run(source, out, classes=("a", "b"), val_fraction=0, force=True)
    assert (out / "precious").exists()
    (out / "dataset.yaml").write_text("classes: [a, b]")
    run(source, out, classes=("a", "b"), val_fraction=0, force=True)
    assert not (out / "precious").exists()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            {},
            "--classes: the names of the classes are missing. Give them in the order of their ids, "
            "for example: --classes background,nucleus, or a text file with one a line.",
        ),
        (
            {"format": "binary", "classes": ("a", "b", "c")},
            "--classes: binary masks have 2 classes and 3 are named (a, b, c). Name two, the one "
            "of value 0 first, or use --format class-id.",
        ),
    ],
)
def test_classes_are_needed(tmp_path: Path, options: dict[str, Any], expected: str) -> None:
    source = tmp_path / "in"
    put(source, "a", np.eye(6, 8, dtype=np.uint8))
    assert refusing(SettingsError, source, tmp_path / "out", **options) == expected
    with pytest.raises(SettingsError, match="cannot be read as a list of class names"):
        run(source, tmp_path / "out", classes=tmp_path / "none.txt")
    with pytest.raises(SettingsError, match="class names must differ, and a is there twice"):
        run(source, tmp_path / "out", classes=("a", "a"))


def test_folders_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(DatasetError, match="no such f"):
        run(tmp_path / "none", tmp_path / "out")
    assert refusing(DatasetError, tmp_path / "in", tmp_path / "out") == (
        f"{tmp_path / 'in'}: is of no label format that is recognised. Name it with --format, and "
        "the folder of masks with --masks."
    )


@needs_shared
def test_voc_equals_values_read_independently(tmp_path: Path) -> None:
    source = SHARED / "voc"
    report = run(source, tmp_path / "out", format="voc", classes=source / "class_names.txt")
    found = labels_of(tmp_path / "out")
    assert len(found) == 3
    for name, labels in found.items():
        with Pillow.open(source / "SegmentationClass" / f"{name}.png") as picture:
            np.testing.assert_array_equal(labels, np.asarray(picture))
    assert report.pixels[255] == 10369


@needs_shared
def test_nuclei_equal_values_read_independently(tmp_path: Path) -> None:
    source = SHARED / "nuclei"
    report = run(source, tmp_path / "out", format="binary", classes=("background", "nucleus"))
    assert report.samples == {"train": 62, "val": 15}
    objects = 0
    for part in Dataset.open(tmp_path / "out").splits.values():
        for sample in part:
            file = f"{sample.name}.png"
            expected = cv2.imread(str(source / "masks" / file), cv2.IMREAD_UNCHANGED)
            assert set(np.unique(expected)) <= {0, 255}
            assert sample.mask is not None
            np.testing.assert_array_equal(read_mask(sample.mask), expected // 255)
            ids = cv2.imread(str(source / "instances" / file), cv2.IMREAD_UNCHANGED)
            found = read_instances(sample, expected.shape)
            assert found is not None
            np.testing.assert_array_equal(found, ids)
            objects += len(np.unique(ids)) - 1
    assert report.objects == objects


@needs_shared
def test_camvid_equals_values_read_independently(tmp_path: Path) -> None:
    source = tmp_path / "in"
    for split, first in (("train", 5), ("val", 3)):
        for kind in ("images", "masks"):
            (source / split / kind).mkdir(parents=True)
            for file in sorted((SHARED / "camvid" / split / kind).iterdir())[:first]:
                (source / split / kind / file.name).symlink_to(file)
    (source / "dataset.yaml").symlink_to(SHARED / "camvid" / "dataset.yaml")
    link = source / "train/images" / sorted(p.name for p in (source / "train/images").iterdir())[0]
    assert refusing(DatasetError, source, tmp_path / "out") == (
        f"{link}: is a link that leads out of the source, to {link.resolve()}. If that is meant, "
        "add --follow-links."
    )
    report = run(source, tmp_path / "out", follow_links=True)
    assert report.samples == {"train": 5, "val": 3}
    assert Dataset.open(tmp_path / "out").info == Dataset.open(source).info
    for sample in (s for part in Dataset.open(source).splits.values() for s in part):
        assert sample.mask is not None
        expected = cv2.imread(str(sample.mask), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(labels_of(tmp_path / "out")[sample.name], expected)
