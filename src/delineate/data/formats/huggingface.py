"""Datasets of the Hugging Face library on disk: images and masks in Arrow or Parquet files.

Read are folders that ``Dataset.save_to_disk`` and ``DatasetDict.save_to_disk`` wrote, and folders
of Parquet files as the Hub holds them (``data/train-00000-of-00002.parquet``). An image is a pair
of ``bytes`` and ``path``; its bytes stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from delineate.data.dataset import ONLY_SPLIT, DatasetInfo
from delineate.data.formats.huggingface_files import (
    RowGroups,
    Shard,
    import_pyarrow,
    is_huggingface,
    list_shards,
    open_shard,
)
from delineate.data.formats.naming import BACKGROUND, file_inside
from delineate.data.formats.pairing import read_bytes
from delineate.data.formats.settings import IGNORE_NAMES, ImportSettings
from delineate.data.formats.source import Item, Labels, Proposal
from delineate.data.images import IMAGE_SUFFIXES, sniff
from delineate.data.label_ids import refuse_other_ids
from delineate.data.masks import decode_mask
from delineate.errors import DatasetError, ImageError, MaskError

__all__ = ["HuggingFaceSource", "is_huggingface", "open_huggingface"]

_IMAGE_NAMES = ("image", "images", "img", "pixel_values")
_MASK_NAMES = (
    "mask",
    "masks",
    "label",
    "labels",
    "annotation",
    "annotations",
    "segmentation",
    "segmentation_mask",
    "semantic_mask",
    "semantic_segmentation",
    "seg_map",
    "label_mask",
)
_CLASS_COLUMNS = ("classes", "class_names", "categories", "semantic_classes")
_SPLITS = {"validation": "val", "valid": "val", "dev": "val"}
_SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "TIFF": ".tif", "WebP": ".webp", "BMP": ".bmp"}
_HEAD_BYTES = 64


class HuggingFaceSource:
    """Rows of Arrow or Parquet, as :class:`delineate.data.formats.source.Source`.

    Arrow files are memory-mapped; of Parquet files a few row groups are held at a time.
    """

    def __init__(self, settings: ImportSettings) -> None:
        import_pyarrow()
        self._root = settings.images or settings.source
        self._follow_links = settings.follow_links
        files = list_shards(settings.source, follow_links=settings.follow_links)
        groups = RowGroups()
        shards = [(split, open_shard(file, groups)) for split, file in files]
        if not any(shard.rows for _, shard in shards):
            raise DatasetError("has no rows", where=settings.source)
        features = shards[0][1].features
        self._image, self._mask = _columns(features, settings.source)
        for _, shard in shards:
            _refuse_other_columns(shard, self._image, self._mask)
        self.items: Sequence[Item] = tuple(self._list(shards))
        named, ignore, notes = _class_names(features, settings.source)
        notes = (f"images are the column {self._image!r}, masks {self._mask!r}", *notes)
        self.proposal = Proposal(classes=named, ignore_index=ignore, notes=notes)

    def _list(self, shards: Sequence[tuple[str, Shard]]) -> Iterator[Item]:
        names = {_SPLITS.get(split, split) for split, _ in shards}
        for split in sorted(names):
            own = [shard for name, shard in shards if _SPLITS.get(name, name) == split]
            rows = [(shard, row) for shard in own for row in range(shard.rows)]
            paths = [path for shard in own for _, path in shard.heads(self._image)]
            masked = [there for shard in own for there, _ in shard.heads(self._mask)]
            stems = [PurePosixPath(path.replace("\\", "/")).stem if path else "" for path in paths]
            unique = len(set(stems)) == len(stems) and all(map(_is_file_name, stems))
            suffixes: dict[Path, str] = {}
            digits = len(str(len(rows) - 1))
            for index, ((shard, row), path) in enumerate(zip(rows, paths, strict=True)):
                name = stems[index] if unique else f"{split}_{index:0{digits}d}"
                suffix = PurePosixPath(path or "").suffix.lower()
                if suffix not in IMAGE_SUFFIXES:
                    if shard.path not in suffixes:
                        suffixes[shard.path] = self._suffix(shard, row)
                    suffix = suffixes[shard.path]
                yield Item(
                    name,
                    name + suffix,
                    f"{shard.path}, row {row}",
                    None,
                    split=ONLY_SPLIT if len(names) == 1 else split,
                    labelled=masked[index],
                    key=(shard, row),
                )

    def _suffix(self, shard: Shard, row: int) -> str:
        """What images without a known suffix are called after: the kind of the first of a shard."""
        try:
            return _SUFFIXES[sniff(self._bytes(shard, row, self._image)[:_HEAD_BYTES], "")]
        except (ImageError, MaskError, DatasetError):
            return ".png"  # what is wrong is said when it is read

    def image_bytes(self, item: Item) -> bytes:
        shard, row = item.key
        try:
            return self._bytes(shard, row, self._image)
        except MaskError as error:
            raise ImageError(error.found, where=error.where, mend=error.mend) from error

    def evidence(self, item: Item) -> bytes:
        shard, row = item.key
        return self._bytes(shard, row, self._mask)

    def labels(self, item: Item, hw: tuple[int, int], info: DatasetInfo) -> Labels:
        place = f"{item.where}, column {self._mask!r}"
        try:
            mask = decode_mask(self.evidence(item), place)
        except MaskError as error:
            raise _refused(error, place) from error
        if mask.shape != hw:
            raise MaskError(
                f"is {mask.shape[1]} x {mask.shape[0]} pixels (width x height), and its image is "
                f"{hw[1]} x {hw[0]}",
                where=place,
                mend=f"Write the mask at {hw[1]} x {hw[0]}, without interpolation.",
            )
        refuse_other_ids(mask, info.classes, info.ignore_index, Path(place))
        return Labels(mask)

    def _bytes(self, shard: Shard, row: int, column: str) -> bytes:
        place = f"{shard.path}, row {row}, column {column!r}"
        value = shard.value(column, row)
        if value is None or (value["bytes"] is None and not value["path"]):
            raise MaskError("is empty", where=place, mend="Remove the row, or fill it.")
        if value["bytes"] is not None:
            return bytes(value["bytes"])
        try:
            file = file_inside(self._root, value["path"], place, follow_links=self._follow_links)
        except DatasetError as error:
            raise DatasetError(
                error.found,
                where=error.where,
                mend="Write the images into the dataset: the library's embed_table_storage does.",
            ) from error
        return read_bytes(file)


def open_huggingface(settings: ImportSettings) -> HuggingFaceSource:
    """A folder that ``save_to_disk`` wrote, or one of Parquet files.

    The columns are found by their type (image) and name (image, img, pixel_values; mask, label,
    annotation, segmentation and the like); of two image columns of which one has such a name the
    other is the other. ``validation`` becomes ``val``; one split alone is divided as if it had
    none. Class names come from ``id2label.json`` in the folder, or from a list of class labels.
    Samples are called after their paths where all of a split have different ones that a file can
    have, otherwise by split and number. A row without a mask is not labelled.

    Raises:
        DatasetError: damaged files, no such columns, or names of classes with gaps.
        MissingExtraError: pyarrow is not installed.
    """
    return HuggingFaceSource(settings)


def _is_file_name(stem: str) -> bool:
    """Whether a file can be called so and is not hidden."""
    return bool(stem) and stem.isprintable() and not stem.startswith(".")


def _columns(features: Mapping[str, Any], where: Path) -> tuple[str, str]:
    """The names of the columns of images and masks."""
    pictures = [name for name, feature in features.items() if _type(feature) == "Image"]
    image = next((name for name in _IMAGE_NAMES if name in pictures), None)
    mask = next((name for name in _MASK_NAMES if name in pictures), None)
    if len(pictures) == 2 and (image is None) != (mask is None):
        other = pictures[1 - pictures.index(image or mask or "")]
        image, mask = image or other, mask or other
    if image is None or mask is None:
        listed = ", ".join(f"{name} ({_type(feature)})" for name, feature in features.items())
        lacks = " and ".join(
            f"no {what}" for what, name in (("images", image), ("masks", mask)) if name is None
        )
        raise DatasetError(
            f"has {lacks} that can be told: its columns are {listed}",
            where=where,
            mend="Make them columns of the type Image, and call them image and mask with: "
            'dataset.rename_column("OLD", "mask")',
        )
    return image, mask


def _type(feature: Any) -> str:
    if isinstance(feature, dict):
        return str(feature.get("_type", "group"))
    return "list" if isinstance(feature, list) else str(feature)


def _refuse_other_columns(shard: Shard, *columns: str) -> None:
    for column in columns:
        if _type(shard.features.get(column)) != "Image":
            raise DatasetError(
                f"has no column {column!r} of images, and other files of the dataset have",
                where=shard.path,
                mend="Give the folder of one configuration of the dataset.",
            )


def _class_names(
    features: Mapping[str, Any], root: Path
) -> tuple[tuple[str, ...] | None, int | None, tuple[str, ...]]:
    """Names by id, the ignore index, and notes."""
    file = root / "id2label.json"
    if file.is_file():
        return *_id_to_label(file), ("classes are from id2label.json",)
    notes = []
    for column, feature in features.items():
        label, several = _class_label(feature)
        if label is None:
            continue
        if several or column in _CLASS_COLUMNS:
            return tuple(label), None, (f"classes are from the column {column!r}",)
        notes.append(f"the column {column!r} is a class of whole images, and is not used")
    return None, None, tuple(notes)


def _class_label(feature: Any) -> tuple[list[str] | None, bool]:
    """Names of a class label, and whether a row has several of it."""
    if isinstance(feature, list) and len(feature) == 1:
        return _class_label(feature[0])[0], True
    match feature:
        case {"_type": "ClassLabel", "names": list(names)}:
            return [str(name) for name in names], False
        case {"_type": "Sequence" | "List" | "LargeList", "feature": inner}:
            return _class_label(inner)[0], True
        case _:
            return None, False


def _id_to_label(file: Path) -> tuple[tuple[str, ...], int | None]:
    try:
        found = msgspec.json.decode(file.read_bytes(), type=dict[int, str])
    except (OSError, msgspec.DecodeError) as error:
        raise DatasetError(
            f"cannot be read as names by id ({error})",
            where=file,
            mend='It looks like: {"0": "background", "1": "cell"}',
        ) from error
    ignored = [i for i, name in found.items() if name.lower() in IGNORE_NAMES and i == max(found)]
    ignore = ignored[0] if ignored and len(found) > 1 and ignored[0] >= len(found) else None
    if ignore is not None:
        del found[ignore]
    if 0 not in found:
        found[0] = BACKGROUND
    missing = next((i for i in range(len(found)) if i not in found), None)
    if missing is not None:
        raise DatasetError(
            f"names {len(found)} classes up to {max(found)}, and none of them is {missing}",
            where=file,
            mend=f'Add "{missing}", or number the classes from 0.',
        )
    return tuple(found[i] for i in range(len(found))), ignore


def _refused(error: MaskError, place: str) -> MaskError:
    if "RGB" in error.found or "alpha" in error.found:
        mend = (
            "Map its colours to ids with dataset.map, or save the masks as files and import "
            "them with: delineate data import --format rgb --colours ..."
        )
        return MaskError(error.found, where=place, mend=mend)
    return error
