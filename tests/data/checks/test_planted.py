"""Each flaw is planted in copies of real and generated data and found, and nothing else is."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest

from delineate.data.checks.check import check
from delineate.data.checks.findings import Finding
from delineate.data.dataset import read_info
from delineate.data.images import read_image
from delineate.data.masks import read_mask, write_mask
from delineate.data.png import encode_grey16
from delineate.data.synth import TissueSettings, synthesise

BLACK = [(0, 0, 0)]


def save(path: Path, image: np.ndarray) -> None:
    assert cv2.imwrite(str(path), image[:, :, ::-1] if image.ndim == 3 else image)


@dataclass(frozen=True)
class Planted:
    """What a check finds in a dataset, and beyond that in its copy with flaws.

    Attributes:
        stems: of the samples of train, in order; each flaw has one of its own.
    """

    root: Path
    before: list[Finding]
    after: list[Finding]
    stems: list[str]

    def of(self, file: str) -> list[tuple[str, str]]:
        return [(f.kind, f.found) for f in self.after if f.file == file]


def plant_copies(root: Path, image: Path, mask: Path) -> None:
    picture, labels = read_image(image), read_mask(mask)
    half = cv2.resize(picture, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    versions = {
        "jpeg.jpg": (picture, labels),
        "half.png": (half, labels[::2, ::2][: half.shape[0], : half.shape[1]]),
        "mirrored.png": (picture[:, ::-1], labels[:, ::-1]),
        "turned.png": (np.rot90(picture), np.rot90(labels)),
    }
    for name, (pixels, ids) in versions.items():
        save(root / "val/images" / name, np.ascontiguousarray(pixels))
        target = (root / "val/masks" / name).with_suffix(".png")
        write_mask(target, np.ascontiguousarray(ids), BLACK)


def plant_masks(masks: list[Path]) -> None:
    """Anti-aliased, RGB, grey as RGB, stray values."""
    labels = [read_mask(mask) for mask in masks]
    scaled = labels[0] * np.uint8(250 // max(1, int(labels[0].max())))
    large = cv2.resize(scaled, None, fx=2, fy=2, interpolation=cv2.INTER_LINEAR)
    small = cv2.resize(large, scaled.shape[::-1], interpolation=cv2.INTER_AREA)
    write_mask(masks[0], small, BLACK)
    colours = np.random.default_rng(1).integers(0, 256, (256, 3), dtype=np.uint8)
    save(masks[1], colours[labels[1]])
    save(masks[2], np.repeat(labels[2][:, :, None], 3, axis=2))
    labels[3][5, 5:7] = 77
    write_mask(masks[3], labels[3], BLACK)


def plant_images(images: list[Path]) -> None:
    """Constant, nearly so, dark."""
    shapes = [read_image(image).shape for image in images]
    noise = np.random.default_rng(0).integers(99, 101, shapes[1], dtype=np.uint8)
    dark = np.zeros(shapes[2], np.uint8)
    dark[:, :6] = 200
    for image, pixels in zip(images, (np.full(shapes[0], 9, np.uint8), noise, dark), strict=True):
        image.unlink()
        save(image.with_suffix(".png"), pixels)


def plant_objects(root: Path, mask: Path) -> None:
    """Object 3 has two classes, object 9 one."""
    labels = read_mask(mask)
    (root / "train/instances").mkdir(exist_ok=True)
    ids = np.zeros(labels.shape, np.uint16)
    for value in np.unique(labels)[:2]:
        ids[tuple(np.argwhere(labels == value)[0])] = 3
    ids[tuple(np.argwhere(labels == labels.min())[-1])] = 9
    (root / "train/instances" / mask.name).write_bytes(encode_grey16(ids))


@pytest.fixture(scope="module")
def planted(clean: Path, tmp_path_factory: pytest.TempPathFactory) -> Planted:
    root = tmp_path_factory.mktemp("planted") / "copy"
    shutil.copytree(clean, root)
    images = sorted((root / "train/images").iterdir())
    masks = [root / "train/masks" / f"{image.stem}.png" for image in images]
    plant_copies(root, images[0], masks[0])
    plant_masks(masks[1:5])
    plant_images(images[5:8])
    save(images[8].with_suffix(".png"), read_image(images[8])[::-1] // 2)
    if images[8].suffix != ".png":
        images[8].unlink()
    size = read_mask(masks[8]).shape[::-1]
    write_mask(masks[8], read_mask(masks[8])[::-1].copy(), BLACK)
    # one mask for two images
    save(images[9].with_suffix(".png"), cv2.resize(read_image(images[9]), size))
    if images[9].suffix != ".png":
        images[9].unlink()
    shutil.copyfile(masks[8], masks[9])
    # one image with two masks
    shutil.copyfile(images[10], images[10].with_name(f"zz{images[10].suffix}"))
    labels = read_mask(masks[10])
    labels[:4] = (labels[:4] + 1) % len(read_info(root).classes)
    write_mask(masks[10].with_name("zz.png"), labels, BLACK)
    plant_objects(root, masks[11])
    before = check(clean)
    return Planted(
        root, before, [f for f in check(root) if f not in before], [i.stem for i in images]
    )


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_clean_generated_data_have_no_findings(tmp_path: Path, seed: int) -> None:
    synthesise(tmp_path / "t", TissueSettings(n=24, size=96, seed=seed, instances=True))
    assert check(tmp_path / "t") == []
    text = (tmp_path / "t/dataset.yaml").read_text().split("groups:")[0]
    (tmp_path / "t/dataset.yaml").write_text(text)
    assert check(tmp_path / "t") == []


def test_parts_of_real_data_are_clean(planted: Planted) -> None:
    # one field of nuclei is truly dark, and two cells are truly one
    assert {f.kind for f in planted.before} <= {"saturated", "near-duplicate", "two labels"}
    assert len(planted.before) <= 1


def test_near_duplicates(planted: Planted) -> None:
    found = [f for f in planted.after if f.kind == "near-duplicate"]
    source = next((planted.root / "train/images").glob(f"{planted.stems[0]}.*"))
    same = f"shows nearly the same as train/images/{source.name}"
    assert [(f.file, f.found) for f in found] == [
        ("val/images/half.png", same),
        ("val/images/jpeg.jpg", same),
        ("val/images/mirrored.png", f"{same}, mirrored or turned"),
        ("val/images/turned.png", f"{same}, mirrored or turned"),
    ]
    assert {f.severity for f in found} == {"error"}


def test_masks(planted: Planted) -> None:
    anti, rgb, grey, stray = (planted.of(f"train/masks/{s}.png") for s in planted.stems[1:5])
    assert [kind for kind, _ in anti] == ["anti-aliased mask"]
    assert [kind for kind, _ in rgb] == ["rgb mask"]
    assert rgb[0][1].startswith("is RGB with ")
    assert grey == [
        (
            "rgb mask",
            "is grey saved as RGB: all three channels are the same, and a mask has one",
        )
    ]
    assert stray == [("stray values", "has 2 pixels of the id 77, which no class has")]


def test_blank_and_saturated_images(planted: Planted) -> None:
    found = [f for f in planted.after if f.kind in ("blank", "saturated")]
    assert [(f.kind, f.file) for f in found] == [
        (kind, f"train/images/{stem}.png")
        for kind, stem in zip(("blank", "blank", "saturated"), planted.stems[5:8], strict=True)
    ]
    assert found[0].found == "every pixel has the same value"


def test_one_mask_for_two_images_and_the_reverse(planted: Planted) -> None:
    stems = planted.stems
    masks = [(f.file, f.found) for f in planted.after if f.kind == "same mask"]
    assert (
        f"train/masks/{stems[9]}.png",
        f"is the same as train/masks/{stems[8]}.png, and their images differ",
    ) in masks
    (two,) = (f for f in planted.after if f.kind == "two labels")
    assert two.file.startswith("train/images/zz.")
    assert two.found.startswith(f"has the same pixels as train/images/{stems[10]}.")


def test_objects(planted: Planted) -> None:
    stem = planted.stems[11]
    found = planted.of(f"train/instances/{stem}.png")
    assert found[0] == (
        "object of two classes",
        "has 1 object that the mask gives more than one class (id 3)",
    )
    labels = read_mask(planted.root / "train/masks" / f"{stem}.png")
    with_background = labels.min() == 0 and read_info(planted.root).classes[0] == "background"
    expected = ("object on background", "has 1 object that the mask calls background (id 9)")
    assert found[1:] == ([expected] if with_background else [])


def test_object_ids_of_another_size(tissue: Path, tmp_path: Path) -> None:
    root = shutil.copytree(tissue, tmp_path / "copy")
    (root / "train/instances").mkdir()
    name = sorted((root / "train/images").iterdir())[0].name
    ids = np.zeros((127, 128), np.uint16)
    (root / "train/instances" / name).write_bytes(encode_grey16(ids))
    (finding,) = check(root)
    assert (finding.kind, finding.found) == (
        "object size",
        f"is 128 x 127 pixels (width x height), and its image {name} is 128 x 128",
    )


def test_a_grey_image_among_colour(tissue: Path, tmp_path: Path) -> None:
    root = shutil.copytree(tissue, tmp_path / "copy")
    image = sorted((root / "train/images").iterdir())[0]
    save(image, cv2.cvtColor(read_image(image), cv2.COLOR_RGB2GRAY))
    (finding,) = check(root)
    assert (finding.kind, finding.found) == (
        "another kind",
        "is grey, and nearly all images have colour",
    )


def test_label_shift(tissue: Path, tmp_path: Path) -> None:
    root = shutil.copytree(tissue, tmp_path / "copy")
    for mask in (root / "val/masks").iterdir():
        labels = read_mask(mask)
        labels[:80] = 1
        write_mask(mask, labels, BLACK)
    (finding,) = (f for f in check(root) if f.kind == "label shift")
    assert finding.found.startswith("train and val differ in the share of pixels of ")
    assert "'stroma'" in finding.found
