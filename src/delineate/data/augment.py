"""The same random change for an image and its mask, and different light for the image.

All randomness comes from the generator that is passed in, so that a sample depends on nothing
but its seed. Zoom, crop, flips, rotation and elastic are one warp of the crop alone, never of
the whole image.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeAlias, TypedDict, runtime_checkable

import cv2
import numpy as np
from jaxtyping import Float32, Float64, Shaped, UInt

from delineate.config import AugmentationSettings
from delineate.data.elastic import smooth_field, spline_basis
from delineate.data.label_ids import unknown_ids
from delineate.data.light import as_dtype, recolour, value_range
from delineate.errors import MaskError, SettingsError
from delineate.types import Image, LabelMap

_MOST_CHANNELS = 4  # of OpenCV's warps; further channels go in groups
Crop: TypeAlias = Shaped[np.ndarray, "side side c"]
CropMask: TypeAlias = UInt[np.ndarray, "side side"]
# Of a size that need not be the image's: checked where it comes in
AnyMask: TypeAlias = UInt[np.ndarray, "mask_h mask_w"]
_WARP_MARGIN_PX = 2  # neighbours that bilinear sampling reads, and rounding


class Augmented(TypedDict):
    """What an augmentation returns; image and mask have the same height and width."""

    image: Image
    mask: LabelMap


@runtime_checkable
class SampleAugmentation(Protocol):
    """What training calls for every sample."""

    def __call__(self, *, image: Image, mask: LabelMap, rng: np.random.Generator) -> Augmented: ...


class Augmentation:
    """A random square crop of ``crop_px``, changed as the settings say.

    - The zoom is drawn evenly on a logarithmic scale from the settings' range, less the part of
      it in which the crop would be larger than the image. An image smaller than the crop is
      never made smaller: it is padded.
    - Where the warp reaches outside the image, the image is reflected and the mask holds
      ``ignore_index``, or is reflected too where there is none.
    - Shares of range (brightness, noise) are of 255 for ``uint8``, and otherwise of the distance
      between the 1st and the 99th percentile of the crop: sensors rarely fill 16 bits.
    - Hue turns only 3-channel ``uint8`` images, and only if ``colour`` says that these are RGB.

    Args:
        settings: ranges and probabilities.
        crop_px: side of the crop, pixels.
        ignore_index: id of pixels that count nowhere, or None.
        colour: whether three channels are red, green and blue.
    """

    def __init__(
        self,
        settings: AugmentationSettings,
        crop_px: int,
        ignore_index: int | None,
        colour: bool = True,
    ) -> None:
        self._settings = settings
        self._crop_px = crop_px
        self._ignore_index = ignore_index
        self._colour = colour
        self._basis = spline_basis(crop_px, settings.elastic_spacing_px)

    def __call__(self, *, image: Image, mask: AnyMask, rng: np.random.Generator) -> Augmented:
        """A crop of both.

        Args:
            image: (H, W, C), uint8, uint16 or float32; 1 to 16 channels.
            mask: (H, W) class ids, uint8 or uint16.
            rng: the only source of randomness.

        Returns:
            new arrays (crop_px, crop_px, C) and (crop_px, crop_px) of the same dtypes; the mask
            is uint16 where its dtype cannot hold ``ignore_index``.

        Raises:
            MaskError: the mask is not of the image's size.
        """
        if image.shape[:2] != mask.shape:
            raise MaskError(
                f"the mask is {mask.shape[1]} x {mask.shape[0]} px where its image is "
                f"{image.shape[1]} x {image.shape[0]} px"
            )
        if self._ignore_index is not None and self._ignore_index > np.iinfo(mask.dtype).max:
            mask = mask.astype(np.uint16)
        crop, crop_mask = self._move(image, mask, rng)
        return {"image": self._relight(crop, rng), "mask": crop_mask}

    def _move(
        self, image: Image, mask: LabelMap, rng: np.random.Generator
    ) -> tuple[Crop, CropMask]:
        settings, side = self._settings, self._crop_px
        height, width = mask.shape
        zoom = _draw_zoom(rng, settings.scale, side / min(height, width))
        left, top = (_draw_offset(rng, size - side / zoom, zoom) for size in (width, height))
        flip_x = rng.random() < settings.horizontal_flip
        flip_y = rng.random() < settings.vertical_flip
        angle = 0.0
        if rng.random() < settings.rotation:
            angle = rng.uniform(-settings.rotation_degrees, settings.rotation_degrees)
        elastic = rng.random() < settings.elastic and settings.elastic_displacement_px > 0

        inside = 0 <= left <= width - side and 0 <= top <= height - side
        if zoom == 1.0 and angle == 0.0 and not elastic and inside:
            window = np.s_[int(top) : int(top) + side, int(left) : int(left) + side]
            step = np.s_[:: -1 if flip_y else 1, :: -1 if flip_x else 1]
            return image[window][step].copy(), mask[window][step].copy()

        centre = (left + side / zoom / 2 - 0.5, top + side / zoom / 2 - 0.5)
        matrix = _source_of_pixel(side, zoom, angle, (flip_x, flip_y), centre)
        control = None
        if elastic:
            points = self._basis.shape[1]
            shift = rng.uniform(-1, 1, (2, points, points)) * settings.elastic_displacement_px
            # The shift is in pixels of the crop: the affine map takes it to the source
            control = np.einsum("ij,jyx->iyx", matrix[:, :2], shift).astype(np.float32)
        return self._warp(image, mask, matrix, control)

    def _warp(
        self,
        image: Image,
        mask: LabelMap,
        matrix: Float64[np.ndarray, "2 3"],
        control: Float32[np.ndarray, "2 p p"] | None,
    ) -> tuple[Crop, CropMask]:
        side = self._crop_px
        reach = np.zeros(2) if control is None else np.abs(control).max(axis=(1, 2))
        edge = side - 1.0
        corners = matrix @ np.array([[0, edge, 0, edge], [0, 0, edge, edge], [1, 1, 1, 1]])
        low, high = corners.min(axis=1) - reach, corners.max(axis=1) + reach
        x0, x1 = _span(low[0], high[0], mask.shape[1])
        y0, y1 = _span(low[1], high[1], mask.shape[0])
        # Only this part is read, so that coordinates stay below the 32767 of OpenCV's warps
        image, mask = image[y0:y1, x0:x1], mask[y0:y1, x0:x1]
        matrix = matrix - np.array([[0, 0, x0], [0, 0, y0]])
        warp = _affine(matrix, side) if control is None else _elastic(matrix, self._basis, control)
        border, fill = cv2.BORDER_REFLECT_101, 0
        moved = _in_groups(image, lambda part: warp(part, cv2.INTER_LINEAR, border, fill))
        if self._ignore_index is not None:
            border, fill = cv2.BORDER_CONSTANT, self._ignore_index
        return moved, warp(mask, cv2.INTER_NEAREST, border, fill)

    def _relight(self, image: Crop, rng: np.random.Generator) -> Crop:
        settings = self._settings
        if rng.random() < settings.colour:
            shift = rng.uniform(-settings.brightness, settings.brightness)
            factor = 1 + rng.uniform(-settings.contrast, settings.contrast)
            turn = rng.uniform(-settings.hue, settings.hue)
            rgb = self._colour and image.dtype == np.uint8 and image.shape[2] == 3
            image = recolour(image, shift, factor, turn if rgb else 0.0)
        if rng.random() < settings.blur:
            # Under a fifth of a pixel the kernel is a single weight
            sigma = max(rng.uniform(0, settings.blur_sigma_px), 0.2)
            image = _in_groups(image, lambda part: cv2.GaussianBlur(part, (0, 0), sigma))
        if rng.random() < settings.noise:
            sigma = rng.uniform(0, settings.noise_sigma) * value_range(image)
            if sigma > 0:
                noise = rng.standard_normal(image.shape, np.float32)
                image = as_dtype(image + noise * np.float32(sigma), image.dtype)
        return image


def _draw_zoom(rng: np.random.Generator, scale: tuple[float, float], fitting: float) -> float:
    """A zoom from the range, of which the part below ``fitting`` (at most 1) is left out."""
    low = max(min(scale), min(fitting, 1.0))
    high = max(max(scale), low)
    share = rng.random()
    return low if low == high else math.exp(math.log(low) + share * math.log(high / low))


def _draw_offset(rng: np.random.Generator, room_px: float, zoom: float) -> float:
    """Where the crop begins; on a whole pixel where nothing is zoomed, so that pixels survive."""
    share = rng.random()
    whole = zoom == 1.0
    room = room_px + 1 if whole else room_px
    offset = share * room if room_px > 0 else room_px / 2
    return float(math.floor(offset)) if whole else offset


def _source_of_pixel(
    side: int, zoom: float, angle: float, flips: tuple[bool, bool], centre: tuple[float, float]
) -> Float64[np.ndarray, "2 3"]:
    """The matrix that takes a pixel (x, y, 1) of the crop to its place in the source.

    Args:
        side: of the crop, pixels.
        zoom: crop pixels for one source pixel.
        angle: degrees.
        flips: horizontal, vertical.
        centre: of the crop, in source pixels, whose centres are whole numbers.
    """
    cos, sin = math.cos(math.radians(angle)) / zoom, math.sin(math.radians(angle)) / zoom
    flip = np.diag([-1.0 if flips[0] else 1.0, -1.0 if flips[1] else 1.0])
    linear = np.array([[cos, -sin], [sin, cos]]) @ flip
    middle = np.full(2, (side - 1) / 2)
    return np.column_stack([linear, np.array(centre) - linear @ middle])


def _span(low: float, high: float, size: int) -> tuple[int, int]:
    """First and end of what is read along an axis of ``size`` pixels, reflections included."""
    first, end = math.floor(low) - _WARP_MARGIN_PX, math.ceil(high) + _WARP_MARGIN_PX + 1
    before, after = max(0, -first), max(0, end - size)
    first = min(first, size - 1 - after)
    end = max(end, before + 1)
    return max(0, min(first, size - 1)), min(size, max(end, 1))


_Warp = Callable[[Any, int, int, int], Any]  # array, interpolation, border, fill


def _affine(matrix: Float64[np.ndarray, "2 3"], side: int) -> _Warp:
    def warp(array: Any, interpolation: int, border: int, fill: int) -> Any:
        flags = interpolation | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(
            array, matrix, (side, side), flags=flags, borderMode=border, borderValue=fill
        )

    return warp


def _elastic(
    matrix: Float64[np.ndarray, "2 3"],
    basis: Float32[np.ndarray, "s p"],
    control: Float32[np.ndarray, "2 p p"],
) -> _Warp:
    line = np.arange(len(basis))
    map_x, map_y = (
        smooth_field(basis, points)
        + (row[0] * line + row[2]).astype(np.float32)
        + (row[1] * line).astype(np.float32)[:, None]
        for row, points in zip(matrix, control, strict=True)
    )

    def warp(array: Any, interpolation: int, border: int, fill: int) -> Any:
        return cv2.remap(array, map_x, map_y, interpolation, borderMode=border, borderValue=fill)

    return warp


def _in_groups(
    image: Image, change: Callable[[Any], Any]
) -> Shaped[np.ndarray, "changed_h changed_w c"]:
    """``change`` applied to at most four channels at once; (H, W, C) again."""
    channels = image.shape[2]
    if channels <= _MOST_CHANNELS:
        changed = change(image)
        single: np.ndarray = changed.reshape(*changed.shape[:2], channels)
        return single  # with the axis that OpenCV drops where it has one channel
    groups = [
        change(np.ascontiguousarray(image[:, :, first : first + _MOST_CHANNELS]))
        for first in range(0, channels, _MOST_CHANNELS)
    ]
    return np.concatenate([g.reshape(*g.shape[:2], -1) for g in groups], axis=2)


def as_augmentation(
    function: Callable[..., Mapping[str, Any]],
    *,
    crop_px: int | None = None,
    classes: int | None = None,
    ignore_index: int | None = None,
) -> SampleAugmentation:
    """A user's callable in place of :class:`Augmentation`; what comes back is checked.

    ``function(image=, mask=)`` returns a mapping with ``image`` and ``mask``, as the transforms
    of Albumentations do. It is given copies, which it may change in place. If it has a parameter
    named ``rng``, it is given the sample's ``numpy.random.Generator``. One that keeps a random
    state of its own works as well, but then a sample no longer depends on seed, epoch and index
    alone, and a resumed training does not repeat what an uninterrupted one would have seen.

    Args:
        function: the callable.
        crop_px: side that the result must have, pixels; None accepts any.
        classes: how many there are; None accepts any id.
        ignore_index: an id that may come back beside those of the classes.

    Raises:
        SettingsError: (when called) the result is no mapping of two arrays, or their sizes,
            channels, dtypes or class ids are wrong.
    """
    try:
        wants_rng = "rng" in inspect.signature(function).parameters
    except (TypeError, ValueError):  # some callables written in C have no signature
        wants_rng = False
    where = f"augmentation {getattr(function, '__name__', type(function).__name__)}"

    def augment(*, image: Image, mask: LabelMap, rng: np.random.Generator) -> Augmented:
        extra = {"rng": rng} if wants_rng else {}
        # copies, because training keeps the originals for the next epoch, locked
        result = function(image=image.copy(), mask=mask.copy(), **extra)
        if not isinstance(result, Mapping) or not {"image", "mask"} <= set(result):
            raise SettingsError(
                f"returned {_outline(result)}",
                where=where,
                mend="Return a mapping with the keys image and mask.",
            )
        changed = _checked_image(result["image"], image, where)
        labels = _checked_mask(result["mask"], changed, mask, where)
        if classes is not None:
            _refuse_ids(labels, classes, ignore_index, where)
        return {"image": changed, "mask": labels}

    def sized(*, image: Image, mask: LabelMap, rng: np.random.Generator) -> Augmented:
        result = augment(image=image, mask=mask, rng=rng)
        if result["mask"].shape != (crop_px, crop_px):
            raise SettingsError(
                f"returned {_size(result['mask'])} px where the crops are {crop_px} x {crop_px} px",
                where=where,
                mend=f"End it with a crop of {crop_px} x {crop_px} px, or change crop_px.",
            )
        return result

    return augment if crop_px is None else sized


def _checked_image(
    image: Any, before: Image, where: str
) -> Shaped[np.ndarray, "changed_h changed_w c"]:
    wanted = f"an array (height, width, {before.shape[2]}) of {before.dtype}"
    if (
        not isinstance(image, np.ndarray)
        or image.ndim != 3
        or image.shape[2] != before.shape[2]
        or image.dtype != before.dtype
    ):
        raise SettingsError(
            f"returned as image {_outline(image)}",
            where=where,
            mend=f"Return {wanted}: normalisation is part of the network.",
        )
    return image


def _checked_mask(mask: Any, image: Image, before: AnyMask, where: str) -> LabelMap:
    if (
        not isinstance(mask, np.ndarray)
        or mask.ndim != 2
        or not np.issubdtype(mask.dtype, np.integer)
    ):
        raise SettingsError(
            f"returned as mask {_outline(mask)}",
            where=where,
            mend="Return an integer array (height, width) of class ids, resampled by the nearest "
            "neighbour.",
        )
    if mask.shape != image.shape[:2]:
        raise SettingsError(
            f"returned a mask of {_size(mask)} px with an image of {_size(image)} px",
            where=where,
            mend="Change the size of both alike.",
        )
    largest = np.iinfo(before.dtype).max
    if mask.dtype != before.dtype and mask.size and (mask.min() < 0 or mask.max() > largest):
        found = int(mask.min() if mask.min() < 0 else mask.max())
        raise SettingsError(
            f"returned the class id {found}",
            where=where,
            mend=f"Return ids from 0 to {largest}, the ignore index for pixels outside the image.",
        )
    return mask.astype(before.dtype, copy=False)


def _refuse_ids(labels: AnyMask, classes: int, ignore_index: int | None, where: str) -> None:
    for found, pixels in unknown_ids(labels, classes, ignore_index).items():
        ignored = "" if ignore_index is None else f" and {ignore_index} is ignored"
        raise SettingsError(
            f"returned id {found} in {pixels} pixels; classes go to {classes - 1}{ignored}",
            where=where,
            mend="Return the ids of the mask it was given, resampled by the nearest neighbour.",
        )


def _size(array: np.ndarray) -> str:
    return f"{array.shape[1]} x {array.shape[0]}"


def _outline(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"an array {value.shape} of {value.dtype}"
    if isinstance(value, Mapping):
        return f"a mapping with the keys {', '.join(sorted(map(str, value))) or 'none'}"
    return f"a {type(value).__name__}"
