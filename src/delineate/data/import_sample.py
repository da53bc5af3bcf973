"""One sample of an import: read, checked and written, or taken over from before."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from delineate.data import png
from delineate.data.dataset import ONLY_SPLIT
from delineate.data.files import link_or_copy
from delineate.data.formats.naming import means_background
from delineate.data.formats.source import Item
from delineate.data.images import IMAGE_SUFFIXES, decode_image, orientation, sniff
from delineate.data.import_target import Target
from delineate.data.journal import Record
from delineate.data.label_ids import count_ids, refuse_other_ids, refuse_other_size
from delineate.data.masks import encode_mask
from delineate.errors import DatasetError, DelineateError
from delineate.types import InstanceMap, LabelMap

_SUFFIX_OF = {"JPEG": ".jpg", "PNG": ".png", "TIFF": ".tif", "WebP": ".webp", "BMP": ".bmp"}
Known = Mapping[str, tuple[Path, Record]]
"""What is there already, by the hash of its source: the dataset it is in, and what it is."""


def import_sample(
    target: Target, folder: Path, known: Known, job: tuple[str, Item]
) -> tuple[Record, bool] | DelineateError:
    """Bring one sample into ``folder``; what it is, and whether it was there already.

    Errors are returned, so that the others go on.
    """
    split, item = job
    try:
        image = target.source.image_bytes(item)
        digest = hashlib.blake2b(target.digest, digest_size=20)
        digest.update(image)
        if item.labelled:
            digest.update(target.source.evidence(item))
        record = Record(
            split,
            item.name,
            _file_name(item, image),
            digest.hexdigest(),
            target.origin(item),
            turned=orientation(image, str(item.image or item.where)) != 1,
        )
        if record.source in known:
            root, before = known[record.source]
            record = replace(
                record, pixels=before.pixels, objects=before.objects, hidden=before.hidden
            )
            if _take_over(root, before, folder, record):
                return record, True
        return _convert(target, folder, item, image, record), False
    except DelineateError as error:
        return error


def split_folder(folder: Path, split: str, kind: str) -> Path:
    """Where files of a kind (images, masks, instances) of a split lie."""
    return folder / kind if split == ONLY_SPLIT else folder / split / kind


def files_of(record: Record) -> list[tuple[str, str]]:
    """Kind and name of each file of a sample."""
    files = [("images", record.file)]
    if record.pixels:
        files.append(("masks", f"{record.name}.png"))
    if record.objects is not None:
        files.append(("instances", f"{record.name}.png"))
    return files


def _file_name(item: Item, image: bytes) -> str:
    """The name of the image file: with a suffix by which a dataset finds it.

    Raises:
        DatasetError: the name is hidden or no name of a file.
    """
    if item.name.startswith(".") or Path(item.file_name).name != item.file_name:
        raise DatasetError(
            f"would be written as {item.file_name!r}, which is hidden or no name of a file",
            where=item.where,
            mend="Rename the image.",
        )
    suffix = Path(item.file_name).suffix
    if suffix.lower() in IMAGE_SUFFIXES and Path(item.file_name).stem == item.name:
        return item.file_name
    return item.name + _SUFFIX_OF[sniff(image[:64], str(item.image or item.where))]


def _take_over(root: Path, before: Record, folder: Path, record: Record) -> bool:
    """Give the files of ``before`` the names of ``record``; False when one is gone."""
    for (kind, old), (_, new) in zip(files_of(before), files_of(record), strict=True):
        here = split_folder(root, before.split, kind) / old
        wanted = split_folder(folder, record.split, kind) / new
        if here == wanted:
            if not here.is_file():
                return False
        else:
            wanted.parent.mkdir(parents=True, exist_ok=True)
            if not link_or_copy(here, wanted):
                return False
    return True


def _write(path: Path, data: bytes) -> None:
    path.unlink(missing_ok=True)  # it may be a second name of a file in an older dataset
    path.write_bytes(data)


def _convert(
    target: Target, folder: Path, item: Item, image_bytes: bytes, record: Record
) -> Record:
    image = decode_image(image_bytes, str(item.image or item.where))
    copy = split_folder(folder, record.split, "images") / record.file
    if not item.labelled:
        _write(copy, image_bytes)
        return record
    hw = (image.shape[0], image.shape[1])
    found = target.source.labels(item, hw, target.given)
    labels = found.classes
    instances = found.instances if target.keeps_objects else None
    where = Path(item.where)
    refuse_other_size(image, labels, where, Path(item.file_name))
    refuse_other_ids(labels, target.given.classes, target.given.ignore_index, where)
    if target.remapping is not None:
        labels = target.remapping.apply(labels)
        instances = _without_rest(instances, labels, target)
    _write(copy, image_bytes)
    masks = split_folder(folder, record.split, "masks")
    _write(masks / f"{item.name}.png", encode_mask(labels, target.colours))
    objects = None
    if instances is not None:
        objects = sum(i > 0 for i in count_ids(instances))
        other = split_folder(folder, record.split, "instances")
        other.mkdir(exist_ok=True)
        _write(other / f"{item.name}.png", png.encode_grey16(instances))
    return replace(record, pixels=count_ids(labels), objects=objects, hidden=found.hidden)


def _without_rest(
    instances: InstanceMap | None, labels: LabelMap, target: Target
) -> InstanceMap | None:
    """Objects whose class was mapped to the background or ignored are none any more."""
    if instances is None:
        return None
    none = [i for i, name in enumerate(target.info.classes) if means_background(name)]
    if target.info.ignore_index is not None:
        none.append(target.info.ignore_index)
    kept = instances.copy()
    kept[np.isin(labels, none)] = 0
    return kept
