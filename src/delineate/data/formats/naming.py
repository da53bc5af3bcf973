"""Names in annotation files -> files inside the source, sample names, class ids."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from delineate.data.dataset import DatasetInfo
from delineate.data.formats.settings import DEFAULT_IGNORE, IGNORE_NAMES
from delineate.data.formats.source import Proposal
from delineate.errors import DatasetError, MaskError

BACKGROUND = "background"
_BACKGROUNDS = frozenset({"background", "bg", "backdrop"})
_LISTED = 8


def file_inside(root: Path, name: str, where: str, *, follow_links: bool) -> Path:
    """The file that an annotation file calls ``name``, relative to ``root``.

    Names with backslashes are read as Windows paths. Whether the file is there is not checked.

    Raises:
        DatasetError: ``name`` is absolute, climbs out of ``root`` or leads out through a link.
    """
    parts = PurePosixPath(name.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts or ":" in (parts.parts or ("",))[0]:
        raise DatasetError(
            f"names the file {name!r}, which is outside of {root}",
            where=where,
            mend="Write paths relative to the folder of the images (--images).",
        )
    file = root / parts
    refuse_link_outside(file, root, follow_links=follow_links)
    return file


def refuse_link_outside(file: Path, root: Path, *, follow_links: bool) -> None:
    """Raise DatasetError when ``file`` is reached through a link that leads out of ``root``."""
    if follow_links:
        return
    target = file.resolve()
    if not target.is_relative_to(root.resolve()):
        raise DatasetError(
            f"is a link that leads out of the source, to {target}",
            where=file,
            mend="If that is meant, add --follow-links.",
        )


def sample_names(file_names: Iterable[str]) -> dict[str, str]:
    """Sample names for image files by their names in the source: their stems, where those differ.

    Where two stems are the same, folders are put before them (``a/1.jpg`` becomes ``a_1``).

    Raises:
        DatasetError: two files still have the same name.
    """
    files = list(file_names)
    stems = [PurePosixPath(file.replace("\\", "/")).stem for file in files]
    if len(set(stems)) < len(stems):
        stems = [
            "_".join(
                part
                for part in PurePosixPath(file.replace("\\", "/")).with_suffix("").parts
                if part != "/"
            )
            for file in files
        ]
    owner: dict[str, str] = {}
    for stem, file in zip(stems, files, strict=True):
        other = owner.setdefault(stem, file)
        if other != file:
            raise DatasetError(
                f"{other} and {file} would both be called {stem!r}", mend="Rename one of them."
            )
    return dict(zip(files, stems, strict=True))


def propose(names: Iterable[str]) -> Proposal:
    """Classes of a source that calls them ``names``, in that order.

    A background comes first: the source's own, or a new one. Names that mean ignored pixels
    (:data:`IGNORE_NAMES`) are no class; 255 then is the ignore index (65535 beyond 255 classes).
    """
    ordered = list(dict.fromkeys(names))
    classes = [name for name in ordered if name.lower() not in IGNORE_NAMES]
    own = next((name for name in classes if means_background(name)), None)
    if own is not None:
        classes.remove(own)
    classes.insert(0, own if own is not None else BACKGROUND)
    ignore = None
    if any(name.lower() in IGNORE_NAMES for name in ordered):
        ignore = DEFAULT_IGNORE if len(classes) <= DEFAULT_IGNORE else 65535
    return Proposal(classes=tuple(classes), ignore_index=ignore)


def means_background(name: str) -> bool:
    """Whether a label called ``name`` is what no object covers, whatever its case and dashes.

    Narrower than :func:`delineate.data.palette.is_background`: annotated objects may well be
    called ``other`` or ``rest``.
    """
    return "".join(letter for letter in name.lower() if letter.isalpha()) in _BACKGROUNDS


def ids_by_name(info: DatasetInfo) -> dict[str, int]:
    """Class ids by name, and the ignore index by every name that means it."""
    ids = {name: index for index, name in enumerate(info.classes)}
    if info.ignore_index is not None:
        for name in sorted(IGNORE_NAMES):
            ids.setdefault(name, info.ignore_index)
    return ids


def id_of(name: str, ids: Mapping[str, int], where: str) -> int:
    """The id of the class ``name``; names that mean ignored pixels are found in any case.

    Args:
        ids: from :func:`ids_by_name`.

    Raises:
        MaskError: there is no such class.
    """
    if name in ids:
        return ids[name]
    if name.lower() in IGNORE_NAMES:
        if name.lower() in ids:
            return ids[name.lower()]
        raise MaskError(
            f"labels pixels as {name!r}, and there is no ignore index",
            where=where,
            mend=f"Add --ignore-index {DEFAULT_IGNORE}.",
        )
    near = difflib.get_close_matches(name, list(ids), n=1)
    there = ", ".join(list(ids)[:_LISTED]) + (", ..." if len(ids) > _LISTED else "")
    raise MaskError(
        f"names the class {name!r}, which is none of {there}"
        + (f" (near: {near[0]})" if near else ""),
        where=where,
        mend=f"Add it to --classes, or map it with --map {name}=CLASS.",
    )


def fill_id(info: DatasetInfo) -> int | None:
    """The id of pixels that no object covers: the background's, else the ignore index."""
    own = (index for index, name in enumerate(info.classes) if means_background(name))
    return next(own, info.ignore_index)


def no_background(info: DatasetInfo, where: str) -> MaskError:
    """The error for pixels that nothing covers where no class is the background."""
    return MaskError(
        f"has pixels outside of all objects, and none of the classes {', '.join(info.classes)} "
        "is the background",
        where=where,
        mend="Put background into --classes, or leave those pixels out of account with "
        f"--ignore-index {DEFAULT_IGNORE}.",
    )
