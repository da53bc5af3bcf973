"""Parts of a dataset that keep groups whole and hold every class: folds and nested subsets."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64

from delineate.data.dataset import Dataset, Sample
from delineate.data.masks import read_mask
from delineate.data.parallel import ordered_map
from delineate.errors import DatasetError

Presence = Mapping[Sample, frozenset[int]]


def class_presence(samples: Sequence[Sample], classes: int) -> dict[Sample, frozenset[int]]:
    """The classes that each sample holds; every mask is read once.

    Raises:
        MaskError: a mask cannot be read.
    """
    return dict(
        zip(samples, ordered_map(lambda sample: _held(sample, classes), samples), strict=True)
    )


def _held(sample: Sample, classes: int) -> frozenset[int]:
    if sample.mask is None:
        return frozenset()
    ids = np.unique(read_mask(sample.mask))
    return frozenset(int(i) for i in ids if i < classes)


def divide(
    samples: Sequence[Sample], parts: int, *, seed: int, presence: Presence, root: Path
) -> tuple[tuple[Sample, ...], ...]:
    """Divide samples into parts of about one size, with about as much of every class in each.

    Iterative stratification (Sechidis, Tsoumakas and Vlahavas 2011, *On the Stratification of
    Multi-label Data*) over whole groups: the class with the fewest samples left is dealt out
    first, each of its groups to the part that lacks it the most. A sample without a group is one
    of its own. The result depends on nothing but the samples, what they hold, and the seed.

    Args:
        samples: what to divide.
        parts: how many, 2 or more; none stays empty.
        seed: decides between groups that are alike.
        presence: the classes in each sample.
        root: folder of the dataset: a copy of it elsewhere is divided alike.

    Raises:
        DatasetError: there are fewer groups than parts.
    """
    groups = _groups(samples, seed, root)
    if len(groups) < parts:
        grouped = any(sample.group is not None for sample in samples)
        what = "groups" if grouped else "images"
        raise DatasetError(
            f"{parts} parts need {parts} {what}, and there are {len(groups)}",
            where=root,
            mend="Give more data." if len(groups) < 2 else f"Use {len(groups)} or fewer.",
        )
    classes = sorted({class_id for sample in samples for class_id in presence[sample]})
    holds = _counts(groups, classes, presence)
    sizes = np.array([len(group) for group in groups], np.float64)
    part_of = _deal(holds, sizes, parts)
    found = (
        (
            sample
            for group, part in zip(groups, part_of, strict=True)
            if part == k
            for sample in group
        )
        for k in range(parts)
    )
    return tuple(tuple(sorted(part, key=lambda s: _key(s, root))) for part in found)


def nested(
    samples: Sequence[Sample], *, seed: int, presence: Presence, root: Path
) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """A quarter of the samples, and the half that contains it.

    The quarters are those of :func:`divide`; first comes the one with the most classes, then the
    one that adds the most.

    Raises:
        DatasetError: there are fewer than four groups or images.
    """
    quarters = list(divide(samples, 4, seed=seed, presence=presence, root=root))
    first = max(quarters, key=lambda part: len(_classes_of(part, presence)))
    quarters.remove(first)
    held = _classes_of(first, presence)
    second = max(quarters, key=lambda part: len(held | _classes_of(part, presence)))
    half = sorted((*first, *second), key=lambda sample: _key(sample, root))
    return first, tuple(half)


def _classes_of(samples: Sequence[Sample], presence: Presence) -> frozenset[int]:
    return frozenset().union(*(presence[sample] for sample in samples))


def _key(sample: Sample, root: Path) -> str:
    return sample.image.relative_to(root).as_posix()


def _groups(samples: Sequence[Sample], seed: int, root: Path) -> list[list[Sample]]:
    """The samples of each group, in an order that the seed draws."""
    members: dict[tuple[bool, str], list[Sample]] = defaultdict(list)
    for sample in samples:
        grouped = sample.group is not None
        members[(grouped, sample.group or _key(sample, root))].append(sample)
    drawn = sorted(members, key=lambda key: hashlib.sha256(f"{seed}/{key[1]}".encode()).digest())
    return [members[key] for key in drawn]


def _counts(
    groups: Sequence[Sequence[Sample]], classes: Sequence[int], presence: Presence
) -> Float64[np.ndarray, "groups classes"]:
    """Samples of each group that hold each class."""
    return np.array(
        [[sum(c in presence[sample] for sample in group) for c in classes] for group in groups],
        np.float64,
    ).reshape(len(groups), len(classes))


def _deal(
    holds: Float64[np.ndarray, "groups classes"], sizes: Float64[np.ndarray, " groups"], parts: int
) -> list[int]:
    """The part of each group."""
    part_of = [-1] * len(sizes)
    lacking = np.tile(holds.sum(axis=0) / parts, (parts, 1))  # samples of a class that a part wants
    room = np.full(parts, sizes.sum() / parts)
    left: Bool[np.ndarray, " groups"] = np.ones(len(sizes), bool)
    while left.any():
        remaining = holds[left].sum(axis=0)
        rarest = int(np.where(remaining > 0, remaining, np.inf).argmin()) if len(remaining) else 0
        held = left & (holds[:, rarest] > 0) if remaining.any() else left
        # the largest groups first: small ones even out what they have left uneven
        group = max(np.flatnonzero(held), key=lambda index: sizes[index])
        wanted = lacking[:, rarest] if remaining.any() else room
        part = max(range(parts), key=lambda k: (wanted[k], room[k]))
        part_of[group] = part
        left[group] = False
        lacking[part] -= holds[group]
        room[part] -= sizes[group]
    return part_of


def pooled(data: Dataset) -> Dataset:
    """``data`` with train and val alone, or with all its images where it was never split.

    Raises:
        DatasetError: there is no such split.
    """
    if "all" in data.splits and "train" not in data.splits:
        samples = data.split("all")
        return Dataset(data.path, data.info, {"train": samples[:-1], "val": samples[-1:]})
    return Dataset(data.path, data.info, {name: data.split(name) for name in ("train", "val")})
