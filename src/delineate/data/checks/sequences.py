"""Frames of one video or series on both sides of a split, found by names and likeness."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from delineate.data.checks.features import ImageFeatures
from delineate.data.checks.findings import Finding
from delineate.data.checks.listing import Pair
from delineate.data.dataset import INFO_FILE

FEWEST_FRAMES = 10
LEAST_LIKENESS = 0.4
"""Median correlation of neighbours, after the mean of all images is taken away. CamVid's three
sequences have 0.65 to 0.78; images that only share a scene or a patient are near 0."""
LEAST_ORDER = 0.75
"""How often neighbours are more alike than two frames drawn from the same prefix. CamVid's
sequences have 0.88 to 0.96; it is 0.5 where the numbers mean nothing."""

_LARGEST_SAMPLE = 2000
_NUMBERED = re.compile(r"^(.*?)(\d+)(\D*)$")
_PATTERNS = ("^([^_]+)_", "^([^-]+)-", "^(.*?)[0-9]+[^0-9]*$")


@dataclass(frozen=True)
class _Frame:
    split: str
    number: int
    index: int


def shared_sequences(
    pairs: Sequence[Pair], features: Sequence[ImageFeatures | None]
) -> list[Finding]:
    """One finding where frames of a sequence are in two splits, for sets without groups.

    Names are read as a prefix and a running number. A prefix counts as a sequence only when
    images with neighbouring numbers look more alike than others with that prefix: names like
    ``img_001`` alone say nothing.
    """
    by_prefix: dict[str, list[_Frame]] = defaultdict(list)
    for index, (pair, one) in enumerate(zip(pairs, features, strict=True)):
        match = _NUMBERED.match(pair.sample.name)
        if match is not None and one is not None:
            frame = _Frame(pair.split, int(match.group(2)), index)
            by_prefix[match.group(1) + "\0" + match.group(3)].append(frame)
    shared = {
        key: sorted(frames, key=lambda frame: frame.number)
        for key, frames in by_prefix.items()
        if len(frames) >= FEWEST_FRAMES and len({frame.split for frame in frames}) > 1
    }
    if not shared:
        return []
    mean = _mean_thumbnail(features)
    sequences = {k: f for k, f in shared.items() if _in_order(f, features, mean)}
    return [_finding(sequences, pairs)] if sequences else []


def _in_order(
    frames: list[_Frame], features: Sequence[ImageFeatures | None], mean: Float32[np.ndarray, " t"]
) -> bool:
    rng = np.random.default_rng(0)  # the same data give the same answer
    n = len(frames)
    firsts = np.arange(n - 1)
    if n - 1 > _LARGEST_SAMPLE:
        firsts = np.sort(rng.choice(n - 1, _LARGEST_SAMPLE, replace=False))

    def likeness(first: int, second: int) -> float:
        one, other = (_centred(features[frames[i].index], mean) for i in (first, second))
        return float(one @ other)

    neighbours = np.array([likeness(int(i), int(i) + 1) for i in firsts])
    if float(np.median(neighbours)) < LEAST_LIKENESS:
        return False
    drawn = rng.integers(0, n, (_LARGEST_SAMPLE, 2))
    # frames that follow each other are what the others are compared with
    drawn = drawn[np.abs(drawn[:, 0] - drawn[:, 1]) > 1]
    others = np.sort([likeness(int(a), int(b)) for a, b in drawn])
    order = np.searchsorted(others, neighbours) / len(others)
    return float(order.mean()) >= LEAST_ORDER


def _mean_thumbnail(features: Sequence[ImageFeatures | None]) -> Float32[np.ndarray, " t"]:
    total, count = np.zeros(1024), 0
    for one in features:
        if one is not None:
            total += one.thumbnail.reshape(-1)
            count += 1
    return (total / max(count, 1)).astype(np.float32)


def _centred(
    one: ImageFeatures | None, mean: Float32[np.ndarray, " t"]
) -> Float32[np.ndarray, " t"]:
    assert one is not None  # frames were made of images that could be read
    picture = one.thumbnail.reshape(-1) - mean
    picture -= picture.mean()
    length = float(np.linalg.norm(picture))
    return np.asarray(picture / max(length, 1e-6), np.float32)


def _finding(sequences: dict[str, list[_Frame]], pairs: Sequence[Pair]) -> Finding:
    told = []
    for key, frames in sorted(sequences.items()):
        in_order = sorted(frames, key=lambda frame: frame.index)
        counts = Counter(frame.split for frame in in_order)
        where = " and ".join(f"{n} in {split}" for split, n in counts.items())
        name = key.partition("\0")[0].rstrip("_-. ") or "of all images"
        told.append(f"{name} ({where})")
    some = ", ".join(told[:5]) + (f" and {len(told) - 5} more" if len(told) > 5 else "")
    what = "the sequence" if len(told) == 1 else f"{len(told)} sequences,"
    return Finding(
        "sequence in two splits",
        INFO_FILE,
        f"two splits share frames of {what} {some}; neighbours by number look alike, so that a "
        "score flatters",
        _mend(sequences, pairs),
    )


def _mend(sequences: dict[str, list[_Frame]], pairs: Sequence[Pair]) -> str:
    for pattern in _PATTERNS:
        found = [re.search(pattern, pair.sample.image.name) for pair in pairs]
        groups = [None if match is None else match.group(1) for match in found]
        whole = all(len({groups[f.index] for f in frames}) == 1 for frames in sequences.values())
        if None not in groups and whole and len(set(groups)) > 1:
            return (
                "Put the images of both splits into one folder images, the masks into masks, and "
                f"import that with --groups '{pattern}' --val-fraction 0.2."
            )
    return (
        "All is one sequence: take one run of numbers as val, and leave out the frames next to it "
        "on both sides."
    )
