"""A bundle on disk: a folder, or the same in a ``.zip``. Everything read is hashed first.

A zip may hold the files or the folder with them: zipping a folder gives the one or the other.
"""

from __future__ import annotations

import hashlib
import lzma
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from delineate.bundle.manifest import Manifest, read_manifest
from delineate.data.files import atomic_file, atomic_folder, refuse_existing
from delineate.errors import BundleError, OutputError, SettingsError

MANIFEST = "manifest.json"
LARGEST_FILE_BYTES = 2**31  # what protobuf can hold; a zip that claims more is hostile
_NO_HASH = "0" * 64  # stands for the manifest's own hash while it is computed

# What zipfile raises on a damaged, encrypted or unknown archive
_ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    KeyError,
    OverflowError,
    RuntimeError,
    ValueError,
    struct.error,
)


class BundleStore:
    """Reads the files of a bundle, each checked against the manifest's SHA-256.

    Raises:
        BundleError: there is no bundle, a file is missing, surplus or altered.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._top = ""  # of a zip that holds the bundle's folder rather than its files
        if path.is_dir():
            names = {
                item.relative_to(path).as_posix() for item in path.rglob("*") if item.is_file()
            }
            self._names = _without_finder(names)
        elif zipfile.is_zipfile(path):
            names = _without_finder(_names_in_zip(path))
            self._top = _single_folder(names)
            self._names = {name.removeprefix(self._top) for name in names}
        elif path.exists():
            raise BundleError(
                "is neither a folder nor a zip", where=path, mend="Name a bundle folder or .zip."
            )
        else:
            raise BundleError(
                "no such bundle", where=path, mend="delineate train writes RUN/NAME.bundle."
            )
        if MANIFEST not in self._names:
            raise BundleError(
                "holds no manifest.json, so it is no bundle",
                where=path,
                mend="Name the folder that ends in .bundle.",
            )
        self.manifest: Manifest = read_manifest(self._raw(MANIFEST), str(path))
        self._verify()

    def read(self, name: str) -> bytes:
        """The content of a file that the manifest lists.

        Raises:
            BundleError: the manifest does not list it, or it cannot be read.
        """
        if name not in self.manifest.files:
            raise BundleError(f"{name} is not listed in manifest.json", where=self.path)
        return self._raw(name)

    def names(self, folder: str) -> list[str]:
        """Names of the listed files below ``folder``, sorted."""
        return sorted(name for name in self.manifest.files if name.startswith(f"{folder}/"))

    def _raw(self, name: str) -> bytes:
        try:
            if self.path.is_dir():
                return (self.path / name).read_bytes()
            with zipfile.ZipFile(self.path) as archive:
                if archive.getinfo(self._top + name).file_size > LARGEST_FILE_BYTES:
                    raise BundleError(f"{name} claims more than 2 GiB", where=self.path)
                return archive.read(self._top + name)
        except (OSError, *_ZIP_ERRORS) as error:
            raise BundleError(f"{name} cannot be read ({error})", where=self.path) from error

    def _verify(self) -> None:
        listed = set(self.manifest.files)
        missing, surplus = listed - self._names, self._names - listed - {MANIFEST}
        if missing or surplus:
            what = [f"{name} is missing" for name in sorted(missing)]
            what += [f"{name} is not listed in manifest.json" for name in sorted(surplus)]
            raise BundleError("; ".join(what[:5]), where=self.path, mend="Copy the bundle again.")
        for name, expected in self.manifest.files.items():
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                raise BundleError(f"{name} lies outside the bundle", where=self.path)
            found = _hash(name, self._raw(name), expected)
            if found != expected:
                mend = "Copy the bundle again, or export it again."
                if name == MANIFEST:
                    mend += " After an edit on purpose, take its line out of files."
                raise BundleError(
                    f"{name} was altered: its SHA-256 is {found[:12]}..., the manifest says "
                    f"{expected[:12]}...",
                    where=self.path,
                    mend=mend,
                )


def find_bundle(path: Path) -> Path:
    """The bundle itself, or the one that a run holds.

    Raises:
        SettingsError: there is none, or several.
    """
    if (path / MANIFEST).exists() or path.suffix == ".zip":
        return path
    inside = sorted(path.glob(f"*.bundle/{MANIFEST}"))
    if len(inside) == 1:
        return inside[0].parent
    raise SettingsError(
        f"is no bundle, nor a run with one ({len(inside)} found)",
        where=path,
        mend="Name the bundle. A run that was cut off gets one by --resume.",
    )


def _names_in_zip(path: Path) -> set[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            return {item.filename for item in archive.infolist() if not item.is_dir()}
    except (OSError, *_ZIP_ERRORS) as error:
        raise BundleError(f"is no readable zip ({error})", where=path) from error


def _without_finder(names: set[str]) -> set[str]:
    """``names`` without what macOS adds to folders and zips when one looks at or makes them."""
    return {
        name
        for name in names
        if not {".DS_Store", "__MACOSX"} & {name.split("/")[0], name.split("/")[-1]}
    }


def _single_folder(names: set[str]) -> str:
    """``FOLDER/`` when all ``names`` are below one folder that holds a manifest, else nothing."""
    tops = {name.partition("/")[0] for name in names}
    folder = f"{tops.pop()}/" if len(tops) == 1 else ""
    return folder if f"{folder}{MANIFEST}" in names else ""


def _hash(name: str, content: bytes, own: str) -> str:
    """SHA-256 of a file; of the manifest with its ``own`` hash, which it holds, as zeros."""
    if name == MANIFEST:
        content = content.replace(own.encode(), _NO_HASH.encode(), 1)
    return hashlib.sha256(content).hexdigest()


def write_bundle(
    path: Path, manifest: Manifest, files: Mapping[str, bytes], *, force: bool = False
) -> None:
    """Write a bundle whole or not at all: a folder, or a zip when ``path`` ends in ``.zip``.

    Args:
        path: where to; it must not exist unless ``force``.
        manifest: ``files`` is filled in here.
        files: content of every other file by its POSIX name.

    Raises:
        BundleError: the manifest has a value that it must not have.
        OutputError: ``path`` exists, holds something else, or cannot be written.
    """
    text = _manifest_text(manifest, files)
    read_manifest(text, str(path))  # what could not be read again is not written
    content = {**files, MANIFEST: text}
    if path.suffix == ".zip":
        if not force:
            refuse_existing(path)
        with atomic_file(path) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in content.items():
                archive.writestr(name, data)
        return
    refuse_other_folder(path)
    with atomic_folder(path, marker=MANIFEST, force=force) as part:
        for name, data in content.items():
            target = part / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)


def refuse_other_folder(path: Path) -> None:
    """Raise OutputError where a bundle would replace a folder of other things."""
    if path.is_dir() and any(path.iterdir()) and not (path / MANIFEST).is_file():
        raise OutputError(
            "is a folder that holds no bundle, so it is not replaced",
            where=path,
            mend="Name another.",
        )


def _manifest_text(manifest: Manifest, files: Mapping[str, bytes]) -> bytes:
    """``manifest.json`` with the hash of every file, its own among them."""
    hashes = {name: hashlib.sha256(files[name]).hexdigest() for name in sorted(files)}
    hashes[MANIFEST] = _NO_HASH
    text = manifest.model_copy(update={"files": hashes}).model_dump_json(indent=2).encode()
    # the last zeros are those of the entry just made: what comes before may quote anything
    before, after = text.rsplit(_NO_HASH.encode(), 1)
    return before + hashlib.sha256(text).hexdigest().encode() + after
