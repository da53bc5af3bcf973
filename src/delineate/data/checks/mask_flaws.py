"""Why a mask holds what it should not: interpolated, coloured, scaled, or with a few strays."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

from delineate.data.checks.findings import Finding, below
from delineate.data.dataset import DatasetInfo
from delineate.data.images import read_image
from delineate.data.label_ids import refuse_other_ids, unknown_ids
from delineate.errors import DelineateError, MaskError
from delineate.types import LabelMap
from delineate.words import plural

STRAY_SHARE = 0.001
"""Ids outside the classes are strays up to this share of the pixels."""
STRAY_PIXELS = 4
"""... or up to this many, in small masks."""

FEWEST_STEPS = 3
"""Different values that interpolation leaves; fewer may be a class of thin borders."""

_STEPS_OUTSIDE = 0.8  # of the pixels outside the classes, those that are steps
_STEPS_INSIDE = 0.25  # steps to changes where all ids are classes; CamVid's masks have under 0.05
_FLAT = 0.5  # of the pixels; noise is no interpolation

_EXPORT_AGAIN = "Export the masks again without interpolation (nearest neighbour)"


def steps(labels: LabelMap) -> Bool[np.ndarray, "h w"]:
    """Pixels strictly between their left and right, or their upper and lower neighbours.

    Interpolation puts them between any two classes; drawn masks hardly have any.
    """
    signed = labels.astype(np.int32)
    found = np.zeros(labels.shape, bool)
    across = np.sign(np.diff(signed, axis=1))
    found[:, 1:-1] |= (across[:, 1:] == across[:, :-1]) & (across[:, 1:] != 0)
    down = np.sign(np.diff(signed, axis=0))
    found[1:-1] |= (down[1:] == down[:-1]) & (down[1:] != 0)
    return found


def outside_classes(labels: LabelMap, info: DatasetInfo) -> Bool[np.ndarray, "h w"]:
    """Pixels whose id is neither a class nor the ignore index."""
    outside: Bool[np.ndarray, "h w"] = labels >= len(info.classes)
    if info.ignore_index is not None:
        outside &= labels != info.ignore_index
    return outside


def wrong_ids(root: Path, mask: Path, labels: LabelMap, info: DatasetInfo) -> list[Finding]:
    """What is wrong with the ids of a mask (H, W), as one finding at most."""
    other = unknown_ids(labels, len(info.classes), info.ignore_index)
    values = interpolated_values(labels, info, other)
    if values:
        low, high = int(labels.min()), int(labels.max())
        fix = (
            f"{_EXPORT_AGAIN}; --fix NEW gives these pixels to the class beside them."
            if other
            else f"{_EXPORT_AGAIN}."
        )
        found = (
            f"is anti-aliased: {values} values between {low} and {high} lie in thin bands between "
            "two others"
        )
        return [Finding("anti-aliased mask", below(root, mask), found, fix)]
    if not other:
        return []
    pixels = sum(other.values())
    if pixels <= max(STRAY_PIXELS, STRAY_SHARE * labels.size):
        ids = ", ".join(str(i) for i in list(other)[:8]) + (", ..." if len(other) > 8 else "")
        mend = (
            "Name an ignore_index, or correct these pixels."
            if info.ignore_index is None
            else f"Correct these pixels; --fix NEW makes them {info.ignore_index} (ignored)."
        )
        several = "s" if len(other) > 1 else ""
        found = f"has {plural(pixels, 'pixel')} of the id{several} {ids}, which no class has"
        return [Finding("stray values", below(root, mask), found, mend)]
    try:
        refuse_other_ids(labels, info.classes, info.ignore_index, mask)
    except MaskError as error:
        mend = error.mend
        if is_scaled(set(other), info):
            mend = f"If 255 is {info.classes[1]!r}, write 1 instead; --fix NEW does."
        return [Finding("ids", below(root, mask), error.found, mend)]
    return []


def is_scaled(outside: set[int], info: DatasetInfo) -> bool:
    """Whether 255 is the only id outside two classes, as in masks of black and white."""
    return len(info.classes) == 2 and outside == {255}


def interpolated_values(labels: LabelMap, info: DatasetInfo, other: dict[int, int]) -> int:
    """How many values interpolation left in a mask; 0 when it is not interpolated.

    Args:
        other: pixels of each id outside the classes.
    """
    if 0 < len(other) < FEWEST_STEPS or (not other and len(info.classes) <= FEWEST_STEPS):
        return 0
    changes = int((labels[:, 1:] != labels[:, :-1]).sum() + (labels[1:] != labels[:-1]).sum())
    if not changes:
        return 0
    found = steps(labels)
    if other:
        outside = outside_classes(labels, info)
        thin = outside & ~_inside(labels)
        # a scaled class, such as 255, fills areas of its own
        band = thin & ~np.isin(labels, _solid_values(labels))
        values = len(np.unique(labels[band]))
        enough = bool(band.any()) and float(found[band].mean()) >= _STEPS_OUTSIDE
        return values if enough and values >= FEWEST_STEPS else 0
    if int(found.sum()) < _STEPS_INSIDE * changes or float(_inside(labels).mean()) < _FLAT:
        return 0
    counts = np.bincount(labels[found])
    values = int((counts >= 0.05 * counts.sum()).sum())
    return values if values >= FEWEST_STEPS else 0


def band_pixels(labels: LabelMap, info: DatasetInfo) -> Bool[np.ndarray, "h w"]:
    """Pixels that interpolation made: thin ones outside the classes, and steps beside them."""
    outside = outside_classes(labels, info)
    band: Bool[np.ndarray, "h w"] = outside & ~np.isin(labels, _solid_values(labels))
    beside = cv2.dilate(band.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
    found: Bool[np.ndarray, "h w"] = band | (beside & steps(labels))
    return found


def _inside(labels: LabelMap) -> Bool[np.ndarray, "h w"]:
    """Pixels like all of their 8 neighbours."""
    window = np.ones((3, 3), np.uint8)
    same: Bool[np.ndarray, "h w"] = cv2.dilate(labels, window) == cv2.erode(labels, window)
    return same


def _solid_values(labels: LabelMap) -> list[int]:
    """Ids that fill areas: that many pixels have only themselves around them."""
    counts = np.bincount(labels[_inside(labels)], minlength=1)
    return np.flatnonzero(counts >= max(9, STRAY_SHARE * labels.size)).tolist()


def colour_mask(root: Path, mask: Path, info: DatasetInfo) -> Finding | None:
    """The finding about a mask whose pixels have colours; None when it has none."""
    pixels = read_colours(mask)
    if pixels is None:
        return None
    if (pixels == pixels[:, :, :1]).all():
        return Finding(
            "rgb mask",
            below(root, mask),
            "is grey saved as RGB: all three channels are the same, and a mask has one",
            "Save one channel as a grey PNG; --fix NEW does.",
        )
    colours = np.unique(pixels.reshape(-1, 3), axis=0)
    some = ", ".join(f"{r:02x}{g:02x}{b:02x}" for r, g, b in colours[:8].tolist())
    more = ", ..." if len(colours) > 8 else ""
    fix = "; with the colours of dataset.yaml --fix NEW does it" if info.colours else ""
    return Finding(
        "rgb mask",
        below(root, mask),
        f"is RGB with {len(colours)} colours ({some}{more}), and a mask has one channel of ids",
        "If the colours stand for classes, import the folder with --format rgb --colours and one "
        f"colour for each of the {len(info.classes)} classes, in their order{fix}.",
    )


def read_colours(mask: Path) -> UInt8[np.ndarray, "h w 3"] | None:
    """The pixels of a mask that is an 8-bit colour image without loss; None for anything else."""
    if mask.suffix.lower() in (".jpg", ".jpeg"):
        return None
    try:
        pixels = read_image(mask)
    except DelineateError:
        return None
    return pixels if pixels.dtype == np.uint8 and pixels.shape[2] == 3 else None
