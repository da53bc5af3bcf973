"""Pictures for people: any image as 8-bit RGB, labels drawn over it, errors marked."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TypeAlias

import cv2
import numpy as np
from jaxtyping import Bool, Shaped, UInt, UInt8

from delineate.data.palette import Colour
from delineate.errors import MaskError, SettingsError
from delineate.types import Image

Rgb: TypeAlias = UInt8[np.ndarray, "h w 3"]
# Labels whose size is compared with the image's here, so that the message is ours
_Labels: TypeAlias = UInt[np.ndarray, "_ _"]

# What viewers of rasters use by default (QGIS: cumulative count cut, 2 to 98 %).
_STRETCH_PERCENTILES = (2.0, 98.0)
# Percentiles of a sample of this many pixels are as good as those of all.
_STRETCH_SAMPLE_PX = 1 << 18

# Colours of error maps: red and blue are told apart with any kind of colour vision.
WRONG: Colour = (215, 25, 60)
MISSED: Colour = WRONG
FALSE_ALARM: Colour = (0, 120, 230)


def displayable(image: Image) -> Rgb:
    """``image`` as 8-bit RGB.

    The first three channels are shown, or the first one in grey where there are fewer than
    three. uint8 is shown as it is; other types are stretched, each channel between its 2nd and
    98th percentile, because their range says little about what they hold. Not-a-number and
    infinite pixels are black.

    Args:
        image: (H, W, C), any number of channels from 1, uint8, uint16 or float32.

    Returns:
        (H, W, 3) uint8.
    """
    shown = image[..., :3] if image.shape[2] >= 3 else image[..., :1]
    if shown.dtype != np.uint8:
        shown = np.stack([_stretch(shown[..., c]) for c in range(shown.shape[2])], axis=-1)
    if shown.shape[2] == 1:
        shown = np.repeat(shown, 3, axis=2)
    return np.ascontiguousarray(shown, np.uint8)


def _stretch(channel: Shaped[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w"]:
    step = max(1, int(np.sqrt(channel.size / _STRETCH_SAMPLE_PX)))
    sample = channel[::step, ::step]
    sample = sample[np.isfinite(sample)]
    if sample.size == 0:
        return np.zeros(channel.shape, np.uint8)
    low, high = np.percentile(sample, _STRETCH_PERCENTILES).astype(np.float32)
    if high <= low:  # a nearly constant channel: use all it has
        low, high = np.float32(sample.min()), np.float32(sample.max())
    span = np.maximum(high - low, np.finfo(np.float32).tiny)
    with np.errstate(invalid="ignore", over="ignore"):
        scaled = (channel.astype(np.float32) - low) / span
    scaled[~np.isfinite(scaled)] = 0.0
    stretched: np.ndarray = np.rint(np.clip(scaled, 0.0, 1.0) * 255).astype(np.uint8)
    return stretched


def overlay(
    image: Image,
    labels: _Labels,
    colours: Sequence[Colour],
    alpha: float = 0.5,
    untinted: Collection[int] = (),
) -> Rgb:
    """Class colours blended over ``image``, each class outlined by a line one pixel wide.

    Ids beyond ``colours`` (an ignore index of 255) and those in ``untinted`` (a background)
    show the image as it is.

    Args:
        image: (H, W, C), as :func:`displayable` takes it.
        labels: (H, W) class ids.
        colours: (red, green, blue) of each class by id, each 0 to 255.
        alpha: weight of the class colour, 0 to 1. Borders have the full colour.
        untinted: class ids that get no colour.

    Returns:
        (H, W, 3) uint8.

    Raises:
        MaskError: ``labels`` and ``image`` differ in size.
        SettingsError: ``alpha`` is not between 0 and 1.
    """
    _check_size(image, labels)
    if not 0.0 <= alpha <= 1.0:
        raise SettingsError(f"alpha is {alpha}", mend="It must be between 0 and 1.")
    rgb = displayable(image)
    clear = len(colours)  # one more entry: everything that gets no colour
    palette = np.array([*colours, (0, 0, 0)], np.uint8)
    ids = np.minimum(labels, np.array(clear, labels.dtype)) if _reaches(labels, clear) else labels
    if untinted:
        kind = ids.dtype if _reaches(ids, clear) else np.dtype(np.uint16)
        ids = np.where(np.isin(ids, list(untinted)), np.array(clear, kind), ids)
    tint = _look_up(palette, ids)
    out = cv2.addWeighted(rgb, 1.0 - alpha, tint, alpha, 0.0)
    # OpenCV's masked copy takes a tenth of the time of NumPy's boolean indexing.
    cv2.copyTo(tint, borders(ids).view(np.uint8), out)
    cv2.copyTo(rgb, (ids == clear).view(np.uint8), out)
    return out


def _look_up(palette: UInt8[np.ndarray, "k 3"], ids: _Labels) -> Rgb:
    """(H, W, 3) uint8, the colour of each id."""
    if ids.dtype != np.uint8:
        wide: np.ndarray = np.take(palette, ids, axis=0)
        return wide
    table = np.zeros((256, 1, 3), np.uint8)
    table[: len(palette), 0] = palette[:256]
    colours: np.ndarray = cv2.LUT(cv2.merge([ids, ids, ids]), table)
    return colours


def _reaches(labels: _Labels, clear: int) -> bool:
    """Whether an id of ``clear`` or more fits the type at all; then it may be there."""
    return clear <= np.iinfo(labels.dtype).max


def borders(labels: _Labels) -> Bool[np.ndarray, "_ _"]:
    """(H, W) bool: pixels with another id above, below, left or right of them.

    Both sides of a border belong to it, so that an object is outlined all around whatever lies
    beside it.
    """
    line = np.zeros(labels.shape, bool)
    across = labels[:, :-1] != labels[:, 1:]
    line[:, :-1] |= across
    line[:, 1:] |= across
    down = labels[:-1] != labels[1:]
    line[:-1] |= down
    line[1:] |= down
    return line


def error_map(
    image: Image,
    truth: _Labels,
    labels: _Labels,
    ignore_index: int | None = None,
    n_classes: int | None = None,
) -> Rgb:
    """A pale grey ``image`` with the wrongly predicted pixels in full colour.

    With ``n_classes`` of 2, class 1 being the object: missed pixels are :data:`MISSED`, falsely
    claimed ones :data:`FALSE_ALARM`. Otherwise every wrong pixel is :data:`WRONG`. Ignored
    pixels are dark grey.

    Returns:
        (H, W, 3) uint8.

    Raises:
        MaskError: ``truth`` or ``labels`` differs from ``image`` in size.
    """
    _check_size(image, truth)
    _check_size(image, labels)
    grey = cv2.cvtColor(displayable(image), cv2.COLOR_RGB2GRAY)
    pale = 128 + grey // 2
    out = np.repeat(pale[..., None], 3, axis=2)
    wrong = truth != labels
    if n_classes == 2:
        out[wrong & (labels == 0)] = MISSED
        out[wrong & (labels != 0)] = FALSE_ALARM
    else:
        out[wrong] = WRONG
    if ignore_index is not None:
        ignored = truth == ignore_index
        out[ignored] = (grey[ignored] // 4 + 40)[:, None]
    return out


def thumbnail(rgb: Rgb, side_px: int) -> UInt8[np.ndarray, "_ _ 3"]:
    """``rgb`` made smaller by averaging, so that its longer side is at most ``side_px``."""
    small: np.ndarray = cv2.resize(rgb, _fit(rgb.shape, side_px), interpolation=cv2.INTER_AREA)
    return small


def thumbnail_labels(labels: _Labels, side_px: int) -> _Labels:
    """Class ids at the size of :func:`thumbnail`: ids are picked, never mixed."""
    width, height = _fit(labels.shape, side_px)
    # Centres of the thumbnail's pixels: OpenCV's nearest neighbour takes their corners, which
    # shifts the labels against the averaged image.
    rows = ((np.arange(height) + 0.5) * labels.shape[0] / height).astype(np.intp)
    columns = ((np.arange(width) + 0.5) * labels.shape[1] / width).astype(np.intp)
    return np.ascontiguousarray(labels[rows][:, columns])


def _fit(shape: tuple[int, ...], side_px: int) -> tuple[int, int]:
    """(width, height) that fits ``side_px``; never larger than ``shape``, never 0."""
    height, width = shape[:2]
    scale = min(1.0, side_px / max(height, width))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _check_size(image: Image, labels: _Labels) -> None:
    if image.shape[:2] != labels.shape:
        raise MaskError(
            f"the labels have {labels.shape[1]} x {labels.shape[0]} pixels (width x height) and "
            f"the image {image.shape[1]} x {image.shape[0]}",
            mend="Both must have the same size.",
        )
