from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from delineate.data.checks.check import check
from delineate.data.checks.fixing import fix
from delineate.data.dataset import read_info
from delineate.data.masks import read_mask, write_mask
from delineate.data.palette import default_colours
from delineate.data.png import encode_grey16
from delineate.errors import OutputError

BLACK = [(0, 0, 0)]


def contents(root: Path) -> dict[str, bytes]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


def test_what_is_safe_is_mended_in_a_copy(tissue: Path, tmp_path: Path) -> None:
    root = shutil.copytree(tissue, tmp_path / "flawed")
    info = read_info(root)
    text = (root / "dataset.yaml").read_text()
    (root / "dataset.yaml").write_text(text.replace("ignore_index: null", "ignore_index: 255"))
    masks = sorted((root / "train/masks").iterdir())
    truth = [read_mask(mask) for mask in masks[:4]]
    colours = np.array(info.colours or default_colours(4, info.classes), np.uint8)
    assert cv2.imwrite(str(masks[0]), colours[truth[0]][:, :, ::-1])
    assert cv2.imwrite(str(masks[1]), np.repeat(truth[1][:, :, None], 3, axis=2))
    masks[2].write_bytes(encode_grey16(truth[2].astype(np.uint16)))
    strays = truth[3].copy()
    strays[0, :3] = 99
    write_mask(masks[3], strays, BLACK)
    val = sorted((root / "val/images").iterdir())[0]
    copied = root / "train/images" / "copied.png"
    shutil.copyfile(val, copied)
    shutil.copyfile(root / "val/masks" / val.name, root / "train/masks/copied.png")
    (root / "train/masks" / masks[5].name).write_bytes(b"")
    source = contents(root)

    fixed = fix(root, tmp_path / "new")
    assert contents(root) == source
    assert [(c.file, c.what, c.why) for c in fixed.changes] == [
        (
            f"train/{kind}/copied.png",
            "removed",
            f"its image has the same pixels as val/images/{val.name}",
        )
        for kind in ("images", "masks")
    ] + [
        (
            f"train/masks/{masks[0].name}",
            "colours replaced by ids",
            "it was RGB in the colours of dataset.yaml",
        ),
        (f"train/masks/{masks[1].name}", "written with one channel", "it was grey saved as RGB"),
        (f"train/masks/{masks[2].name}", "written in 8 bits", "it has 16 bits and no id above 255"),
        (f"train/masks/{masks[3].name}", "3 pixels set to 255", "no class has their ids"),
    ]
    assert [(f.kind, f.file) for f in fixed.left] == [
        ("unreadable", f"train/masks/{masks[5].name}")
    ]
    expected = [*truth[:3], np.where(strays == 99, 255, strays)]
    for mask, labels in zip(masks, expected, strict=False):
        mended = read_mask(tmp_path / "new/train/masks" / mask.name)
        assert mended.dtype == np.uint8
        assert np.array_equal(mended, labels)
    new = contents(tmp_path / "new")
    log = [json.loads(line) for line in new.pop("fix.jsonl").decode().splitlines()]
    assert [entry["file"] for entry in log] == [change.file for change in fixed.changes]
    changed = {change.file for change in fixed.changes}
    assert {n: b for n, b in new.items() if n not in changed} == {
        n: b for n, b in source.items() if n not in changed
    }


def test_black_and_white_and_blurred_masks(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    truth = []
    for number in range(4):
        folder = tmp_path / "in" / ("val" if number == 3 else "train")
        for kind in ("images", "masks"):
            (folder / kind).mkdir(parents=True, exist_ok=True)
        picture = rng.integers(0, 256, (120, 160, 3), dtype=np.uint8)
        assert cv2.imwrite(str(folder / f"images/{number}.png"), picture)
        labels = np.zeros((120, 160), np.uint8)
        for x, y in rng.integers(20, 100, (3, 2)).tolist():
            cv2.circle(labels, (x, y), 14, 255, -1)
        truth.append(labels // 255)
        blurred = cv2.GaussianBlur(labels, (5, 5), 1) if number % 2 else labels
        write_mask(folder / f"masks/{number}.png", blurred, BLACK)
    (tmp_path / "in/dataset.yaml").write_text("classes: [background, thing]\n")
    assert {f.kind for f in check(tmp_path / "in")} == {"ids", "anti-aliased mask"}
    fixed = fix(tmp_path / "in", tmp_path / "new", workers=1)
    assert fixed.left == []
    for number, labels in enumerate(truth):
        split = "val" if number == 3 else "train"
        mended = read_mask(tmp_path / "new" / split / f"masks/{number}.png")
        assert set(np.unique(mended)) == {0, 1}
        wrong = int((mended != labels).sum())
        assert wrong <= (0.01 * labels.size if number % 2 else 0)


def test_the_copy_is_elsewhere_and_new(tissue: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError) as error:
        fix(tissue, tissue / "new")
    assert str(error.value) == (
        f"{tissue / 'new'}: lies inside the dataset. Name a folder beside it for --fix."
    )
    (tmp_path / "there").write_text("x")
    with pytest.raises(OutputError, match="exists already"):
        fix(tissue, tmp_path / "there")


def test_void_of_grey_masks_saved_as_rgb_becomes_no_class(tmp_path: Path) -> None:
    root = tmp_path / "set"
    for kind in ("images", "masks"):
        (root / "train" / kind).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for index, values in enumerate(((0, 255), (0, 1, 255))):
        mask = np.repeat(np.array(values, np.uint8), 8)[None].repeat(20, axis=0)
        name = f"{index}.png"
        photo = rng.integers(0, 256, (*mask.shape, 3), dtype=np.uint8)
        cv2.imwrite(str(root / "train/images" / name), photo)
        cv2.imwrite(str(root / "train/masks" / name), np.repeat(mask[:, :, None], 3, axis=2))
    (root / "dataset.yaml").write_text("classes: [background, cell]\n")
    assert fix(root, tmp_path / "kept").changes == []
    (root / "train/masks/1.png").write_bytes(b"")
    assert fix(root, tmp_path / "unread").changes == []
    for kind in ("images", "masks"):
        (root / "train" / kind / "1.png").unlink()
    changes = fix(root, tmp_path / "black and white").changes
    assert [change.what for change in changes] == ["written with one channel", "255 replaced by 1"]
