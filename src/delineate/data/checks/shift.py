"""Classes that take more of one split than of another, beyond what chance gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
from jaxtyping import Bool, Float64

from delineate.data.checks.findings import Finding
from delineate.data.checks.listing import Pair
from delineate.data.dataset import INFO_FILE, DatasetInfo

LEAST_EFFECT = 0.5
"""Difference of the mean shares over their spread between images (Cohen's d): a medium effect."""

FALSE_ALARMS = 0.005
"""Chance of any finding on splits drawn at random, all classes and pairs of splits together."""

_PERMUTATIONS = 2000
_AT_ONCE = 100  # bounds the memory
_LARGEST_SAMPLE = 2000  # images or groups of a split; more do not change the answer
_FEWEST = 4
_LISTED = 8


def label_shift(
    info: DatasetInfo, pairs: Sequence[Pair], counts: Sequence[Mapping[int, int] | None]
) -> list[Finding]:
    """Classes whose share of the pixels differs between two splits.

    A permutation test of the largest effect over all classes (Westfall and Young's max-T, which
    holds the chance of a false alarm however many classes there are): images, or groups where
    they are given, change sides at random. A finding needs both that and LEAST_EFFECT.

    Args:
        counts: pixels of each class id of each pair; None without a mask.
    """
    units: dict[str, dict[str, list[int]]] = {}
    for index, (pair, found) in enumerate(zip(pairs, counts, strict=True)):
        if found:
            group = pair.sample.group
            key = f"image {index}" if group is None else f"group {group}"
            units.setdefault(pair.split, {}).setdefault(key, []).append(index)
    shares = {
        split: _shares(list(members.values()), counts, len(info.classes))
        for split, members in units.items()
    }
    couples = [
        (a, b) for a, b in combinations(shares, 2) if min(len(shares[a]), len(shares[b])) >= _FEWEST
    ]
    return [
        finding
        for a, b in couples
        for finding in _compare(info, (a, shares[a]), (b, shares[b]), FALSE_ALARMS / len(couples))
    ]


def _shares(
    units: list[list[int]], counts: Sequence[Mapping[int, int] | None], classes: int
) -> Float64[np.ndarray, "units classes"]:
    """Share of each class in each unit; each image of a group has the same weight."""
    rng = np.random.default_rng(0)
    if len(units) > _LARGEST_SAMPLE:
        units = [units[i] for i in rng.choice(len(units), _LARGEST_SAMPLE, replace=False)]
    table = np.zeros((len(units), classes))
    for row, members in zip(table, units, strict=True):
        for index in members:
            found = counts[index] or {}
            total = sum(found.values())
            for class_id, pixels in found.items():
                row[class_id] += pixels / total / len(members)
    return table


def _compare(
    info: DatasetInfo,
    first: tuple[str, Float64[np.ndarray, "m classes"]],
    second: tuple[str, Float64[np.ndarray, "n classes"]],
    level: float,
) -> list[Finding]:
    together = np.concatenate([first[1], second[1]])
    spread = together.std(axis=0)
    scale = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 0)
    side = np.arange(len(together)) < len(first[1])
    effects = _effects(together, side[None], scale)[0]
    if float(effects.max()) < LEAST_EFFECT:
        return []
    rng = np.random.default_rng(0)
    largest = np.concatenate(
        [
            _effects(together, rng.permuted(np.tile(side, (_AT_ONCE, 1)), axis=1), scale).max(
                axis=1
            )
            for _ in range(_PERMUTATIONS // _AT_ONCE)
        ]
    )
    largest.sort()
    # counts the observed split among the permutations, so that the level is exact
    reached = len(largest) - np.searchsorted(largest, effects - 1e-12, "left")
    p = (reached + 1) / (len(largest) + 1)
    means = (first[1].mean(axis=0), second[1].mean(axis=0))
    wrong = np.flatnonzero((effects >= LEAST_EFFECT) & (p <= level)).tolist()
    if not wrong:
        return []
    told = ", ".join(
        f"{info.classes[k]!r} ({means[0][k]:.2%} and {means[1][k]:.2%}, p = {p[k]:.4f})"
        for k in wrong[:_LISTED]
    )
    more = f" and {len(wrong) - _LISTED} more" if len(wrong) > _LISTED else ""
    return [
        Finding(
            "label shift",
            INFO_FILE,
            f"{first[0]} and {second[0]} differ in the share of pixels of {told}{more}, more than "
            "a split at random gives",
            "Split again at random, by groups where images belong together; or keep it, if this "
            "is how production differs.",
        )
    ]


def _effects(
    shares: Float64[np.ndarray, "units classes"],
    sides: Bool[np.ndarray, "splits units"],
    scale: Float64[np.ndarray, " classes"],
) -> Float64[np.ndarray, "splits classes"]:
    """Difference of the mean shares of the two sides, in spreads, for several splits."""
    members = sides.sum(axis=1, keepdims=True)
    total = shares.sum(axis=0)
    inside = sides.astype(np.float64) @ shares
    difference = inside / members - (total - inside) / (len(shares) - members)
    effects: Float64[np.ndarray, "splits classes"] = np.abs(difference) * scale
    return effects
