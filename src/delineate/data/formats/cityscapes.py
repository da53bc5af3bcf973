"""Cityscapes (Cordts et al. 2016): leftImg8bit and gtFine as downloaded.

    leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png
    gtFine/train/aachen/aachen_000000_000019_gtFine_labelIds.png   (and ..._instanceIds.png)

The 34 label ids become the 19 classes that the benchmark scores (its "train ids"); everything else
is the ignore index 255. Objects are those of gtFine_instanceIds (label id * 1000 + number) whose
class is scored.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from delineate.data.dataset import DatasetInfo
from delineate.data.formats.naming import refuse_link_outside
from delineate.data.formats.pairing import read_item_image
from delineate.data.formats.settings import ImportSettings
from delineate.data.formats.source import Item, Labels, Proposal
from delineate.data.masks import read_mask, read_mask_bytes
from delineate.errors import DatasetError, MaskError
from delineate.types import InstanceMap, LabelMap

IGNORE = 255
_LABELS = 34
# (name, label id, colour) in the order of the train ids, from cityscapesscripts/helpers/labels.py
_CLASSES = (
    ("road", 7, (128, 64, 128)),
    ("sidewalk", 8, (244, 35, 232)),
    ("building", 11, (70, 70, 70)),
    ("wall", 12, (102, 102, 156)),
    ("fence", 13, (190, 153, 153)),
    ("pole", 17, (153, 153, 153)),
    ("traffic light", 19, (250, 170, 30)),
    ("traffic sign", 20, (220, 220, 0)),
    ("vegetation", 21, (107, 142, 35)),
    ("terrain", 22, (152, 251, 152)),
    ("sky", 23, (70, 130, 180)),
    ("person", 24, (220, 20, 60)),
    ("rider", 25, (255, 0, 0)),
    ("car", 26, (0, 0, 142)),
    ("truck", 27, (0, 0, 70)),
    ("bus", 28, (0, 60, 100)),
    ("train", 31, (0, 80, 100)),
    ("motorcycle", 32, (0, 0, 230)),
    ("bicycle", 33, (119, 11, 32)),
)
_IMAGE = "_leftImg8bit"


def is_cityscapes(folder: Path) -> bool:
    """Whether ``folder`` is laid out as Cityscapes is."""
    return (folder / "leftImg8bit").is_dir() and any(
        (folder / name).is_dir() for name in ("gtFine", "gtCoarse")
    )


class CityscapesSource:
    """Cityscapes as downloaded, as :class:`delineate.data.formats.source.Source`.

    Raises:
        DatasetError: no such folders, or an image of train or val without its label file.
    """

    def __init__(self, settings: ImportSettings) -> None:
        root = settings.source
        if not is_cityscapes(root):
            raise DatasetError("holds no folders leftImg8bit and gtFine", where=root)
        self._kind = "gtFine" if (root / "gtFine").is_dir() else "gtCoarse"
        self.items = tuple(self._list(root))
        if not self.items:
            raise DatasetError("holds no images", where=root / "leftImg8bit")
        for item in self.items:
            instances = None if item.key is None else _instance_file(item.key)
            for file in (item.image, item.key, instances):
                if file is not None:
                    refuse_link_outside(file, root, follow_links=settings.follow_links)
        self.proposal = Proposal(
            classes=tuple(name for name, _, _ in _CLASSES),
            ignore_index=IGNORE,
            colours=tuple(colour for _, _, colour in _CLASSES),
            groups=r"^([^_]+)_",
            notes=("the 19 classes of the benchmark; other label ids are ignored",),
        )

    def _list(self, root: Path) -> Iterator[Item]:
        for image in sorted(root.glob(f"leftImg8bit/*/*/*{_IMAGE}.png")):
            split, city = image.parts[-3:-1]
            name = image.stem.removesuffix(_IMAGE)
            labels = root / self._kind / split / city / f"{name}_{self._kind}_labelIds.png"
            if not labels.is_file() and split != "test":
                raise DatasetError("no such label file", where=labels)
            there = labels.is_file() and split != "test"  # test masks are published empty
            key = labels if there else None
            yield Item(name, f"{name}.png", str(image), image, split, there, key)

    def image_bytes(self, item: Item) -> bytes:
        return read_item_image(item)

    def labels(self, item: Item, hw: tuple[int, int], info: DatasetInfo) -> Labels:  # noqa: ARG002
        ids = read_mask(item.key)
        if int(ids.max()) >= _LABELS:
            raise MaskError(
                f"has the label id {int(ids.max())}, and Cityscapes' go to {_LABELS - 1}",
                where=item.key,
                mend="Train ids and others are imported with --format class-id.",
            )
        table = np.full(_LABELS, IGNORE, np.uint8)
        for train_id, (_, label_id, _) in enumerate(_CLASSES):
            table[label_id] = train_id
        labels: LabelMap = table[ids]
        return Labels(labels, _instances(_instance_file(item.key), labels))

    def evidence(self, item: Item) -> bytes:
        instances = _instance_file(item.key)
        tail = read_mask_bytes(instances) if instances.is_file() else b""
        return read_mask_bytes(item.key) + tail


def _instance_file(labels: Path) -> Path:
    return labels.with_name(labels.name.replace("_labelIds", "_instanceIds"))


def _instances(file: Path, labels: LabelMap) -> InstanceMap | None:
    """Objects of the classes that are scored; None where there is no file of them."""
    if not file.is_file():
        return None
    stored = read_mask(file)
    if stored.shape != labels.shape:
        (height, width), (rows, columns) = stored.shape, labels.shape
        raise MaskError(
            f"is {width} x {height} pixels (width x height), and its label file is "
            f"{columns} x {rows}",
            where=file,
            mend="Download it again, or remove it to import no objects.",
        )
    ids = np.where(labels == IGNORE, 0, stored)
    objects = np.unique(ids[ids >= 1000])
    numbers = np.zeros(65536, np.uint16)
    numbers[objects] = np.arange(1, len(objects) + 1)
    instances: InstanceMap = numbers[ids]
    return instances
