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
from jaxtyping import Shaped, UInt

from delineate.config import AugmentationSettings
from delineate.data.elastic import control_places, spline_basis
from delineate.data.label_ids import unknown_ids
from delineate.data.light import add_noise, recolour, value_range
from delineate.data.warp import (
    Crop,
    CropMask,
    in_groups,
    source_of_pixel,
    warp_affine,
    warp_elastic,
)
from delineate.errors import MaskError, SettingsError
from delineate.types import Image, LabelMap

# Of a size that need not be the image's: checked where it comes in
AnyMask: TypeAlias = UInt[np.ndarray, "mask_h mask_w"]


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
    - Shares of range (brightness, noise) are of the distance between the 1st and the 99th
      percentile of the crop: sensors rarely fill 16 bits, and a dark image in 8 would be black.
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
        self._places = control_places(self._basis.shape[1], settings.elastic_spacing_px)

    def __call__(
        self,
        *,
        image: Image,
        mask: AnyMask,
        rng: np.random.Generator,
        anchor: tuple[int, int] | None = None,
    ) -> Augmented:
        """A crop of both.

        Args:
            image: (H, W, C), uint8, uint16 or float32; 1 to 16 channels.
            mask: (H, W) class ids, uint8 or uint16.
            rng: the only source of randomness.
            anchor: a pixel (y, x) that the crop shows, anywhere in it; a rotation then turns the
                crop about it. Only the elastic warp may move it, and so out at an edge.

        Returns:
            new arrays (crop_px, crop_px, C) and (crop_px, crop_px) of the same dtypes; the mask
            is uint16 where its dtype cannot hold ``ignore_index``.

        Raises:
            MaskError: the mask is not of the image's size.
        """
        crop, crop_mask = self.move(image, mask, rng, anchor)
        return {"image": self.relight(crop, rng), "mask": crop_mask}

    def move(
        self,
        image: Image,
        mask: AnyMask,
        rng: np.random.Generator,
        anchor: tuple[int, int] | None = None,
    ) -> tuple[Crop, CropMask]:
        """The crop before its light is changed; arguments, result and errors as of a call."""
        if image.shape[:2] != mask.shape:
            raise MaskError(
                f"the mask is {mask.shape[1]} x {mask.shape[0]} px where its image is "
                f"{image.shape[1]} x {image.shape[0]} px"
            )
        if self._ignore_index is not None and self._ignore_index > np.iinfo(mask.dtype).max:
            mask = mask.astype(np.uint16)
        settings, side = self._settings, self._crop_px
        height, width = mask.shape
        zoom = _draw_zoom(rng, settings.scale, side / min(height, width))
        anchor_y, anchor_x = anchor or (None, None)
        left, x, at_x = _lay(rng, width, side, zoom, anchor_x)
        top, y, at_y = _lay(rng, height, side, zoom, anchor_y)
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

        matrix = source_of_pixel(side, zoom, angle, (flip_x, flip_y), (x, y), (at_x, at_y))
        if not elastic:
            return warp_affine(image, mask, matrix, side, self._ignore_index)
        points = len(self._places)
        shift = rng.uniform(-1, 1, (2, points, points)) * settings.elastic_displacement_px
        return warp_elastic(
            image, mask, matrix, self._basis, self._places, shift, self._ignore_index
        )

    def relight(self, image: Crop, rng: np.random.Generator) -> Crop:
        """The light of a crop (H, W, C) changed; the same dtype."""
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
            image = in_groups(image, lambda part: cv2.GaussianBlur(part, (0, 0), sigma))
        if rng.random() < settings.noise:
            sigma = rng.uniform(0, settings.noise_sigma) * value_range(image)
            if sigma > 0:
                image = add_noise(image, sigma, rng)
        return image


def _draw_zoom(rng: np.random.Generator, scale: tuple[float, float], fitting: float) -> float:
    """A zoom from the range, of which the part below ``fitting`` (at most 1) is left out."""
    low = max(min(scale), min(fitting, 1.0))
    high = max(max(scale), low)
    share = rng.random()
    return low if low == high else math.exp(math.log(low) + share * math.log(high / low))


def _lay(
    rng: np.random.Generator, size: int, side: int, zoom: float, anchor: int | None
) -> tuple[float, float, float]:
    """Where the crop lies along an axis of ``size`` pixels; never outside it where there is room.

    Returns:
        where it begins in the source; a place in the crop; and the place in the source that lies
        there, which is the anchor, or the middle where there is none.
    """
    share = rng.random()
    room = size - side / zoom
    if anchor is None:
        offset = share * room if room > 0 else room / 2
        if zoom == 1.0:  # on a whole pixel where nothing is zoomed, so that pixels survive
            offset = math.floor(share * (room + 1)) if room > 0 else math.floor(room / 2)
        return float(offset), (side - 1) / 2, offset + side / zoom / 2 - 0.5
    # A whole pixel of the crop, so that the nearest neighbour there is the anchor itself
    last = (anchor + 0.5) * zoom - 0.5
    first = last - room * zoom
    if room > 0:
        low, high = max(math.ceil(first), 0), min(math.floor(last), side - 1)
        place = low + math.floor(share * (high - low + 1)) if low <= high else round(last)
    else:
        place = round((first + last) / 2)
    place = min(max(place, 0), side - 1)
    return anchor + 0.5 - (place + 0.5) / zoom, float(place), float(anchor)


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
