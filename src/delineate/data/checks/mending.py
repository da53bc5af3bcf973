"""A flawed mask -> a sound one, where there is no doubt how."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

from delineate.data.checks.mask_flaws import (
    STRAY_PIXELS,
    STRAY_SHARE,
    band_pixels,
    interpolated_values,
    outside_classes,
    read_colours,
)
from delineate.data.dataset import DatasetInfo
from delineate.data.label_ids import unknown_ids
from delineate.data.masks import read_mask
from delineate.data.palette import Colour
from delineate.errors import MaskError
from delineate.types import LabelMap

Done = tuple[str, str]
"""What was done, and why."""

_ROUNDS = 4  # widths of band, in pixels from either side, that are filled
_ALL_AROUND = np.ones((3, 3), np.float32)


def mend_mask(
    mask: Path, info: DatasetInfo, *, black_and_white: bool
) -> tuple[LabelMap, list[Done]] | None:
    """The mended label map (H, W) of a mask file and what was done; None where it stays flawed.

    Args:
        black_and_white: 255 stands for the second of two classes.
    """
    done: list[Done] = []
    try:
        labels = read_mask(mask)
    except MaskError:
        pixels = read_colours(mask)
        if pixels is None:
            return None
        if (pixels == pixels[:, :, :1]).all():
            labels = np.ascontiguousarray(pixels[:, :, 0])
            done.append(("written with one channel", "it was grey saved as RGB"))
        else:
            found = _ids_of_colours(pixels, info.colours or ())
            if found is None:
                return None
            labels = found
            done.append(("colours replaced by ids", "it was RGB in the colours of dataset.yaml"))
    labels, more = _mend_ids(labels, info, black_and_white=black_and_white)
    if unknown_ids(labels, len(info.classes), info.ignore_index):
        return None
    return labels, done + more


def _mend_ids(
    labels: LabelMap, info: DatasetInfo, *, black_and_white: bool
) -> tuple[LabelMap, list[Done]]:
    done: list[Done] = []
    other = unknown_ids(labels, len(info.classes), info.ignore_index)
    if other and interpolated_values(labels, info, other):
        band = band_pixels(labels, info)
        labels = _filled(labels, band)
        pixels = int(band.sum())
        done.append((f"{pixels} pixels given to the class beside them", "it was anti-aliased"))
    if black_and_white and 255 in np.unique(labels):
        labels = np.where(labels == 255, 1, labels).astype(labels.dtype)
        done.append(("255 replaced by 1", f"255 stands for {info.classes[1]!r}"))
    stray = outside_classes(labels, info)
    pixels = int(stray.sum())
    if info.ignore_index is not None and 0 < pixels <= max(STRAY_PIXELS, STRAY_SHARE * labels.size):
        ignored = np.uint8 if max(info.ignore_index, int(labels[~stray].max())) < 256 else np.uint16
        labels = np.where(stray, info.ignore_index, labels).astype(ignored)
        done.append((f"{pixels} pixels set to {info.ignore_index}", "no class has their ids"))
    return labels, done


def _ids_of_colours(
    pixels: UInt8[np.ndarray, "h w 3"], colours: tuple[Colour, ...]
) -> LabelMap | None:
    """Class ids of pixels that all have one of ``colours``, each of which is there once."""
    if not colours or len(set(colours)) < len(colours):
        return None
    packed = pixels.astype(np.int64) @ np.array([65536, 256, 1])
    known = np.array(colours, np.int64) @ np.array([65536, 256, 1])
    order = np.argsort(known)
    place = np.minimum(np.searchsorted(known[order], packed), len(known) - 1)
    if not (known[order][place] == packed).all():
        return None
    ids: LabelMap = order[place].astype(np.uint8 if len(colours) <= 256 else np.uint16)
    return ids


def _filled(labels: LabelMap, band: Bool[np.ndarray, "h w"]) -> LabelMap:
    """Give pixels of ``band`` to the id that most of their 8 neighbours have, from outside in.

    Where two ids have as many, the nearer value decides: interpolation mixes by distance.
    """
    labels, band = labels.copy(), band.copy()
    for _ in range(_ROUNDS):
        if not band.any():
            break
        window = _window(band)
        votes_best = np.zeros(labels.shape, np.float32)
        away_best = np.full(labels.shape, np.inf, np.float32)
        chosen = labels.copy()
        for value in np.unique(labels[window & ~band]).tolist():
            there = ((labels == value) & ~band).astype(np.float32)
            votes = cv2.filter2D(there, -1, _ALL_AROUND, borderType=cv2.BORDER_CONSTANT)
            away = np.abs(labels.astype(np.float32) - np.float32(value))
            better = (votes > votes_best) | (
                (votes == votes_best) & (votes > 0) & (away < away_best)
            )
            chosen[better], votes_best[better] = value, votes[better]
            away_best[better] = away[better]
        settled = band & (votes_best >= 1)
        labels[settled] = chosen[settled]
        band &= ~settled
    return labels


def _window(band: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    grown: Bool[np.ndarray, "h w"] = (
        cv2.dilate(band.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    )
    return grown
