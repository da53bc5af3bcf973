from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from delineate.data.checks.check import check
from delineate.data.checks.features import image_features
from delineate.data.checks.findings import Finding
from delineate.data.checks.listing import Pair
from delineate.data.checks.sequences import shared_sequences
from delineate.data.dataset import Sample

SHARED = Path(__file__).resolve().parents[3].parent / "shared" / "data"
RNG = np.random.default_rng(3)


def scene() -> np.ndarray:
    noise = RNG.integers(0, 256, (6, 50, 3), dtype=np.uint8)
    return cv2.resize(noise, (1600, 96), interpolation=cv2.INTER_CUBIC)


def pan(n: int) -> list[np.ndarray]:
    """A camera that moves over a scene."""
    wide = scene()
    return [wide[:, 12 * i : 12 * i + 128] for i in range(n)]


def shuffled(n: int) -> list[np.ndarray]:
    return [
        cv2.resize(RNG.integers(0, 256, (8, 8, 3), dtype=np.uint8), (128, 96)) for _ in range(n)
    ]


def found(named: dict[str, np.ndarray], val: set[str]) -> list[Finding]:
    pairs = [
        Pair("val" if name in val else "train", Sample(name, Path(f"{name}.png"), None, None))
        for name in named
    ]
    return shared_sequences(
        pairs, [image_features(np.ascontiguousarray(p)) for p in named.values()]
    )


def test_frames_of_a_video_on_both_sides() -> None:
    named = {f"run1_{10 * i:05d}": p for i, p in enumerate(pan(30))}
    named |= {f"run2_{10 * i:05d}": p for i, p in enumerate(pan(30))}
    assert found(named, {f"run2_{10 * i:05d}" for i in range(20, 30)}) == [
        Finding(
            "sequence in two splits",
            "dataset.yaml",
            "two splits share frames of the sequence run2 (20 in train and 10 in val); neighbours "
            "by number look alike, so that a score flatters",
            "Put the images of both splits into one folder images, the masks into masks, and "
            "import that with --groups '^([^_]+)_' --val-fraction 0.2.",
        )
    ]
    assert found(named, {name for name in named if name.startswith("run2")}) == []


def test_all_of_one_sequence() -> None:
    named = {f"{i:04d}": p for i, p in enumerate(pan(30))}
    (finding,) = found(named, {f"{i:04d}" for i in range(25, 30)})
    assert "the sequence of all images (25 in train and 5 in val)" in finding.found
    assert finding.mend.startswith("All is one sequence: ")


@pytest.mark.parametrize("prefixes", [["img"], ["cat", "dog", "cow"]])
def test_numbers_alone_say_nothing(prefixes: list[str]) -> None:
    named = {f"{p}_{i:03d}": picture for p in prefixes for i, picture in enumerate(shuffled(40))}
    assert found(named, {name for name in named if int(name[-3:]) % 5 == 0}) == []


def test_images_of_one_layout_are_no_sequence() -> None:
    """All bright above and dark below, as street scenes; neighbours are no more alike."""
    layout = np.linspace(255, 0, 96, dtype=np.float32)[:, None, None]
    named = {
        f"img_{i:03d}": (0.6 * layout + 0.4 * picture).astype(np.uint8)
        for i, picture in enumerate(shuffled(60))
    }
    assert found(named, {f"img_{i:03d}" for i in range(0, 60, 4)}) == []


@pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/data")
def test_camvid_shares_a_sequence() -> None:
    findings = check(SHARED / "camvid")
    assert [(f.kind, f.file) for f in findings] == [
        ("sequence in two splits", "dataset.yaml"),
        ("label shift", "dataset.yaml"),
    ]
    assert findings[0].found == (
        "two splits share frames of the sequence 0016E5 (204 in train and 51 in val); neighbours "
        "by number look alike, so that a score flatters"
    )
    assert "--groups '^([^_]+)_'" in findings[0].mend
    assert "'sky' (17.56% and 9.33%" in findings[1].found
