"""Image files and annotations that belong together, and those that have lost each other."""

from __future__ import annotations

import mmap
import os
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from delineate.data.formats.naming import refuse_link_outside
from delineate.data.formats.settings import ImportSettings
from delineate.data.formats.source import Item
from delineate.data.images import IMAGE_SUFFIXES, unreadable
from delineate.errors import DatasetError

_LISTED = 5
# what msgspec decodes from
Buffer: TypeAlias = bytes | memoryview | mmap.mmap | msgspec.Raw


def read_bytes(path: Path) -> bytes:
    """The whole file.

    Raises:
        ImageError: it is not there or cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise unreadable(error, str(path)) from error


def read_item_image(item: Item) -> bytes:
    """The image file of an item that has one.

    Raises:
        ImageError: it is not there or cannot be read.
    """
    if item.image is None:
        raise TypeError(f"{item.where} has no image file: its source holds the bytes")
    return read_bytes(item.image)


def list_files(folder: Path, suffixes: frozenset[str], *, follow_links: bool) -> list[Path]:
    """Files below ``folder`` by their lower-case suffixes, sorted; hidden ones are no such files.

    Folders that are links are entered only with ``follow_links``.
    """
    found: list[Path] = []
    for parent, folders, files in os.walk(folder, followlinks=follow_links):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [
            Path(parent, name)
            for name in files
            if not name.startswith(".") and Path(name).suffix.lower() in suffixes
        ]
    return sorted(found)


def list_images(folder: Path, *, follow_links: bool) -> list[Path]:
    """The image files below ``folder``, sorted."""
    return list_files(folder, IMAGE_SUFFIXES, follow_links=follow_links)


def spellings(name: str) -> tuple[str, ...]:
    """``name``, and its other Unicode forms: macOS and some archives write accents by themselves.

    The forms are those composed (NFC) and decomposed (NFD).
    """
    forms = (unicodedata.normalize("NFC", name), unicodedata.normalize("NFD", name))
    return tuple(dict.fromkeys((name, *forms)))


def only_file(
    settings: ImportSettings,
    suffixes: frozenset[str],
    sniff: Callable[[Path], bool],
    what: str,
) -> Path:
    """``settings.source`` where it is a file, else the one file below it that is ``what``.

    Args:
        sniff: whether a file is one.

    Raises:
        DatasetError: there is none, or several.
    """
    source = settings.source
    if not source.is_dir():
        return source
    links = settings.follow_links
    found = [file for file in list_files(source, suffixes, follow_links=links) if sniff(file)]
    if len(found) != 1:
        several = [str(file.relative_to(source)) for file in found]
        raise DatasetError(
            f"has {len(found)} files of {what}: {_some(several)}"
            if found
            else f"has no file of {what}",
            where=source,
            mend="Name one file." if found else "Name the file that was exported.",
        )
    refuse_link_outside(found[0], source, follow_links=links)
    return found[0]


def refuse_absent(names: Sequence[str], where: Path, *, drop: bool) -> None:
    """Raise DatasetError when annotated images are absent and are not to be left out."""
    if names and not drop:
        one = len(names) == 1
        raise DatasetError(
            f"{len(names)} annotated image{' is' if one else 's are'} not there: {_some(names)}",
            where=where,
            mend=f"Name {'its' if one else 'their'} folder with --images, or leave "
            f"{'it' if one else 'them'} out with --drop-unpaired.",
        )


def refuse_unannotated(images: Sequence[Path], where: Path, *, drop: bool) -> None:
    """Raise DatasetError when images have no annotations and are not to be left out."""
    if images and not drop:
        one = len(images) == 1
        it = "it" if one else "them"
        names = [image.name for image in images]
        raise DatasetError(
            f"{len(images)} image{' has' if one else 's have'} no annotations: {_some(names)}",
            where=where,
            mend=f"Annotate {it}, or leave {it} out with --drop-unpaired.",
        )


def decode_json(data: Buffer, kind: Any, where: str | Path) -> Any:
    """JSON as a ``kind``, which is any type that msgspec decodes.

    Raises:
        DatasetError: it is no JSON, or has other values than ``kind``.
    """
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise no_json(error, data, where) from error


def no_json(error: Exception, data: Buffer, where: str | Path) -> DatasetError:
    """The error for what msgspec could not decode; NaN and infinite numbers are called so."""
    found, _, byte = str(error).partition(" (byte ")
    at = int(byte.rstrip(")")) if byte else 0
    word = bytes(memoryview(data)[at : at + 8])
    for name in ("NaN", "Infinity"):
        if byte and word.startswith(name.encode()):
            return DatasetError(
                f"holds {name} at byte {at}, where a number is expected",
                where=where,
                mend="Draw that shape again, or delete it.",
            )
    return DatasetError(
        f"cannot be read as annotations: {found}" + (f" at byte {at}" if byte else ""),
        where=where,
        mend="Export the annotations again.",
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_LISTED]) + (", ..." if len(names) > _LISTED else "")
