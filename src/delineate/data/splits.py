"""Dividing samples into train and val: by seed, and never through a group."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from delineate.errors import DatasetError


def split_names(
    names: Sequence[str], val_fraction: float, seed: int, groups: Mapping[str, str | None]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Divide sample names into (train, val), both sorted.

    The result depends on nothing but the names, their groups, the fraction and the seed: not on
    the order of the files nor on the version of a random generator. A group is never on both
    sides, and the number of samples in val is as near to the fraction as the groups allow; both
    sides get at least one.

    Args:
        names: unique sample names.
        val_fraction: share of the samples for val, between 0 and 1; 0 and 1 leave a side empty.
        seed: another seed gives another split.
        groups: group of each sample; a name that is missing or None is a group of its own.

    Raises:
        DatasetError: there is only one group (or sample) to divide.
    """
    ordered = sorted(names)
    if val_fraction <= 0:
        return tuple(ordered), ()
    if val_fraction >= 1:
        return (), tuple(ordered)
    members: dict[tuple[bool, str], list[str]] = defaultdict(list)
    for name in ordered:
        group = groups.get(name)
        members[(group is not None, name if group is None else group)].append(name)
    if len(members) < 2:
        what = "one sample" if len(ordered) == 1 else f"one group ({next(iter(members))[1]!r})"
        raise DatasetError(
            f"there is only {what}, which cannot be split into train and val",
            mend="Use --val-fraction 0, or give more data.",
        )
    shuffled = sorted(members, key=lambda key: _draw(seed, key[1]))
    target = min(max(round(val_fraction * len(ordered)), 1), len(ordered) - 1)
    chosen = _subset_near([len(members[key]) for key in shuffled], target)
    val = sorted(name for index in chosen for name in members[shuffled[index]])
    in_val = set(val)
    return tuple(name for name in ordered if name not in in_val), tuple(val)


def _draw(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}/{name}".encode()).digest()


def _subset_near(sizes: Sequence[int], target: int) -> Iterable[int]:
    """Indices of a subset of ``sizes`` whose sum is nearest to ``target``, neither none nor all.

    Subset sum by dynamic programming: ``reached_by[s]`` is the first index with which the sum
    ``s`` can be made. Earlier indices are preferred, so that the shuffled order decides.
    """
    total = sum(sizes)
    reached_by = np.full(total + 1, -1, np.int64)
    reachable = np.zeros(total + 1, bool)
    reachable[0] = True
    for index, size in enumerate(sizes):
        new = np.zeros_like(reachable)
        new[size:] = reachable[: total + 1 - size]
        new &= ~reachable
        reached_by[new] = index
        reachable |= new
        if reachable[target]:
            break
    sums = np.flatnonzero(reachable[1:total]) + 1
    best = int(sums[np.abs(sums - target).argmin()])
    while best:
        index = int(reached_by[best])
        yield index
        best -= sizes[index]
