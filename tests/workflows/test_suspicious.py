from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from delineate.bundle.load import Bundle
from delineate.data.masks import read_mask, write_mask
from delineate.errors import DatasetError
from delineate.workflows.suspicious import suspicious_labels

pytest.importorskip("cleanlab")

CLASSES = ("sky", "ground", "car")


@pytest.fixture
def striped(tmp_path: Path) -> Path:
    """Stripes whose brightness is their class."""
    rng = np.random.default_rng(1)
    for number in range(6):
        split = tmp_path / ("val" if number == 5 else "train")
        for kind in ("images", "masks"):
            (split / kind).mkdir(parents=True, exist_ok=True)
        labels = np.repeat(rng.integers(0, 3, (6, 8)), 10, axis=0).repeat(8, axis=1)
        picture = (60 * labels + 30).astype(np.uint8)[:, :, None].repeat(3, axis=2)
        assert cv2.imwrite(str(split / f"images/{number}.png"), picture)
        write_mask(split / f"masks/{number}.png", labels.astype(np.uint8), [(0, 0, 0)])
    (tmp_path / "dataset.yaml").write_text("classes: [sky, ground, car]\nignore_index: 255\n")
    return tmp_path


def test_wrong_labels_are_suspicious(striped: Path, fake_bundle: Callable[..., Bundle]) -> None:
    bundle = fake_bundle(*CLASSES)
    sound = suspicious_labels(bundle, striped)
    assert (sound.suspicious, sound.confused, sound.findings) == (0.0, None, [])
    mask = striped / "train/masks/2.png"
    labels = read_mask(mask)
    wrong = (labels == 2) & (np.arange(64)[None, :] < 40)
    labels[wrong] = 1
    labels[:5] = 255
    write_mask(mask, labels, [(0, 0, 0)])
    told: list[tuple[int, int]] = []
    found = suspicious_labels(bundle, striped, on_progress=lambda d, n: told.append((d, n)))
    assert found.doubts[0].file == "train/masks/2.png"
    share = float(wrong[5:].sum() / (labels != 255).sum())
    assert found.doubts[0].suspicious == pytest.approx(share, abs=0.02)
    assert found.doubts[0].quality < min(doubt.quality for doubt in found.doubts[1:])
    assert found.confused is not None
    assert found.confused[:2] == ("ground", "car")
    assert [(f.kind, f.file) for f in found.findings] == [
        ("suspicious labels", "train/masks/2.png")
    ]
    assert told[-1] == (6, 6)
    assert found.to_dict()["left_out"] == 0


def test_unreadable_pairs_are_counted(striped: Path, fake_bundle: Callable[..., Bundle]) -> None:
    (striped / "val/masks/5.png").write_bytes(b"")
    assert suspicious_labels(fake_bundle(*CLASSES), striped).left_out == 1


def test_other_classes_are_refused(striped: Path, fake_bundle: Callable[..., Bundle]) -> None:
    with pytest.raises(DatasetError) as error:
        suspicious_labels(fake_bundle("a", "b", "c"), striped)
    assert str(error.value) == (
        f"{striped}: its classes are sky, ground, car, those of by-brightness are a, b, c. "
        "Give a bundle with the same classes in the same order."
    )
