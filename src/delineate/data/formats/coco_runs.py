"""COCO's segmentations -> runs of pixels, all objects of an image at once.

Polygons are filled by pycocotools itself (rleFrPoly of common/maskApi.c in
https://github.com/cocodataset/cocoapi), so that every pixel is as there. Its masks of the whole
image for each object are what is slow, and these are never made.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain
from typing import Any

import msgspec
import numpy as np
from jaxtyping import Int64
from pycocotools import mask as coco

from delineate.data.formats.drawing import FARTHEST_PX, LONGEST_OUTLINE_PX
from delineate.data.rle import PACKED_COUNTS, places_within, unpack_counts
from delineate.errors import MaskError

_PAINTED_AT_ONCE = 1 << 22  # pixels
_NOTHING = frozenset({b"", b"null", b"[]"})


class RleJson(msgspec.Struct, gc=False):
    """A run-length encoding; ``size`` is [height, width], ``counts`` packed or plain."""

    size: tuple[int, int]
    counts: str | list[int]


@dataclass(frozen=True)
class Runs:
    """Runs of pixels, counted down the columns from left to right.

    Attributes:
        starts: first pixel of each run.
        lengths: pixels of each run.
        owners: index of the object that each run belongs to, ascending.
        areas: pixels of each object; what its parts share counts once.
    """

    starts: Int64[np.ndarray, " r"]
    lengths: Int64[np.ndarray, " r"]
    owners: Int64[np.ndarray, " r"]
    areas: Int64[np.ndarray, " n"]


def is_empty(segmentation: msgspec.Raw) -> bool:
    """Whether a segmentation is left out, null or an empty list."""
    view = memoryview(segmentation)
    return len(view) < 8 and bytes(view).translate(None, b" \t\r\n") in _NOTHING


def find_runs(
    segmentations: Sequence[msgspec.Raw], hw: tuple[int, int], places: Sequence[str]
) -> Runs:
    """Runs of the objects of one image.

    Polygons and encodings are clipped and joined as pycocotools does: several polygons of one
    object are one area, and one that crosses itself is filled by the even-odd rule.

    Args:
        segmentations: JSON of each object: polygons as lists of x, y, x, y, ... or an RLE.
        hw: height and width of the image in pixels.
        places: file, image and annotation of each object, for messages.

    Raises:
        MaskError: a polygon has fewer than 3 points, an odd number of coordinates, ones that are
            no finite numbers or far outside; an RLE is of another size or does not fill it.
    """
    parsed = [_parse(raw, place) for raw, place in zip(segmentations, places, strict=True)]
    polygons = [segment if isinstance(segment, list) else [] for segment in parsed]
    parts = list(chain.from_iterable(polygons))
    if parts:
        _refuse_bad_polygons(parts, polygons, hw, places)
    filled = coco.frPyObjects(parts, *hw) if parts else []
    pieces = _pieces(parsed, filled, hw, places)
    numbers, sizes, owners = _join(pieces)
    return _to_runs(numbers, sizes, owners, hw, _areas_of_several(polygons, filled), places)


def paint_order(
    runs: Runs, levels: Int64[np.ndarray, " n"], overlap: str
) -> Int64[np.ndarray, " n"]:
    """Indices of the objects, lowest first: by level, then as ``overlap`` says."""
    index = np.arange(len(levels))
    match overlap:
        case "earlier":
            within = -index
        case "smaller":
            within = -runs.areas
        case _:
            within = index
    return np.lexsort((index, within, levels))


def painted(
    runs: Runs, order: Int64[np.ndarray, " n"]
) -> Iterator[tuple[Int64[np.ndarray, " p"], Int64[np.ndarray, " p"]]]:
    """(pixel, index of the object) in ``order``, some millions at a time."""
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    sequence = np.argsort(rank[runs.owners], kind="stable")
    starts, lengths, owners = (
        values[sequence] for values in (runs.starts, runs.lengths, runs.owners)
    )
    ends = np.cumsum(lengths)
    first = 0
    while first < len(ends):
        before = int(ends[first - 1]) if first else 0
        last = max(first + 1, int(np.searchsorted(ends, before + _PAINTED_AT_ONCE)))
        some = slice(first, last)
        shift = starts[some] - (ends[some] - lengths[some] - before)
        pixels = np.repeat(shift, lengths[some])
        pixels += np.arange(len(pixels))
        yield pixels, np.repeat(owners[some], lengths[some])
        first = last


@cache
def _decoder() -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(list[list[float]] | RleJson)


def _parse(raw: msgspec.Raw, place: str) -> list[list[float]] | RleJson:
    try:
        parsed: list[list[float]] | RleJson = _decoder().decode(raw)
    except msgspec.ValidationError as error:
        found, _, path = str(error).partition(" - at `")
        raise MaskError(
            f"has a segmentation that cannot be read: {found[:1].lower() + found[1:]}",
            where=f"{place}, {path.rstrip('`').replace('$', 'segmentation', 1)}" if path else place,
            mend="Write polygons as lists of finite numbers x, y, x, y, ...; or an RLE with size "
            "and counts.",
        ) from error
    return parsed


def _refuse_bad_polygons(
    parts: list[list[float]],
    polygons: list[list[list[float]]],
    hw: tuple[int, int],
    places: Sequence[str],
) -> None:
    lengths = np.fromiter(map(len, parts), np.int64, len(parts))
    bad = (lengths < 6) | (lengths % 2 == 1)
    if bad.any():
        part = int(np.argmax(bad))
        found = f"has a polygon of {_plural(len(parts[part]) // 2, 'point')}, and an area has 3"
        if len(parts[part]) % 2:
            found = f"has a polygon of {len(parts[part])} numbers, and points have two each"
        raise MaskError(
            found, where=_place_of(part, polygons, places), mend="Draw it again, or delete it."
        )
    # x and y are side by side, so a difference of two places is that of one point to the next
    flat = np.fromiter(chain.from_iterable(parts), np.float64, int(lengths.sum()))
    firsts = np.cumsum(lengths) - lengths
    far = np.maximum.reduceat(np.abs(flat), firsts) > max(hw) + FARTHEST_PX
    if far.any():
        part = int(np.argmax(far))
        value = max(parts[part], key=abs)
        raise MaskError(
            f"has the coordinate {value:g}, far outside of the image of {hw[1]} x {hw[0]} px",
            where=_place_of(part, polygons, places),
            mend="Check that the annotations belong to this image; move it, or delete it.",
        )
    steps = np.zeros(len(flat))
    steps[2:] = np.abs(flat[2:] - flat[:-2])
    starts = firsts[:, None] + np.arange(2)
    steps[starts] = 0
    outlines = np.add.reduceat(steps, firsts)
    if outlines.max() > LONGEST_OUTLINE_PX:
        part = int(np.argmax(outlines))
        raise MaskError(
            f"has an outline of {outlines[part]:.0f} px, and {LONGEST_OUTLINE_PX} are the most "
            "that is drawn",
            where=_place_of(part, polygons, places),
            mend="Store it as RLE.",
        )


def _place_of(part: int, polygons: list[list[list[float]]], places: Sequence[str]) -> str:
    ends = np.cumsum([len(polygon) for polygon in polygons])
    return places[int(np.searchsorted(ends, part, side="right"))]


def _pieces(
    parsed: list[list[list[float]] | RleJson],
    filled: list[dict[str, Any]],
    hw: tuple[int, int],
    places: Sequence[str],
) -> list[tuple[int, bytes | list[int]]]:
    """(index of the object, counts) of every part of every object, in order."""
    following = iter(filled)
    pieces: list[tuple[int, bytes | list[int]]] = []
    for index, segment in enumerate(parsed):
        if isinstance(segment, list):
            pieces += [(index, next(following)["counts"]) for _ in segment]
            continue
        if segment.size != hw:
            raise MaskError(
                f"has an RLE of size {list(segment.size)} (height, width), and the image is "
                f"{list(hw)}",
                where=places[index],
                mend="Take the RLE and the image at one size.",
            )
        counts = segment.counts
        if isinstance(counts, str):
            if not PACKED_COUNTS.fullmatch(counts):
                raise _wrong_counts(hw, places[index])
            pieces.append((index, counts.encode()))
        else:
            if not counts or min(counts) < 0 or sum(counts) != hw[0] * hw[1]:
                raise _wrong_counts(hw, places[index])
            pieces.append((index, counts))
    return pieces


def _wrong_counts(hw: tuple[int, int], place: str) -> MaskError:
    return MaskError(
        f"has an RLE whose counts do not fill {hw[1]} x {hw[0]} px (width x height)",
        where=place,
        mend="Encode the mask with pycocotools.mask.encode.",
    )


def _join(
    pieces: list[tuple[int, bytes | list[int]]],
) -> tuple[Int64[np.ndarray, " c"], Int64[np.ndarray, " s"], Int64[np.ndarray, " s"]]:
    """Counts of all pieces end to end, how many each has, and its object."""
    numbers = [np.zeros(0, np.int64)]
    sizes = [np.zeros(0, np.int64)]
    packed: list[bytes] = []

    def unpack() -> None:
        if packed:
            some, lengths = unpack_counts(packed)
            numbers.append(some)
            sizes.append(lengths)
            packed.clear()

    for _, counts in pieces:
        if isinstance(counts, bytes):
            packed.append(counts)
        else:
            unpack()
            numbers.append(np.asarray(counts, np.int64))
            sizes.append(np.asarray([len(counts)], np.int64))
    unpack()
    owners = np.fromiter((owner for owner, _ in pieces), np.int64, len(pieces))
    return np.concatenate(numbers), np.concatenate(sizes), owners


def _areas_of_several(
    polygons: list[list[list[float]]], filled: list[dict[str, Any]]
) -> dict[int, int]:
    """Areas of the objects of several polygons, which may overlap."""
    areas: dict[int, int] = {}
    first = 0
    for index, parts in enumerate(polygons):
        if len(parts) > 1:
            areas[index] = int(coco.area(coco.merge(filled[first : first + len(parts)])))
        first += len(parts)
    return areas


def _to_runs(
    numbers: Int64[np.ndarray, " c"],
    sizes: Int64[np.ndarray, " s"],
    owners: Int64[np.ndarray, " s"],
    hw: tuple[int, int],
    known_areas: dict[int, int],
    places: Sequence[str],
) -> Runs:
    """The inner runs of alternating counts; each piece must fill the image."""
    total = np.cumsum(numbers)
    piece_ends = np.cumsum(sizes)
    area = hw[0] * hw[1]
    filling = np.diff(total[piece_ends - 1], prepend=0) if len(sizes) else sizes
    piece = np.repeat(np.arange(len(sizes)), sizes)
    wrong = filling != area
    wrong[piece[numbers < 0]] = True
    if wrong.any():
        raise _wrong_counts(hw, places[int(owners[np.argmax(wrong)])])
    inner = np.flatnonzero(places_within(sizes) % 2 == 1)
    starts = total[inner - 1] - piece[inner] * area
    lengths = numbers[inner]
    owner = owners[piece[inner]]
    areas = np.bincount(owner, weights=lengths, minlength=len(places)).astype(np.int64)
    for index, known in known_areas.items():
        areas[index] = known
    return Runs(starts, lengths, owner, areas)


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
