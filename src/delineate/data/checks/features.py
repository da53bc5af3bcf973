"""Image -> the few numbers that are kept of it: hashes, a thumbnail, how bright and how grey."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float32, Shaped, UInt8

from delineate.types import Image

THUMBNAIL_PX = 32
Thumbnail = UInt8[np.ndarray, "32 32"]

_SAMPLES_PX = 128  # statistics are taken on about this many rows and columns


@dataclass(frozen=True)
class ImageFeatures:
    """About 1.3 KB for an image of any size.

    Attributes:
        digest: BLAKE2b of the decoded pixels, their shape and type.
        channels: of the image.
        dtype: of its pixels.
        phash: 64 bits; see :func:`perceptual_hash`.
        thumbnail: (32, 32) uint8, grey, stretched from its darkest to its brightest.
        constant: all pixels are the same.
        mean: of the grey values, 0 to 1 of what the type holds (float32: raw).
        std: of the grey values, likewise.
        at_floor: share of the pixels at the lowest value of the type in all channels.
        at_ceiling: share at the highest.
        grey: all channels are the same, or there is only one.
    """

    digest: bytes
    channels: int
    dtype: str
    phash: int
    thumbnail: Thumbnail
    constant: bool
    mean: float
    std: float
    at_floor: float
    at_ceiling: float
    grey: bool


def image_features(image: Image) -> ImageFeatures:
    """The features of an image (H, W, C); statistics come from an even grid of its pixels."""
    digest = hashlib.blake2b(image.data, digest_size=16)
    digest.update(repr((image.shape, image.dtype.str)).encode())
    grid = tuple(slice(None, None, max(1, side // _SAMPLES_PX)) for side in image.shape[:2])
    sampled = image[grid]
    planes = [np.ascontiguousarray(sampled[:, :, c]) for c in range(image.shape[2])]
    low, high = _range(image.dtype)
    # float32 has no ends: there is no telling that it is saturated
    bounded = image.dtype != np.float32
    light = _grey(sampled.astype(np.float32)) / np.float32(high - low)
    thumbnail = _thumbnail(image)
    return ImageFeatures(
        digest=digest.digest(),
        channels=image.shape[2],
        dtype=str(image.dtype),
        phash=perceptual_hash(thumbnail),
        thumbnail=thumbnail,
        constant=bool(sampled.min() == sampled.max()) and bool(image.min() == image.max()),
        mean=float(light.mean()),
        std=float(light.std()),
        at_floor=_share_at(planes, low) if bounded else 0.0,
        at_ceiling=_share_at(planes, high) if bounded else 0.0,
        grey=all(np.array_equal(plane, planes[0]) for plane in planes[1:]),
    )


def perceptual_hash(thumbnail: Thumbnail) -> int:
    """64 bits that stay nearly the same when an image is resized or encoded again.

    They are the signs of the lowest 8 x 8 coefficients of the discrete cosine transform of the
    thumbnail (Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions, 2010,
    with zero for the median). With signs, mirroring the image inverts the bits of odd
    frequencies and turning it transposes them, so that :func:`turned` needs no image. Bit
    ``8 * row + column`` is the coefficient; that of the mean is 0.
    """
    low = cv2.dct(thumbnail.astype(np.float32))[:8, :8]
    bits = low.reshape(-1) > 0
    bits[0] = False
    return int.from_bytes(np.packbits(bits, bitorder="little").tobytes(), "little")


def turned(phash: int) -> tuple[int, ...]:
    """The hashes of an image after the 8 turns and mirrorings, the image as it is first."""
    flips = (0, _ODD_COLUMNS, _ODD_ROWS, _ODD_COLUMNS ^ _ODD_ROWS)
    transposed = sum((phash >> (8 * r + c) & 1) << (8 * c + r) for r in range(8) for c in range(8))
    return tuple(value ^ flip for value in (phash, transposed) for flip in flips)


def turn(thumbnail: Thumbnail, index: int) -> Thumbnail:
    """The thumbnail after the turn that entry ``index`` of :func:`turned` stands for."""
    start = thumbnail.T if index >= 4 else thumbnail
    columns, rows = bool(index & 1), bool(index & 2)
    return start[:: -1 if rows else 1, :: -1 if columns else 1]


_ODD_COLUMNS = sum(1 << (8 * r + c) for r in range(8) for c in range(1, 8, 2))
_ODD_ROWS = sum(1 << (8 * r + c) for r in range(1, 8, 2) for c in range(8))


def _range(dtype: np.dtype) -> tuple[float, float]:
    return (0.0, 1.0) if dtype == np.float32 else (0.0, float(np.iinfo(dtype).max))


def _share_at(planes: list[Shaped[np.ndarray, "rows columns"]], value: float) -> float:
    # plane by plane: NumPy reduces over a short last axis slowly
    there = planes[0] == value
    for plane in planes[1:]:
        there &= plane == value
    return float(there.mean())


def _grey(pixels: Float32[np.ndarray, "rows columns c"]) -> Float32[np.ndarray, "rows columns"]:
    if pixels.shape[2] == 3:
        return cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    grey: Float32[np.ndarray, "rows columns"] = pixels.mean(axis=2)
    return grey


def _thumbnail(image: Image) -> Thumbnail:
    # OpenCV resizes four channels at most; the first three tell pictures apart
    size = (THUMBNAIL_PX, THUMBNAIL_PX)
    small = cv2.resize(image[:, :, :3], size, interpolation=cv2.INTER_AREA)
    grey = _grey(small.reshape(*size, -1).astype(np.float32))
    low, high = float(grey.min()), float(grey.max())
    stretched = (grey - low) * (255.0 / (high - low) if high > low else 0.0)
    return np.rint(stretched).astype(np.uint8)
