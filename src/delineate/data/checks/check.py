"""What is wrong with a dataset: everything is looked at, whatever is found on the way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from delineate.data.checks.across import (
    groups_in_two_splits,
    mixed_types,
    near_copies,
    same_images,
    same_masks,
    unlearnable_classes,
)
from delineate.data.checks.findings import Finding
from delineate.data.checks.listing import Pair, list_pairs
from delineate.data.checks.outliers import unusual_images
from delineate.data.checks.pair import Seen, look
from delineate.data.checks.sequences import shared_sequences
from delineate.data.checks.shift import label_shift
from delineate.data.dataset import DatasetInfo, find_splits, read_info
from delineate.data.parallel import ordered_map
from delineate.errors import DatasetError

Progress = Callable[[int, int], None]
"""Called with samples done and samples in all, from the calling thread."""


@dataclass(frozen=True)
class Examination:
    """A dataset that was looked at: its pairs, what each gave, and all findings."""

    path: Path
    info: DatasetInfo
    pairs: list[Pair]
    seen: list[Seen]
    findings: list[Finding]


def check(
    dataset_path: Path, *, workers: int | None = None, progress: Progress | None = None
) -> list[Finding]:
    """Look for problems in the canonical dataset at ``dataset_path``.

    Looks at every pair (missing halves, unreadable files, sizes, ids and why they are wrong,
    masks without anything, object ids), at images that are unlike the rest (pixel type, blank,
    saturated, another kind), and between pairs (the same or nearly the same image, the same
    group or sequence in two splits, one image with two masks, one mask for two images, classes
    that cannot be learnt, class shares that differ between splits). A folder ``test`` without
    masks is taken as unlabelled.

    Args:
        dataset_path: a folder with ``dataset.yaml``.
        workers: threads; as many as processors when left out.
        progress: told after every sample.

    Returns:
        The findings, by split and file; those about the whole dataset come last.

    Raises:
        DatasetError: there is no dataset at all: no folder, no or a wrong ``dataset.yaml``, no
            images.
    """
    return examine(dataset_path, workers=workers, progress=progress).findings


def examine(
    dataset_path: Path, *, workers: int | None = None, progress: Progress | None = None
) -> Examination:
    """As :func:`check`, with what was seen of each pair; about 2 KB of memory for each."""
    info = read_info(dataset_path)
    findings: list[Finding] = []
    pairs: list[Pair] = []
    for split, folder in find_splits(dataset_path).items():
        found, listed = list_pairs(dataset_path, split, folder, info)
        findings += found
        pairs += listed
    if not pairs:
        raise DatasetError("holds no images", where=dataset_path)

    def look_at(pair: Pair) -> Seen:
        return look(dataset_path, pair, info)

    seen: list[Seen] = []
    for result in ordered_map(look_at, pairs, workers):
        seen.append(result)
        findings += result.findings
        if progress is not None:
            progress(len(seen), len(pairs))
    features = [result.image for result in seen]
    findings += mixed_types(dataset_path, pairs, seen)
    findings += unusual_images(dataset_path, pairs, features)
    findings += same_images(dataset_path, pairs, seen)
    findings += near_copies(dataset_path, pairs, seen)
    findings += same_masks(dataset_path, pairs, seen)
    findings += groups_in_two_splits(pairs)
    if info.groups is None:
        findings += shared_sequences(pairs, features)
    findings += unlearnable_classes(info, pairs, seen)
    findings += label_shift(info, pairs, [result.counts for result in seen])
    return Examination(dataset_path, info, pairs, seen, findings)
