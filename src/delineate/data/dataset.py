"""The canonical dataset: a folder of images, masks and a ``dataset.yaml``.

    DATASET/
      dataset.yaml
      train/images  train/masks  [train/instances]  val/images ...  [test/images ...]

or ``images`` and ``masks`` alone, which make the one split ``all``. ``instances`` holds 16-bit
grey PNGs of object ids, 0 for no object.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field, field_validator, model_validator

from delineate.config import Positive, Settings, dump_yaml, load_yaml
from delineate.data.images import IMAGE_SUFFIXES, read_image
from delineate.data.label_ids import refuse_other_ids, refuse_other_size
from delineate.data.masks import read_mask
from delineate.data.palette import Colour, default_colours
from delineate.data.parallel import ordered_map
from delineate.errors import DatasetError, MaskError, SettingsError
from delineate.types import Image, InstanceMap, LabelMap

INFO_FILE = "dataset.yaml"
ONLY_SPLIT = "all"
_FIRST_SPLITS = ("train", "val", "test")
_LARGEST_ID = 65535

Byte = Annotated[int, Field(ge=0, le=255)]


class DatasetInfo(Settings):
    """The fields of ``dataset.yaml``."""

    classes: tuple[str, ...] = Field(
        min_length=2, max_length=_LARGEST_ID + 1, description="names by id, from 0"
    )
    ignore_index: int | None = Field(
        None, ge=0, le=_LARGEST_ID, description="the id of pixels that count nowhere"
    )
    colours: tuple[tuple[Byte, Byte, Byte], ...] | None = Field(
        None, description="red, green and blue of each class, 0 to 255"
    )
    pixel_size_um: Positive | None = Field(None, description="side of a pixel, micrometres")
    groups: dict[str, str] | str | None = Field(
        None,
        description="group (patient, slide, video) of each sample by name, or a regular "
        "expression whose first parenthesis finds it in the name of the image file",
    )

    @field_validator("classes")
    @classmethod
    def _classes_are_unique(cls, classes: tuple[str, ...]) -> tuple[str, ...]:
        twice = sorted({name for name in classes if classes.count(name) > 1})
        if twice:
            raise ValueError(f"class names must differ, and {', '.join(twice)} is there twice")
        if any(not name.strip() for name in classes):
            raise ValueError("a class has no name")
        return classes

    @field_validator("groups")
    @classmethod
    def _pattern_has_a_parenthesis(
        cls, groups: dict[str, str] | str | None
    ) -> dict[str, str] | str | None:
        if isinstance(groups, str):
            try:
                pattern = re.compile(groups)
            except re.error as error:
                raise ValueError(f"no regular expression: {error}") from error
            if pattern.groups < 1:
                raise ValueError(r"needs a parenthesis around the group, such as '^([^_]+)_'")
        return groups

    @model_validator(mode="after")
    def _one_colour_for_each_class(self) -> DatasetInfo:
        if self.colours is not None and len(self.colours) != len(self.classes):
            raise ValueError(
                f"{len(self.colours)} colours for {len(self.classes)} classes; "
                f"give {len(self.classes)} or none"
            )
        return self

    def group_of(self, image: Path) -> str | None:
        """The group of the sample whose image is at ``image``.

        Raises:
            DatasetError: groups are given and this file has none.
        """
        if self.groups is None:
            return None
        if isinstance(self.groups, str):
            match = re.search(self.groups, image.name)
            if match is None or match.group(1) is None:
                raise DatasetError(
                    f"the pattern of the groups, {self.groups!r}, finds nothing in this name",
                    where=image,
                    mend="Change the pattern so that its first parenthesis fits every file.",
                )
            return match.group(1)
        if image.stem not in self.groups:
            raise DatasetError(
                f"the groups do not name {image.stem!r}",
                where=image,
                mend=f"Add it to groups in {INFO_FILE}.",
            )
        return self.groups[image.stem]


@dataclass(frozen=True)
class Sample:
    """One image, and its mask if there is one. ``name`` is the stem of the image file.

    Attributes:
        instances: file of object ids, where there is one.
    """

    name: str
    image: Path
    mask: Path | None
    group: str | None
    instances: Path | None = None


@dataclass(frozen=True)
class Dataset:
    """A dataset on disk: nothing but names has been read.

    Attributes:
        path: its folder.
        info: its ``dataset.yaml``.
        splits: samples of each split, sorted by name.
    """

    path: Path
    info: DatasetInfo
    splits: Mapping[str, tuple[Sample, ...]]

    @staticmethod
    def open(path: Path) -> Dataset:
        """List a dataset.

        Raises:
            DatasetError: no such folder, no or a wrong ``dataset.yaml``, no images, or two images
                or two masks of one name.
        """
        info = read_info(path)
        splits = {
            name: list_samples(folder / "images", folder / "masks", info, folder / "instances")
            for name, folder in find_splits(path).items()
        }
        return Dataset(path, info, splits)

    def split(self, name: str) -> tuple[Sample, ...]:
        """The samples of the split ``name``.

        Raises:
            DatasetError: there is no such split.
        """
        if name not in self.splits:
            there = ", ".join(f"{split} ({len(s)} images)" for split, s in self.splits.items())
            mend = f"Use one of: {there}."
            if name in ("train", "val") and ONLY_SPLIT in self.splits:
                mend += (
                    " To split it: delineate data import "
                    f"--format class-id {self.path} --out NEW --val-fraction 0.2"
                )
            raise DatasetError(f"has no split {name!r}", where=self.path, mend=mend)
        return self.splits[name]

    @cached_property
    def colours(self) -> tuple[Colour, ...]:
        """One colour for each class: those of ``dataset.yaml``, or chosen ones."""
        return self.info.colours or default_colours(len(self.info.classes), self.info.classes)

    def fingerprint(self) -> str:
        """SHA-256 (hex) over ``dataset.yaml`` and the names, sizes and contents of all files.

        Folder and time stamps do not count, so that a copy has the same fingerprint.

        Raises:
            DatasetError: a file cannot be read.
        """
        files = [
            file
            for samples in self.splits.values()
            for sample in samples
            for file in (sample.image, sample.mask, sample.instances)
            if file is not None
        ]
        total = hashlib.sha256(dump_yaml(self.info).encode())
        for file, (size, digest) in zip(files, ordered_map(_digest, files), strict=True):
            total.update(f"{file.relative_to(self.path).as_posix()}\0{size}\0".encode())
            total.update(digest)
        return total.hexdigest()


def read_info(path: Path) -> DatasetInfo:
    """The ``dataset.yaml`` of the dataset at ``path``.

    Raises:
        DatasetError: no such folder, or the file is absent or wrong.
    """
    if not path.is_dir():
        raise DatasetError("no such folder" if not path.exists() else "is no folder", where=path)
    file = path / INFO_FILE
    if not file.is_file():
        raise DatasetError(
            f"is no dataset: it has no {INFO_FILE}",
            where=path,
            mend="Make one with: delineate data import, or write the file: "
            "classes: [background, ...]",
        )
    try:
        return load_yaml(file, DatasetInfo)
    except SettingsError as error:
        raise DatasetError(error.found, where=error.where, mend=error.mend) from error


def find_splits(path: Path) -> dict[str, Path]:
    """The folder of each split: those below ``path`` that hold ``images``, or ``path`` itself.

    Raises:
        DatasetError: there are none, or both kinds.
    """
    names = sorted(child.name for child in path.iterdir() if (child / "images").is_dir())
    names.sort(key=lambda n: _FIRST_SPLITS.index(n) if n in _FIRST_SPLITS else len(_FIRST_SPLITS))
    if (path / "images").is_dir():
        if names:
            raise DatasetError(
                f"has both images and {names[0]}/images, so that its splits are unclear",
                where=path,
                mend="Move one of them away.",
            )
        return {ONLY_SPLIT: path}
    if not names:
        raise DatasetError(
            "has no images: neither a folder images nor train/images",
            where=path,
            mend="Put the images into images and the masks into masks.",
        )
    return {name: path / name for name in names}


def list_files(folder: Path) -> list[Path]:
    """The image files of ``folder``, by suffix, sorted by name; hidden ones are left out."""
    if not folder.is_dir():
        return []
    return sorted(
        file
        for file in folder.iterdir()
        if file.suffix.lower() in IMAGE_SUFFIXES and file.name[0] != "." and file.is_file()
    )


def list_samples(
    images: Path, masks: Path, info: DatasetInfo, instances: Path | None = None
) -> tuple[Sample, ...]:
    """Pair the images of one folder with masks and object ids of others by stem.

    Raises:
        DatasetError: there are no images, two of one stem, or one without a group where groups
            are given.
    """
    image_of = by_stem(list_files(images))
    if not image_of:
        suffixes = " ".join(sorted(IMAGE_SUFFIXES))
        raise DatasetError("holds no images", where=images, mend=f"Images end in: {suffixes}.")
    mask_of = by_stem(list_files(masks))
    instances_of = {} if instances is None else by_stem(list_files(instances))
    return tuple(
        Sample(stem, image, mask_of.get(stem), info.group_of(image), instances_of.get(stem))
        for stem, image in sorted(image_of.items())
    )


def by_stem(files: Iterable[Path]) -> dict[str, Path]:
    """Files by their stem.

    Raises:
        DatasetError: two have the same.
    """
    found: dict[str, Path] = {}
    for file in files:
        other = found.setdefault(file.stem, file)
        if other is not file:
            raise DatasetError(
                f"{other.name} and {file.name} have the same name before the suffix, by which "
                "images and masks are paired",
                where=file.parent,
                mend="Rename or remove one of them.",
            )
    return found


def read_pair(sample: Sample, info: DatasetInfo) -> tuple[Image, LabelMap]:
    """Read an image and its mask and check that they fit.

    Returns:
        (H, W, C) as from :func:`delineate.data.images.read_image`, and (H, W) class ids, each
        below the number of classes or the ignore index.

    Raises:
        ImageError: the image cannot be read.
        MaskError: the mask is missing, cannot be read, has another size or has other ids.
    """
    if sample.mask is None:
        raise MaskError(
            "has no mask",
            where=sample.image,
            mend=f"Add masks/{sample.name}.png beside the folder images, or remove the image.",
        )
    image = read_image(sample.image)
    labels = read_mask(sample.mask)
    refuse_other_size(image, labels, sample.mask, sample.image)
    refuse_other_ids(labels, info.classes, info.ignore_index, sample.mask)
    return image, labels


def read_instances(sample: Sample, hw: tuple[int, int]) -> InstanceMap | None:
    """The object ids of a sample whose image is ``hw`` (height, width), if it has any.

    Raises:
        MaskError: the file cannot be read or has another size.
    """
    if sample.instances is None:
        return None
    ids = read_mask(sample.instances).astype(np.uint16, copy=False)
    if ids.shape != hw:
        raise MaskError(
            f"is {ids.shape[1]} x {ids.shape[0]} pixels (width x height), and its image "
            f"{sample.image.name} is {hw[1]} x {hw[0]}",
            where=sample.instances,
            mend="Export the object ids at the size of the image, or remove the file.",
        )
    return ids


def _digest(file: Path) -> tuple[int, bytes]:
    try:
        with file.open("rb") as handle:
            digest = hashlib.file_digest(handle, "sha256").digest()
            return handle.tell(), digest
    except OSError as error:
        raise DatasetError(f"cannot be read ({error.strerror})", where=file) from error
