from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from delineate.data.dataset import DatasetInfo
from delineate.data.formats.cityscapes import CityscapesSource
from delineate.data.formats.settings import ImportSettings
from delineate.data.formats.source import Labels
from delineate.errors import DatasetError, MaskError

STEM = "aachen_000000_000019"


def write(root: Path, labels: list[list[int]], instances: list[list[int]]) -> Path:
    """One image; the path of its instance file."""
    image = root / f"leftImg8bit/train/aachen/{STEM}_leftImg8bit.png"
    mask = root / f"gtFine/train/aachen/{STEM}_gtFine_labelIds.png"
    for file in (image, mask):
        file.parent.mkdir(parents=True)
    Image.fromarray(np.zeros((*np.shape(labels), 3), np.uint8)).save(image)
    Image.fromarray(np.array(labels, np.uint8)).save(mask)
    objects = mask.with_name(f"{STEM}_gtFine_instanceIds.png")
    Image.fromarray(np.array(instances, np.uint16)).save(objects)
    return objects


def read(root: Path) -> Labels:
    source = CityscapesSource(ImportSettings(source=root, out=root / "out"))
    info = DatasetInfo(classes=source.proposal.classes or (), ignore_index=255)
    return source.labels(source.items[0], (1, 4), info)


def test_objects_of_classes_that_are_not_scored_are_none(tmp_path: Path) -> None:
    write(tmp_path, [[7, 29, 26, 26]], [[7, 29000, 26001, 26000]])  # 29: caravan
    found = read(tmp_path)
    assert found.classes.tolist() == [[0, 255, 13, 13]]
    assert found.instances is not None
    assert found.instances.tolist() == [[0, 0, 2, 1]]


def test_objects_of_another_size_are_refused(tmp_path: Path) -> None:
    file = write(tmp_path, [[7, 29, 26, 26]], [[7, 29000], [26001, 26000]])
    with pytest.raises(MaskError) as caught:
        read(tmp_path)
    assert str(caught.value) == (
        f"{file}: is 2 x 2 pixels (width x height), and its label file is 4 x 1. Download it "
        "again, or remove it to import no objects."
    )


def test_objects_behind_a_link_that_leads_out_are_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "in", [[7, 29, 26, 26]], [[7, 29000, 26001, 26000]])
    file.rename(tmp_path / "there.png")
    file.symlink_to(tmp_path / "there.png")
    with pytest.raises(DatasetError) as caught:
        read(tmp_path / "in")
    assert caught.value.found == f"is a link that leads out of the source, to {tmp_path}/there.png"
