"""Archives of labelled images (ZIP, and TAR with or without compression), unpacked safely."""

from __future__ import annotations

import lzma
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from delineate.errors import DatasetError

LARGEST_BYTES = 2**39
"""The most that an archive may unpack to (512 GiB)."""

LARGEST_RATIO = 200
"""The most that an archive of more than :data:`RATIO_FROM_BYTES` may grow by when unpacked."""

RATIO_FROM_BYTES = 2**30
"""Archives that unpack to less are not suspected, however well they compress: masks are flat."""

MOST_ENTRIES = 5_000_000
"""The most files and folders of an archive."""

# what Finder adds beside the files of a ZIP: copies of their metadata, not files of the user
_MAC = "__MACOSX"
_OTHERS = ((b"Rar!\x1a\x07", "a RAR archive"), (b"7z\xbc\xaf\x27\x1c", "a 7z archive"))
_COMPRESSED_TARS = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0")
_UNPACK_YOURSELF = "Unpack it yourself, if you trust it, and give the folder."
_DAMAGED = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,
    UnicodeError,
    ValueError,
)


@contextmanager
def unpacked(source: Path) -> Iterator[Path]:
    """Yield the folder that ``source`` unpacks to, and remove it afterwards.

    What is no archive is yielded as it is. An archive is told by its content (ZIP, TAR, and TAR
    compressed by gzip, bzip2 or xz). Where all of it lies in one folder, that one is yielded.
    ``__MACOSX`` of a ZIP made by Finder is left out: it holds no files of the user.

    Raises:
        DatasetError: the archive is damaged, encrypted, of another kind, or too large for the
            disk or :data:`LARGEST_BYTES`; or an entry has an absolute path, climbs out by
            ``..``, is a device or a link that leads out (in a ZIP: any link), or has the name of
            another. Nothing is left behind.
    """
    kind = _kind(source)
    if kind is None:
        yield source
        return
    with tempfile.TemporaryDirectory(prefix="delineate-") as name:
        folder = Path(name)
        try:
            _unpack(source, kind, folder)
        except DatasetError:
            raise
        except _DAMAGED as error:
            raise DatasetError(
                f"is a damaged {kind} archive ({error})",
                where=source,
                mend="Fetch or pack it again.",
            ) from error
        except OSError as error:
            raise DatasetError(
                f"cannot be unpacked into {folder.parent} ({error.strerror or error})",
                where=source,
                mend=_UNPACK_YOURSELF,
            ) from error
        inside = list(folder.iterdir())
        if not inside:
            raise DatasetError("is an archive without files", where=source)
        yield inside[0] if len(inside) == 1 and inside[0].is_dir() else folder


def _kind(source: Path) -> str | None:
    if not source.is_file():
        return None
    try:
        with source.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise DatasetError(f"cannot be read ({error.strerror or error})", where=source) from error
    for magic, name in _OTHERS:
        if head.startswith(magic):
            raise DatasetError(f"is {name}", where=source, mend="Unpack it and give the folder.")
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "ZIP"
    if head.startswith(_COMPRESSED_TARS) or head[257:262] == b"ustar":
        return "TAR"
    return "TAR" if source.suffix.lower() == ".tar" else None


class _Gate:
    """Lets entries through, one after the other, as long as all of them together are harmless."""

    def __init__(self, source: Path, folder: Path) -> None:
        self._source = source
        self._packed = source.stat().st_size
        self._free = shutil.disk_usage(folder).free
        self._seen: set[PurePosixPath] = set()
        self._total = 0

    def admit(self, name: str, size: int, *, is_folder: bool) -> None:
        """Raise DatasetError unless the entry may be unpacked."""
        path = PurePosixPath(name.replace("\\", "/"))
        if path.is_absolute() or (path.parts and ":" in path.parts[0]):
            self.refuse(name, "has an absolute path")
        if ".." in path.parts:
            self.refuse(name, "leads out of the archive")
        if not path.parts and not is_folder:
            self.refuse(name, "has no name")
        if path in self._seen and not is_folder:
            self.refuse(name, "is there twice")
        self._seen.add(path)
        if len(self._seen) > MOST_ENTRIES:
            self.refuse(name, f"is one more than the {MOST_ENTRIES} entries that are allowed")
        self._total += size
        self._refuse_sizes(name)

    def refuse(self, name: str, found: str) -> None:
        """Raise DatasetError that names the entry."""
        raise DatasetError(
            f"the entry {name!r} {found}; nothing was unpacked",
            where=self._source,
            mend=_UNPACK_YOURSELF,
        )

    def _refuse_sizes(self, name: str) -> None:
        total = self._total
        if total > LARGEST_BYTES:
            self.refuse(name, f"brings the unpacked size to {total} bytes, over {LARGEST_BYTES}")
        if total > RATIO_FROM_BYTES and total > LARGEST_RATIO * self._packed:
            self.refuse(
                name,
                f"brings the unpacked size to {total} bytes, more than {LARGEST_RATIO} times "
                f"the archive's {self._packed}",
            )
        if total > self._free:
            raise DatasetError(
                f"unpacks to {total} bytes and more (at the entry {name!r}), and "
                f"{tempfile.gettempdir()} has {self._free} free; nothing was unpacked",
                where=self._source,
                mend="Name a larger folder for temporary files by the variable TMPDIR.",
            )


def _unpack(source: Path, kind: str, folder: Path) -> None:
    gate = _Gate(source, folder)
    if kind == "ZIP":
        with zipfile.ZipFile(source) as pack:
            _unpack_zip(pack, gate, folder)
    else:
        with tarfile.open(source) as tape:
            _unpack_tar(tape, gate, folder)


def _unpack_zip(pack: zipfile.ZipFile, gate: _Gate, folder: Path) -> None:
    entries = [e for e in pack.infolist() if PurePosixPath(e.filename).parts[:1] != (_MAC,)]
    for entry in entries:
        gate.admit(entry.filename, entry.file_size, is_folder=entry.is_dir())
        mode = entry.external_attr >> 16
        if stat.S_ISLNK(mode):
            gate.refuse(entry.filename, "is a link")
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
            gate.refuse(entry.filename, "is a device")
        if entry.flag_bits & 1:
            gate.refuse(entry.filename, "is encrypted")
    for entry in entries:
        pack.extract(entry, folder)


def _unpack_tar(tape: tarfile.TarFile, gate: _Gate, folder: Path) -> None:
    # one by one, as the list of a compressed tape is known only at its end
    for entry in tape:
        gate.admit(entry.name, entry.size, is_folder=entry.isdir())
        try:
            tape.extract(entry, folder, filter="data")
        except tarfile.SpecialFileError:
            gate.refuse(entry.name, "is a device")
        except tarfile.FilterError:
            gate.refuse(entry.name, f"is a link that leads out, to {entry.linkname!r}")
        except KeyError:
            gate.refuse(entry.name, f"is a link to {entry.linkname!r}, which is not there")
    _refuse_cut(tape)


def _refuse_cut(tape: tarfile.TarFile) -> None:
    """Raise ReadError unless the tape has its end mark; tarfile itself takes any end for it."""
    if tape.fileobj is not None:
        tape.fileobj.seek(tape.offset)
        if tape.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("it ends early")
