"""Files that are either whole or not there."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
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


def write_together(files: Mapping[Path, bytes]) -> None:
    """Write files that belong together: all of them, or none. The last is renamed last.

    Raises:
        OutputError: a folder cannot be written or the disk is full.
    """
    with ExitStack() as parts:
        for path, data in reversed(list(files.items())):  # they take their names in reverse
            try:
                parts.enter_context(atomic_file(path)).write_bytes(data)
            except OSError as error:
                raise _output_error(error, path) from error


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 ``text`` to ``path`` atomically."""
    write_bytes(path, text.encode())


@contextmanager
def atomic_folder(path: Path, *, marker: str, force: bool = False) -> Iterator[Path]:
    """Yield a new temporary folder beside ``path``; it takes its name when the block ends well.

    Args:
        path: the folder to make.
        marker: a file in such folders: without it in there, ``force`` replaces no folder.
        force: replace an existing folder; otherwise it is an error.

    Raises:
        OutputError: ``path`` exists and ``force`` is not set or it is something else than what
            is replaced, or it cannot be written.
    """
    path = _as_target(path, marker, force=force)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            part.mkdir()
            yield part
            _replace(path, part)
    finally:
        shutil.rmtree(part, ignore_errors=True)


@contextmanager
def staging_folder(
    path: Path, *, marker: str, force: bool = False, keep: Callable[[Path], bool]
) -> Iterator[Path]:
    """As :func:`atomic_folder`, but the temporary folder outlives a kill.

    The next call for the same ``path`` yields it again, with what is in it. After an exception it
    stays if ``keep`` says so of it; after Ctrl-C it stays in any case.

    Raises:
        OutputError: as :func:`atomic_folder`, or another process is writing ``path``.
    """
    path = _as_target(path, marker, force=force)
    part = path.with_name(f".{path.name}.part")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        part.mkdir(exist_ok=True)
        folder = os.open(part, os.O_RDONLY)  # the lock dies with its holder and leaves no file
        try:
            if not _locked(folder, part):
                raise OutputError(
                    "is being written by another process", where=path, mend="Wait for it to end."
                )
            try:
                yield part
                _replace(path, part)
            except Exception:
                if not keep(part):
                    shutil.rmtree(part, ignore_errors=True)
                raise
        finally:
            os.close(folder)


def _locked(folder: int, part: Path) -> bool:
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    # the other may just have given it its name
    return part.is_dir() and os.path.samestat(os.fstat(folder), part.stat())


def _as_target(path: Path, marker: str, *, force: bool) -> Path:
    """``path`` made absolute, once it is known that a new folder may take its name."""
    if not force:
        refuse_existing(path)
    if path.is_symlink() or path.is_file():
        raise OutputError(
            "is a file or a link, so no folder replaces it", where=path, mend="Name another."
        )
    if path.is_dir() and any(path.iterdir()) and not (path / marker).exists():
        raise OutputError(
            f"is a folder without {marker}, so it is not replaced", where=path, mend="Name another."
        )
    target = path.absolute() if path.name not in ("", "..") else path.resolve()
    if target.is_mount():
        raise OutputError("is a mount point", where=path, mend="Name a folder inside it.")
    return target


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns what the system says into an OutputError about ``path``."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise _output_error(error, path) from error


def _replace(path: Path, part: Path) -> None:
    """Give ``part`` the name ``path``; what was there goes away, but not before."""
    old = path.with_name(f".{path.name}.{os.getpid()}.old")
    try:
        if path.exists():
            path.rename(old)
        part.rename(path)
    except BaseException:  # Ctrl-C between the two as well
        if old.exists() and not path.exists():
            old.rename(path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def link_or_copy(source: Path, target: Path) -> bool:
    """Give the file ``source`` a second name, or copy it where that cannot be.

    Returns:
        False when there is no such file.
    """
    target.unlink(missing_ok=True)
    try:
        target.hardlink_to(source)
    except FileNotFoundError:
        return False
    except OSError:
        try:
            shutil.copyfile(source, target)
        except FileNotFoundError:
            return False
    return True


def refuse_existing(path: Path) -> None:
    """Raise OutputError when ``path`` is a file, a link or a folder that is not empty."""
    if path.is_dir() and not path.is_symlink() and not any(path.iterdir()):
        return
    if path.exists() or path.is_symlink():
        raise OutputError("exists already", where=path, mend="Name another, or add --force.")
