"""A bundle on disk: a folder, or the same in a ``.zip``. Everything read is hashed first."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from delineate.bundle.manifest import Manifest, read_manifest
from delineate.data.files import atomic_file, atomic_folder, refuse_existing
from delineate.errors import BundleError

MANIFEST = "manifest.json"
LARGEST_FILE_BYTES = 2**31  # what protobuf can hold; a zip that claims more is hostile


class BundleStore:
    """Reads the files of a bundle, each checked against the manifest's SHA-256.

    Raises:
        BundleError: there is no bundle, a file is missing, surplus or altered.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.is_dir():
            self._names = {
                item.relative_to(path).as_posix() for item in path.rglob("*") if item.is_file()
            }
        elif zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                self._names = {i.filename for i in archive.infolist() if not i.is_dir()}
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
        """The content of a file that the manifest lists."""
        return self._raw(name)

    def names(self, folder: str) -> list[str]:
        """Names of the listed files below ``folder``, sorted."""
        return sorted(name for name in self.manifest.files if name.startswith(f"{folder}/"))

    def _raw(self, name: str) -> bytes:
        try:
            if self.path.is_dir():
                return (self.path / name).read_bytes()
            with zipfile.ZipFile(self.path) as archive:
                if archive.getinfo(name).file_size > LARGEST_FILE_BYTES:
                    raise BundleError(f"{name} claims more than 2 GiB", where=self.path)
                return archive.read(name)
        except (OSError, KeyError, zipfile.BadZipFile, EOFError) as error:
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
            found = hashlib.sha256(self._raw(name)).hexdigest()
            if found != expected:
                raise BundleError(
                    f"{name} was altered: its SHA-256 is {found[:12]}..., the manifest says "
                    f"{expected[:12]}...",
                    where=self.path,
                    mend="Copy the bundle again, or export it again.",
                )


def write_bundle(
    path: Path, manifest: Manifest, files: Mapping[str, bytes], *, force: bool = False
) -> None:
    """Write a bundle whole or not at all: a folder, or a zip when ``path`` ends in ``.zip``.

    Args:
        path: where to; it must not exist unless ``force``.
        manifest: without ``files``, which is filled in here.
        files: content of every other file by its POSIX name.

    Raises:
        OutputError: ``path`` exists, or cannot be written.
    """
    hashes = {name: hashlib.sha256(files[name]).hexdigest() for name in sorted(files)}
    text = manifest.model_copy(update={"files": hashes}).model_dump_json(indent=2).encode()
    content = {**files, MANIFEST: text}
    if path.suffix == ".zip":
        if not force:
            refuse_existing(path)
        with atomic_file(path) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in content.items():
                archive.writestr(name, data)
        return
    with atomic_folder(path, force=force) as part:
        for name, data in content.items():
            target = part / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
