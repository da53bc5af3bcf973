"""What can be mended without a guess, in a copy of the dataset."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from delineate.data.checks.check import Examination, Progress, check, examine
from delineate.data.checks.findings import Finding, below
from delineate.data.checks.mask_flaws import read_colours
from delineate.data.checks.mending import mend_mask
from delineate.data.checks.pair import Seen
from delineate.data.dataset import INFO_FILE
from delineate.data.files import atomic_folder, refuse_existing, write_text
from delineate.data.masks import write_mask
from delineate.data.palette import default_colours
from delineate.errors import OutputError

LOG_FILE = "fix.jsonl"

_MENDABLE = {"ids", "stray values", "anti-aliased mask", "rgb mask"}
_HELD_OUT = ("val", "test")


@dataclass(frozen=True)
class Change:
    """One file of the copy that differs from the dataset.

    Attributes:
        file: path below the dataset's folder.
        what: what was done.
        why: the flaw.
    """

    file: str
    what: str
    why: str


@dataclass(frozen=True)
class Fixed:
    """What became of a dataset.

    Attributes:
        findings: of the dataset as it was.
        changes: what differs in the copy.
        left: what a check of the copy finds.
    """

    findings: list[Finding]
    changes: list[Change]
    left: list[Finding]


def fix(
    dataset_path: Path,
    out: Path,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Fixed:
    """Write a copy of a dataset in which everything that is safe to mend is mended.

    Copies of val and test images leave train. Masks are written again that are grey saved as
    RGB, of the colours of ``dataset.yaml``, black and white for two classes, anti-aliased where
    the class beside is clear, with stray ids where there is an ignore index, or in 16 bits
    without need. Every other file is copied byte for byte. ``fix.jsonl`` in ``out`` names each
    change. The dataset itself is only read.

    Args:
        dataset_path: a folder with ``dataset.yaml``.
        out: the folder to make; it appears when it is complete.
        workers: threads; as many as processors when left out.
        progress: told after every sample that was looked at.

    Raises:
        DatasetError: there is no dataset at ``dataset_path``.
        OutputError: ``out`` exists, lies in the dataset, or cannot be written.
    """
    if out.resolve().is_relative_to(dataset_path.resolve()):
        raise OutputError(
            "lies inside the dataset", where=out, mend="Name a folder beside it for --fix."
        )
    refuse_existing(out)
    seen = examine(dataset_path, workers=workers, progress=progress)
    with atomic_folder(out, marker=INFO_FILE) as part:
        changes = _removals(seen)
        removed = {change.file for change in changes}
        for file in _files(dataset_path):
            name = below(dataset_path, file)
            if name not in removed:
                target = part / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target)
        changes += _mended(seen, part, removed)
        log = [json.dumps(asdict(change)) + "\n" for change in changes]
        write_text(part / LOG_FILE, "".join(log))
        left = check(part, workers=workers)
    return Fixed(seen.findings, changes, left)


def _files(root: Path) -> Iterator[Path]:
    """All files below ``root``, through links to folders too, each folder once."""
    visited = set()
    for folder, folders, names in os.walk(root, followlinks=True):
        visited.add(Path(folder).resolve())
        folders[:] = sorted(f for f in folders if (Path(folder) / f).resolve() not in visited)
        for name in sorted(names):
            file = Path(folder) / name
            if file.is_file() and (file.parent, name) != (root, LOG_FILE):
                yield file


def _removals(seen: Examination) -> list[Change]:
    """Pairs of train that show an image of val or test, unless that leaves train empty."""
    held_out = {
        result.image.digest: pair
        for pair, result in zip(seen.pairs, seen.seen, strict=True)
        if pair.split in _HELD_OUT and result.image is not None
    }
    train = [
        (pair, result)
        for pair, result in zip(seen.pairs, seen.seen, strict=True)
        if pair.split == "train"
    ]
    copies = [
        (pair, held_out[result.image.digest])
        for pair, result in train
        if result.image is not None and result.image.digest in held_out
    ]
    if len(copies) == len(train):
        return []
    return [
        Change(
            below(seen.path, file),
            "removed",
            f"its image has the same pixels as {below(seen.path, other.sample.image)}",
        )
        for pair, other in copies
        for file in (pair.sample.image, pair.sample.mask, pair.sample.instances)
        if file is not None
    ]


def _mended(seen: Examination, part: Path, removed: set[str]) -> list[Change]:
    """Write masks again in ``part``."""
    info = seen.info
    colours = info.colours or default_colours(len(info.classes), info.classes)
    black_and_white = _black_and_white(seen)
    flawed = {f.file for f in seen.findings if f.kind in _MENDABLE}
    changes = []
    for pair, result in zip(seen.pairs, seen.seen, strict=True):
        mask = pair.sample.mask
        name = "" if mask is None else below(seen.path, mask)
        if mask is None or name in removed or not (name in flawed or result.needless_16_bit):
            continue
        mended = mend_mask(mask, info, black_and_white=black_and_white)
        if mended is None:
            continue
        labels, done = mended
        if result.needless_16_bit:
            labels = labels.astype(np.uint8)
            done = [*done, ("written in 8 bits", "it has 16 bits and no id above 255")]
        if mask.suffix.lower() == ".png":
            write_mask(part / name, labels, colours)
            changes += [Change(name, what, why) for what, why in done]
    return changes


def _black_and_white(seen: Examination) -> bool:
    """Whether 255 can only mean class 1: two classes, and no mask says 1 by an area of its own."""
    info = seen.info
    if len(info.classes) != 2 or info.ignore_index is not None:
        return False
    interpolated = {f.file for f in seen.findings if f.kind == "anti-aliased mask"}
    return not any(
        _may_say_one(pair.sample.mask, result)
        for pair, result in zip(seen.pairs, seen.seen, strict=True)
        if pair.sample.mask is not None and below(seen.path, pair.sample.mask) not in interpolated
    )


def _may_say_one(mask: Path, result: Seen) -> bool:
    """Whether a mask has pixels of 1; what cannot be read might."""
    if result.counts is not None:
        return 1 in result.counts
    pixels = read_colours(mask)
    if pixels is None:
        return True
    is_grey = bool((pixels == pixels[:, :, :1]).all())
    return is_grey and bool((pixels[:, :, 0] == 1).any())
