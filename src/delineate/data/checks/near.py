"""Nearly the same image in two splits, found without comparing every pair."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float32, Int64, UInt64

from delineate.data.checks.features import ImageFeatures, Thumbnail, turn, turned

LARGEST_DISTANCE = 7
"""Bits by which two hashes may differ. Of four bands of 16 bits, one then differs in at most one
bit, so that looking up each band and its 16 neighbours finds every pair."""

LEAST_CORRELATION = 0.99
"""Of the details (what a blur of 2 px takes away) of two thumbnails. Measured on CamVid: copies
encoded as JPEG of quality 20, halved, squeezed or with another gamma have 0.993 and more, while
the two most alike frames, a second apart in a car that stands, have 0.983."""

_BLUR_PX = 2.0
_AT_ONCE = 1 << 18  # pairs looked at together: bounds the memory

# Low frequencies differ more between images than high ones: each band gets some of each.
_BAND_BITS = [[8 * r + c for r in range(8) for c in range(8) if (r + c) % 4 == b] for b in range(4)]

Confirm = Callable[[int, int], bool]


@dataclass(frozen=True)
class Match:
    """``query`` and ``other`` are indices; ``turned`` says that one is mirrored or rotated."""

    query: int
    other: int
    turned: bool


def near_duplicates(
    queries: Sequence[ImageFeatures], others: Sequence[ImageFeatures]
) -> list[Match]:
    """For each of ``queries`` one of ``others`` that shows nearly the same, if there is one.

    Hashes are looked up in four tables (multi-index hashing: Norouzi et al., Fast Search in
    Hamming Space with Multi-Index Hashing, 2012); thumbnails decide. An image is done with its
    first match, so that thousands of equal images cost no more than others. Constant images
    match nothing.
    """
    table = _Table(others)
    open_queries = [i for i, one in enumerate(queries) if not one.constant]
    found: dict[int, Match] = {}
    for index in range(8):
        hashes = np.array([turned(queries[i].phash)[index] for i in open_queries], np.uint64)

        def same(
            position: int, other: int, asked: list[int] = open_queries, index: int = index
        ) -> bool:
            one = _details(turn(queries[asked[position]].thumbnail, index))
            return float(one @ _details(others[other].thumbnail)) >= LEAST_CORRELATION

        for position, other in table.first_matches(hashes, same).items():
            query = open_queries[position]
            found[query] = Match(query, other, turned=index > 0)
        open_queries = [i for i in open_queries if i not in found]
    return [found[i] for i in sorted(found)]


class _Table:
    """Where the hashes of images are that agree in a band."""

    def __init__(self, images: Sequence[ImageFeatures]) -> None:
        self._indices = np.array([i for i, one in enumerate(images) if not one.constant], np.int64)
        self._hashes = np.array([images[i].phash for i in self._indices], np.uint64)
        keys = [_band(self._hashes, bits) for bits in _BAND_BITS]
        self._order = [np.argsort(key, kind="stable") for key in keys]
        self._keys = [key[order] for key, order in zip(keys, self._order, strict=True)]

    def first_matches(self, hashes: UInt64[np.ndarray, " q"], same: Confirm) -> dict[int, int]:
        """The first image that each hash is near to and that ``same`` confirms.

        Args:
            hashes: of the queries.
            same: whether a query, by its position in ``hashes``, and an image, by its index, are.
        """
        found: dict[int, int] = {}
        undone = np.ones(len(hashes), bool)
        for band, bits in enumerate(_BAND_BITS):
            keys = _band(hashes, bits)
            for flip in (0, *(1 << bit for bit in range(16))):
                positions = np.flatnonzero(undone)
                wanted = keys[positions] ^ flip
                first = np.searchsorted(self._keys[band], wanted, "left")
                last = np.searchsorted(self._keys[band], wanted, "right")
                while positions.size:
                    left = first < last
                    positions, first, last = positions[left], first[left], last[left]
                    step = max(1, _AT_ONCE // max(1, len(positions)))
                    step = min(step, int((last - first).max(initial=0)))
                    for position, other in self._near(band, positions, first, last, step, hashes):
                        if undone[position] and same(position, other):
                            found[position] = other
                            undone[position] = False
                    first = first + step
                    first[~undone[positions]] = last[~undone[positions]]
        return found

    def _near(
        self,
        band: int,
        positions: Int64[np.ndarray, " p"],
        first: Int64[np.ndarray, " p"],
        last: Int64[np.ndarray, " p"],
        step: int,
        hashes: UInt64[np.ndarray, " q"],
    ) -> list[tuple[int, int]]:
        """(position, index) of the pairs within LARGEST_DISTANCE among the next ``step`` each."""
        places = first[:, None] + np.arange(step)
        rows, columns = np.nonzero(places < last[:, None])
        entries = self._order[band][places[rows, columns]]
        distance = np.bitwise_count(self._hashes[entries] ^ hashes[positions[rows]])
        near = distance <= LARGEST_DISTANCE
        pairs = zip(positions[rows[near]], self._indices[entries[near]], strict=True)
        return [(int(position), int(index)) for position, index in pairs]


def _band(hashes: UInt64[np.ndarray, " n"], bits: list[int]) -> Int64[np.ndarray, " n"]:
    unpacked = np.unpackbits(hashes.astype("<u8").view(np.uint8), bitorder="little")
    picked: Int64[np.ndarray, " n"] = unpacked.reshape(-1, 64)[:, bits] @ (1 << np.arange(16))
    return picked


def _details(thumbnail: Thumbnail) -> Float32[np.ndarray, " t"]:
    """What is finer than the blur, of length one, so that the product of two is a correlation."""
    picture = thumbnail.astype(np.float32)
    fine = (picture - cv2.GaussianBlur(picture, (0, 0), _BLUR_PX)).reshape(-1)
    fine -= fine.mean()
    length = float(np.linalg.norm(fine))
    return fine / np.float32(length) if length > 0 else fine
