"""Label maps as COCO run-length encodings, and back.

The format is COCO's compressed RLE: columns from left to right, each from top to bottom, as
lengths of alternating runs outside and inside the mask, packed into ASCII by pycocotools
(https://github.com/cocodataset/cocoapi, common/maskApi.c).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, TypedDict

import numpy as np
from jaxtyping import Int64
from pycocotools import mask as coco

from delineate.errors import MaskError
from delineate.types import LabelMap

PACKED_COUNTS = re.compile(r"(?:[P-o]{0,6}[0-O])+")
"""What maskApi.c writes: numbers of one to seven characters, the last of which has no bit 5."""


class Rle(TypedDict):
    """COCO's compressed RLE; ``size`` is [height, width] in pixels."""

    size: list[int]
    counts: str


# ``class`` is a keyword, so the functional form.
Region = TypedDict(
    "Region",
    {
        "class_id": int,
        "class": str,
        "area_px": int,
        "bbox": list[int],  # [left, top, width, height] in pixels, as COCO has it
        "segmentation": Rle,
    },
)


def encode_rle(labels: LabelMap, class_id: int) -> Rle:
    """The pixels of one class.

    Args:
        labels: (H, W) class ids.
        class_id: the class; one that is absent gives an empty mask.
    """
    return _as_rle(coco.encode(np.asfortranarray(labels == class_id)))


def label_map_to_coco(
    labels: LabelMap, classes: Sequence[str], *, skip_background: bool = False
) -> list[Region]:
    """Every class that is present, as one region each, by ascending id.

    The label map is read once, whatever the number of classes: the runs of all classes together
    are the runs of the map. (24 classes at 4096 x 4096: 0.2 s, against 3.7 s for one mask each.)

    Args:
        labels: (H, W) class ids below ``len(classes)``.
        classes: names by id.
        skip_background: leave class 0 out.

    Raises:
        MaskError: an id has no name.
    """
    height, width = labels.shape
    regions: list[Region] = []
    for class_id, starts, lengths in _runs_by_class(labels):
        if class_id >= len(classes):
            raise MaskError(
                f"holds class id {class_id}, and there are names for 0 to {len(classes) - 1}",
                where="label map",
                mend=f"Name at least {class_id + 1} classes, or map the id to one of them.",
            )
        if skip_background and class_id == 0:
            continue
        rle = _pack(starts, lengths, height, width)
        regions.append(
            {
                "class_id": class_id,
                "class": classes[class_id],
                "area_px": int(lengths.sum()),
                "bbox": _bounding_box(starts, lengths, height),
                "segmentation": rle,
            }
        )
    return regions


def rle_to_labels(regions: Sequence[Region], hw: tuple[int, int], *, fill: int = 0) -> LabelMap:
    """The label map that :func:`label_map_to_coco` was given.

    Runs are laid end to end and written once; pycocotools takes a full mask for each class
    (24 classes at 4096 x 4096: 10 s) and leaves pixels unset where the counts end early.

    Args:
        regions: of one image; only ``class_id`` and ``segmentation`` are read.
        hw: height and width of the image in pixels.
        fill: the class of pixels in no region.

    Returns:
        (H, W), uint8 if all ids are below 256, else uint16.

    Raises:
        MaskError: a region is of another size, is damaged, or overlaps another.
    """
    height, width = hw
    largest = max([fill, *(region["class_id"] for region in regions)])
    starts, lengths = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for index, region in enumerate(regions):
        where = f"region {index} (class_id {region['class_id']})"
        counts = _unpack(region["segmentation"], hw, where)
        bounds = np.cumsum(counts)
        starts.append(bounds[0 : len(counts) - 1 : 2])
        lengths.append(counts[1::2])
    ids = np.repeat([-1, *(region["class_id"] for region in regions)], [len(s) for s in starts])
    start, length = np.concatenate(starts), np.concatenate(lengths)
    order = np.argsort(start, kind="stable")
    start, length, ids = start[order], length[order], ids[order]
    gaps = np.diff(start + length, prepend=0) - length  # what lies before each run
    if np.any(gaps < 0):
        clash = int(np.argmax(gaps < 0))
        column, row = divmod(int(start[clash]), height)
        raise MaskError(
            f"class_id {ids[clash]} overlaps another region at row {row}, column {column}",
            where="regions",
            mend="A label map holds one class for each pixel: give each pixel to one region.",
        )
    values = np.full(2 * len(ids) + 1, fill, np.uint8 if largest < 256 else np.uint16)
    values[1::2] = ids
    pieces = np.empty(2 * len(ids) + 1, np.int64)
    pieces[0:-1:2], pieces[1::2] = gaps, length
    pieces[-1] = height * width - pieces[:-1].sum()
    return np.ascontiguousarray(np.repeat(values, pieces).reshape(width, height).T)


def _runs_by_class(
    labels: LabelMap,
) -> Iterator[tuple[int, Int64[np.ndarray, " r"], Int64[np.ndarray, " r"]]]:
    """(class id, first pixel of each run, length of each run), pixels counted down the columns."""
    pixels = np.ascontiguousarray(labels.T).reshape(-1)
    if pixels.size == 0:
        return
    changes = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    starts = np.concatenate([np.zeros(1, np.int64), changes])
    lengths = np.diff(starts, append=pixels.size)
    ids = pixels[starts]
    order = np.argsort(ids, kind="stable")
    present, first = np.unique(ids[order], return_index=True)
    for class_id, runs in zip(present, np.split(order, first[1:]), strict=True):
        yield int(class_id), starts[runs], lengths[runs]


def _pack(
    starts: Int64[np.ndarray, " r"], lengths: Int64[np.ndarray, " r"], height: int, width: int
) -> Rle:
    ends = starts + lengths
    counts = np.empty(2 * len(starts), np.uint32)
    counts[0] = starts[0]
    counts[2::2] = starts[1:] - ends[:-1]
    counts[1::2] = lengths
    rest = height * width - int(ends[-1])
    listed = [*counts.tolist(), rest] if rest else counts.tolist()
    return _as_rle(coco.frPyObjects({"size": [height, width], "counts": listed}, height, width))


def _as_rle(packed: dict[str, Any]) -> Rle:
    return {"size": [int(side) for side in packed["size"]], "counts": packed["counts"].decode()}


def _bounding_box(
    starts: Int64[np.ndarray, " r"], lengths: Int64[np.ndarray, " r"], height: int
) -> list[int]:
    last = starts + lengths - 1
    left, right = int(starts[0] // height), int(last[-1] // height)
    # A run that goes on into the next column touches the top and the bottom.
    if np.any(starts // height != last // height):
        top, bottom = 0, height - 1
    else:
        top, bottom = int((starts % height).min()), int((last % height).max())
    return [left, top, right - left + 1, bottom - top + 1]


def _unpack(rle: Rle, hw: tuple[int, int], where: str) -> Int64[np.ndarray, " c"]:
    """Lengths of alternating runs outside and inside; they are checked to fill the image."""
    size, text = tuple(rle["size"]), rle["counts"]
    if size != hw:
        raise MaskError(
            f"has size {list(size)} (height, width), and the image {list(hw)}",
            where=where,
            mend="Take the RLE and the size from the same image.",
        )
    counts = None
    if isinstance(text, str) and PACKED_COUNTS.fullmatch(text):
        counts, _ = unpack_counts([text.encode()])
    if counts is None or np.any(counts < 0) or counts.sum() != hw[0] * hw[1]:
        raise MaskError(
            f"holds counts that are no compressed RLE of {hw[0]} x {hw[1]} px",
            where=where,
            mend="Encode the mask with pycocotools.mask.encode.",
        )
    return counts


def unpack_counts(
    texts: Sequence[bytes],
) -> tuple[Int64[np.ndarray, " c"], Int64[np.ndarray, " t"]]:
    """The numbers in packed counts: of all texts one after the other, and how many each has.

    rleFrString of maskApi.c: five bits a character, the lowest first; bit 5 says that more follow,
    bit 4 of the last is the sign; from the fourth number of a text on they are differences to the
    last but one. Whether the characters are of the alphabet is not checked.
    """
    digits = np.frombuffer(b"".join(texts), np.uint8).astype(np.int64) - ord("0")
    last = np.flatnonzero(digits & 0x20 == 0)
    first = np.concatenate([np.zeros(1, np.int64), last[:-1] + 1])
    width = last - first + 1
    shift = 5 * (np.arange(len(digits)) - np.repeat(first, width))
    numbers = np.add.reduceat((digits & 0x1F) << shift, first)
    numbers -= np.where(digits[last] & 0x10, np.int64(1) << (5 * width), 0)
    ends = np.searchsorted(last, np.cumsum([len(text) for text in texts]))
    sizes = np.diff(ends, prepend=0)
    place = places_within(sizes)
    for chosen, members in (
        (place % 2 == 1, sizes // 2),
        ((place % 2 == 0) & (place > 0), (sizes - 1) // 2),
    ):
        total = np.cumsum(numbers[chosen])
        before = np.concatenate([np.zeros(1, np.int64), total])[np.cumsum(members) - members]
        numbers[chosen] = total - np.repeat(before, members)
    return numbers, sizes


def places_within(sizes: Int64[np.ndarray, " t"]) -> Int64[np.ndarray, " c"]:
    """0, 1, 2, ... again for each group of so many."""
    firsts = np.cumsum(sizes) - sizes
    places: Int64[np.ndarray, " c"] = np.arange(int(sizes.sum())) - np.repeat(firsts, sizes)
    return places
