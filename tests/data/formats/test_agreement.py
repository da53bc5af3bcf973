"""The same three photos in VOC, labelme and COCO: what the formats say of them agrees."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from delineate.data.dataset import Dataset
from delineate.data.formats.settings import ImportSettings
from delineate.data.importing import import_dataset
from delineate.data.masks import read_mask

SHARED = Path(__file__).resolve().parents[3].parent / "shared" / "data"
pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/data")
NAMES = ("2011_000003", "2011_000006", "2011_000025")
VOID = -1
BORDER_PX = 2


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, Any]]:
    """Masks of a format, with one numbering of the classes for all three."""
    order: dict[str, int] = {"background": 0, "_background_": 0}

    def read(label_format: str) -> dict[str, Any]:
        out = tmp_path_factory.mktemp(label_format) / "out"
        source = SHARED / label_format
        import_dataset(ImportSettings(source=source, out=out, val_fraction=0))
        data = Dataset.open(out)
        table = np.full(256, VOID, np.int16)
        for index, name in enumerate(data.info.classes):
            table[index] = order.setdefault(name, len(order))
        samples = data.split("all")
        return {s.name: table[read_mask(s.mask)] for s in samples if s.mask is not None}

    return read


def far_from_borders(labels: Any) -> Any:
    """Pixels with no other class (and no void) within ``BORDER_PX``."""
    kernel = np.ones((2 * BORDER_PX + 1,) * 2, np.uint8)
    values = (labels + 1).astype(np.uint8)
    same = cv2.dilate(values, kernel) == cv2.erode(values, kernel)
    return same & (labels != VOID)


@pytest.mark.parametrize(
    ("one", "other"), [("voc", "labelme"), ("voc", "coco"), ("labelme", "coco")]
)
def test_three_formats_agree(named: Callable[[str], dict[str, Any]], one: str, other: str) -> None:
    first, second = named(one), named(other)
    assert set(first) == set(second) == set(NAMES)
    agreeing = counted = 0
    for name in NAMES:
        # COCO knows no void: what the others ignore is background there, and is left out
        inside = far_from_borders(first[name]) & far_from_borders(second[name])
        agreeing += int((first[name] == second[name])[inside].sum())
        counted += int(inside.sum())
    assert counted > 450_000
    assert agreeing / counted >= 0.999
