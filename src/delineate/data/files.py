"""Files that are either whole or not there."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from delineate.errors import OutputError


def _output_error(error: OSError, path: Path) -> OutputError:
    if error.errno == errno.ENOSPC:
        return OutputError(
            "the disk is full", where=path, mend="Free some space and run the command again."
        )
    return OutputError(f"cannot be written ({error.strerror or error})", where=path)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; it takes its name when the block ends well.

    The data are flushed to the disk before the rename, so that a crash leaves the old file or
    the new one. On an error the temporary file is removed.

    Raises:
        OutputError: the folder cannot be written or the disk is full.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        if error.errno is None:
            raise
        raise _output_error(error, path) from error
    finally:
        with suppress(OSError):  # its folder may not exist; the error that matters is on its way
            part.unlink()


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` atomically."""
    with atomic_file(path) as part:
        part.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 ``text`` to ``path`` atomically."""
    write_bytes(path, text.encode())


@contextmanager
def atomic_folder(path: Path, *, force: bool = False) -> Iterator[Path]:
    """Yield a new temporary folder beside ``path``; it takes its name when the block ends well.

    Args:
        path: the folder to make.
        force: replace an existing folder; otherwise it is an error.

    Raises:
        OutputError: ``path`` exists and ``force`` is not set, or cannot be written.
    """
    if not force:
        refuse_existing(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    old = path.with_name(f".{path.name}.{os.getpid()}.old")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.mkdir()
        yield part
        if path.exists():
            path.rename(old)
        part.rename(path)
    except OSError as error:
        if old.exists() and not path.exists():
            old.rename(path)
        if error.errno is None:
            raise
        raise _output_error(error, path) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def refuse_existing(path: Path) -> None:
    """Raise OutputError when ``path`` is a file or a folder that is not empty."""
    if path.is_dir() and not any(path.iterdir()):
        path.rmdir()
    if path.exists():
        raise OutputError("exists already", where=path, mend="Name another, or add --force.")
