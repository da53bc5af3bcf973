"""COCO's JSON files, typed, with the polygons left unparsed (https://cocodataset.org/#format-data).

A file is mapped into memory, not read: a segmentation is a view of its bytes until somebody asks
for the labels of its image.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeAlias, TypeVar

import msgspec

from delineate.data.dataset import ONLY_SPLIT
from delineate.data.formats.pairing import no_json
from delineate.errors import DatasetError

_SNIFFED = 1 << 16  # bytes of the head and of the tail: the annotations reach into one of them
UNLABELLED_PREFIX = "image_info_test"
"""Of the names of COCO's own files of images alone."""

_SPLIT = re.compile(r"(?<![a-z])(train|training|val|valid|validation|test)(?![a-z])")
_SPLIT_NAMES = {"training": "train", "valid": "val", "validation": "val"}

Id: TypeAlias = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
Flag: TypeAlias = bool | int | None


class ImageJson(msgspec.Struct, gc=False):
    """One of ``images``."""

    id: Id
    file_name: str
    width: int | None = None
    height: int | None = None


class Category(msgspec.Struct, gc=False):
    """One of ``categories``."""

    id: Id
    name: str | None = None


class Annotation(msgspec.Struct, gc=False):
    """One of ``annotations``: an object, or a crowd of them."""

    id: Id
    image_id: Id
    category_id: Id
    segmentation: msgspec.Raw = msgspec.Raw()
    iscrowd: Flag = 0


class CocoFile(msgspec.Struct):
    """The JSON of object detection."""

    images: list[ImageJson]
    categories: list[Category] = []
    annotations: list[Annotation] | None = None


class PanopticCategory(msgspec.Struct, gc=False):
    """One of ``categories``: things are counted, stuff is not."""

    id: Id
    isthing: bool | int
    name: str | None = None


class Segment(msgspec.Struct, gc=False):
    """One of ``segments_info``."""

    id: Id
    category_id: Id
    iscrowd: Flag = 0


class PanopticAnnotation(msgspec.Struct, gc=False):
    """One of ``annotations``: all segments of an image."""

    image_id: Id
    file_name: str
    segments_info: list[Segment]


class PanopticFile(msgspec.Struct):
    """The JSON of panoptic segmentation."""

    images: list[ImageJson]
    categories: list[PanopticCategory] = []
    annotations: list[PanopticAnnotation] | None = None


@dataclass(frozen=True)
class AnnotationFile:
    """A JSON file and the split that its name gives."""

    path: Path
    split: str


T = TypeVar("T", CocoFile, PanopticFile)


def read_json(path: Path, kind: type[T]) -> T:
    """The file at ``path``; whatever in it is a ``msgspec.Raw`` stays on the disk.

    Raises:
        DatasetError: it cannot be read, is no JSON, or a field is missing or of another type.
    """
    try:
        with path.open("rb") as file:
            if not file.seek(0, 2):
                raise DatasetError(
                    "is empty (0 bytes)", where=path, mend="Export the annotations again."
                )
            data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except OSError as error:
        raise DatasetError(f"cannot be read ({error.strerror or error})", where=path) from error
    try:
        document: T = _decoder(kind).decode(data)
    except msgspec.ValidationError as error:
        found, _, place = str(error).partition(" - at `")
        raise DatasetError(
            f"is no COCO file: {found[:1].lower() + found[1:]}",
            where=f"{path}, {place.rstrip('`')}" if place else path,
            mend="A COCO file is one object with images, annotations and categories.",
        ) from error
    except msgspec.DecodeError as error:
        raise no_json(error, data, path) from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise DatasetError(
            f"cannot be read as annotations: {error}",
            where=path,
            mend="Export the annotations again, in UTF-8.",
        ) from error
    return document


@cache
def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind, strict=False)  # 30.0 and "30" are whole numbers too


def is_coco(path: Path) -> bool:
    """Whether the JSON file at ``path``, or one that a folder holds, looks like COCO's objects."""
    if path.is_dir():
        return any(is_coco(file) for file in _candidates(path))
    ends = _ends(path)
    return b'"images"' in ends and b'"segments_info"' not in ends and _has_labels(ends)


def is_coco_panoptic(path: Path) -> bool:
    """Whether the JSON file at ``path``, or one that a folder holds, looks like panoptic COCO."""
    if path.is_dir():
        return any(is_coco_panoptic(file) for file in _candidates(path))
    return b'"segments_info"' in _ends(path)


def _has_labels(ends: bytes) -> bool:
    return any(key in ends for key in (b'"annotations"', b'"categories"', b'"image_id"'))


def _ends(path: Path) -> bytes:
    """Head and tail of a file that holds one JSON object; empty for any other."""
    try:
        with path.open("rb") as file:
            head = file.read(_SNIFFED)
            size = file.seek(0, 2)
            file.seek(max(len(head), size - _SNIFFED))
            tail = file.read()
    except OSError:
        return b""
    return head + tail if head.lstrip()[:1] == b"{" else b""


def find_files(
    source: Path, sniff: Callable[[Path], bool], prefix: str
) -> tuple[list[AnnotationFile], tuple[str, ...]]:
    """The annotation files of a source, and notes on those that are not read.

    Args:
        source: a JSON file, which has no split, or a folder of some.
        sniff: tells whether a JSON file is of the format.
        prefix: of the files that COCO itself publishes; where there are some, others are not read.

    Raises:
        DatasetError: there are none, or only some of them have a split in their name.
    """
    if not source.is_dir():
        return [AnnotationFile(source, ONLY_SPLIT)], ()
    found = [file for file in _candidates(source) if sniff(file)]
    official = [file for file in found if file.name.startswith(prefix)]
    if official:
        # these have no annotations that a sniffer could tell
        unlabelled = [f for f in _candidates(source) if f.name.startswith(UNLABELLED_PREFIX)]
        official = list(dict.fromkeys((*official, *unlabelled)))
    chosen = official or found
    if not chosen:
        raise DatasetError(
            "holds no COCO annotations (looked for annotations/*.json, *.json and */*.json)",
            where=source,
            mend="Name the JSON file itself, and the folder of images with --images.",
        )
    files = [AnnotationFile(file, _split_of(file, source)) for file in sorted(chosen)]
    named = [file for file in files if file.split != ONLY_SPLIT]
    if named and len(named) < len(files):
        other = next(file for file in files if file.split == ONLY_SPLIT)
        raise DatasetError(
            f"holds {named[0].path.name}, which is {named[0].split}, and {other.path.name}, "
            "whose name gives no split",
            where=source,
            mend="Put train, val or test into each name, or import one file.",
        )
    others = sorted(file.name for file in found if file not in chosen)
    return files, (f"not read: {', '.join(others)}",) if others else ()


def _candidates(folder: Path) -> list[Path]:
    for pattern in ("annotations/*.json", "*.json", "*/*.json"):
        files = [file for file in sorted(folder.glob(pattern)) if not file.name.startswith(".")]
        if any(_ends(file) for file in files):
            return files
    return []


def _split_of(file: Path, source: Path) -> str:
    """From the name of the file, or else from that of its folder below ``source``."""
    folder = file.parent.name if file.parent != source else ""
    for name in (file.stem, folder):
        match = _SPLIT.search(name.lower())
        if match:
            return _SPLIT_NAMES.get(match[1], match[1])
    return ONLY_SPLIT


def names_by_id(
    tables: Iterable[tuple[Path, Iterable[Category | PanopticCategory]]],
) -> dict[int, str]:
    """Names of the categories of all files, in the order of their ids.

    Raises:
        DatasetError: one has no name, or an id means two names.
    """
    found: dict[int, tuple[str, Path]] = {}
    for path, categories in tables:
        for category in categories:
            name = category.name
            if name is None or not name.strip():
                raise DatasetError(
                    f"category {category.id} has no name",
                    where=path,
                    mend="Give it one in categories.",
                )
            other, first = found.setdefault(category.id, (name, path))
            if other != name:
                both = f"{first.name} and here" if first != path else "one place and in another"
                raise DatasetError(
                    f"category {category.id} is called {other!r} in {both} {name!r}",
                    where=path,
                    mend="Give each category one id and one name in all files.",
                )
    return {index: found[index][0] for index in sorted(found)}


def repeated(values: Iterable[int]) -> int | None:
    """The first value that was there before."""
    seen: set[int] = set()
    for value in values:
        if value in seen:
            return value
        seen.add(value)
    return None
