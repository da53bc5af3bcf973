"""JSON documents with long lists, written without holding them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec


class Spool:
    """Values kept in a nameless file in ``folder``, one JSON line each; ``files`` closes it."""

    def __init__(self, folder: Path, files: ExitStack) -> None:
        self._file = files.enter_context(tempfile.TemporaryFile(dir=folder))  # noqa: SIM115

    def add(self, value: Any) -> None:
        self._file.write(msgspec.json.encode(value) + b"\n")

    def drain(self) -> Iterator[bytes]:
        """Every value as JSON, in order."""
        self._file.seek(0)
        for line in self._file:
            yield line[:-1]


def write_document(
    path: Path, head: Mapping[str, Any], lists: Mapping[str, Iterable[bytes]]
) -> None:
    """Write one JSON object: the fields of ``head``, then lists of values that are JSON already."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        start = b"{"
        for name, value in head.items():
            file.write(start + msgspec.json.encode(name) + b":" + msgspec.json.encode(value))
            start = b",\n"
        for name, values in lists.items():
            file.write(start + msgspec.json.encode(name) + b":[")
            start = b",\n"
            between = b"\n"
            for value in values:
                file.write(between + value)
                between = b",\n"
            file.write(b"]")
        file.write(b"}\n")
