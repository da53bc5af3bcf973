"""A first look at the training images: what every training has to know of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Shaped

from delineate.config import Normalisation
from delineate.data.dataset import DatasetInfo, Sample, read_pair
from delineate.data.images import fit_channels
from delineate.engines.scaling import CONSTANT
from delineate.errors import ImageError
from delineate.planning.ceilings import CEILING_IMAGES, AnyMask, stride_ceilings
from delineate.types import Image, LabelMap, PixelType

LOOKED_AT = 200  # images at most, evenly spread
# A class lies above or below the middle if that is so by this share of its pixels, on the average
# of so many images, and by so many standard errors
LEAST_LEAN = 0.1
LEAST_IMAGES = 8
CLEAR = 4.0


@dataclass(frozen=True)
class FirstLook:
    """What the training images are like.

    Attributes:
        channels, dtype: of an image.
        normalisation: mean and standard deviation for each channel, in raw values.
        smallest_side_px: the smallest height or width.
        class_shares: share of the labelled pixels of each class, by id.
        upright: whether the images have an up, as far as the masks tell: a class that lies in
            their upper or lower half more than chance explains. True where there are too few
            images to tell.
        sided: whether there is a class twice, as the left and as the right one.
        between_images: the share of the variance of pixel values that lies between the means of
            images, 0 to 1; the mean over channels, 0 where there are too few images to tell.
            Exposures that differ, or several kinds of images, make it large.
        half_ceiling, eighth_ceiling: the mean IoU that is left of the labels in cells of 2 x 2 and
            of 8 x 8 pixels (:mod:`delineate.planning.ceilings`).
    """

    channels: int
    dtype: PixelType
    normalisation: Normalisation
    smallest_side_px: int
    class_shares: tuple[float, ...]
    upright: bool = True
    sided: bool = False
    between_images: float = 0.0
    half_ceiling: float = 1.0
    eighth_ceiling: float = 1.0


def look_at(samples: tuple[Sample, ...], info: DatasetInfo) -> FirstLook:
    """Look at up to 200 training images and masks, evenly spread.

    Raises:
        ImageError: an image has another pixel type or another number of channels than the others
            (grey goes with RGB, whichever comes first).
        MaskError: a mask does not fit its image or the classes.
    """
    count = min(LOOKED_AT, len(samples))
    chosen = [samples[i] for i in np.linspace(0, len(samples) - 1, count).round().astype(int)]
    first, _ = read_pair(chosen[0], info)
    channels = first.shape[2]
    sums = np.zeros((3, channels))
    means: list[Float64[np.ndarray, " c"]] = []
    classes = np.zeros(len(info.classes), np.int64)
    smallest = min(first.shape[:2])
    leans = []
    masks: list[LabelMap] = []
    every = -(-count // CEILING_IMAGES)
    for index, sample in enumerate(chosen):
        image, mask = read_pair(sample, info)
        if (channels, image.shape[2]) == (1, 3):  # grey so far, and the first in colour
            channels, sums = 3, np.repeat(sums, 3, axis=1)
            means = [np.repeat(mean, 3) for mean in means]
        image = _alike(image, sample, channels, first.dtype.name)
        smallest = min(smallest, *image.shape[:2])
        values = image.reshape(-1, image.shape[2]).astype(np.float64)
        sums += [np.full(image.shape[2], len(values)), values.sum(0), (values**2).sum(0)]
        means.append(values.mean(0))
        counted = mask if info.ignore_index is None else mask[mask != info.ignore_index]
        classes += np.bincount(counted.reshape(-1), minlength=len(classes))
        leans.append(_leans(mask, len(classes)))
        if len(masks) < CEILING_IMAGES and not index % every:
            masks.append(mask)
    half, eighth = _ceilings(masks, len(classes))
    return FirstLook(
        channels=channels,
        dtype=pixel_type(first),
        normalisation=_normalisation(sums),
        smallest_side_px=smallest,
        class_shares=tuple(float(v) for v in classes / max(int(classes.sum()), 1)),
        upright=_has_an_up(np.stack(leans)),
        sided=_has_sides(info.classes),
        between_images=_between_images(sums, np.stack(means)),
        half_ceiling=half,
        eighth_ceiling=eighth,
    )


def _between_images(
    sums: Float64[np.ndarray, "3 c"], means: Float64[np.ndarray, "images c"]
) -> float:
    if len(means) < LEAST_IMAGES:
        return 0.0
    count, total, squares = sums
    with np.errstate(invalid="ignore", divide="ignore"):
        whole = squares / count - (total / count) ** 2
        shares = means.var(axis=0) / whole
    known = shares[np.isfinite(shares)]
    return float(np.clip(known, 0.0, 1.0).mean()) if len(known) else 0.0


def _ceilings(masks: Sequence[AnyMask], classes: int) -> tuple[float, float]:
    found = stride_ceilings(masks, classes, (2, 8))
    there = ~np.isnan(found[0])
    if not there.any():  # everything is ignored
        return 1.0, 1.0
    half, eighth = found[:, there].mean(1)
    return float(half), float(eighth)


def _has_sides(classes: tuple[str, ...]) -> bool:
    names = {tuple(re.findall("[a-z0-9]+", name.lower())) for name in classes}
    lefts = [name for name in names if "left" in name]
    return any(tuple("right" if w == "left" else w for w in name) in names for name in lefts)


def _leans(mask: LabelMap, classes: int) -> Float64[np.ndarray, " k"]:
    """How far each class leans to the top of a mask, -1 to 1; NaN where it is absent."""
    half = mask.shape[0] // 2
    above, below = (
        np.bincount(part.reshape(-1), minlength=classes)[:classes].astype(np.float64)
        for part in (mask[:half], mask[mask.shape[0] - half :])
    )
    with np.errstate(invalid="ignore"):
        return np.asarray((above - below) / (above + below))


def _has_an_up(leans: Float64[np.ndarray, "images k"]) -> bool:
    there = ~np.isnan(leans)
    if there.any(axis=1).sum() < LEAST_IMAGES:
        return True
    for column, counted in zip(leans.T, there.T, strict=True):
        values = column[counted]
        if len(values) < LEAST_IMAGES:
            continue
        error = values.std(ddof=1) / np.sqrt(len(values))
        if abs(values.mean()) > max(LEAST_LEAN, CLEAR * error):
            return True
    return False


def _normalisation(sums: Float64[np.ndarray, "3 c"]) -> Normalisation:
    """From count, sum and sum of squares, each (C,), to seven significant digits."""
    mean = sums[1] / sums[0]
    std = np.sqrt(np.maximum(sums[2] / sums[0] - mean**2, 0))
    # a constant channel carries nothing; it must not be divided by zero or by rounding
    constant = std <= CONSTANT * np.abs(mean)
    return Normalisation(
        mean=tuple(float(f"{v:.7g}") for v in mean),
        std=tuple(float(f"{v:.7g}") for v in np.where(constant, 1.0, std)),
    )


def pixel_type(image: Image) -> PixelType:
    """The pixel type of an image, by name."""
    names: dict[str, PixelType] = {n: n for n in ("uint8", "uint16", "float32")}
    return names[image.dtype.name]


def read_alike(sample: Sample, info: DatasetInfo, first: FirstLook) -> tuple[Image, LabelMap]:
    """Image and mask of a sample; grey becomes RGB where the other images are.

    Raises:
        ImageError: the image has another pixel type or another number of channels.
        MaskError: the mask does not fit.
    """
    image, mask = read_pair(sample, info)
    return _alike(image, sample, first.channels, first.dtype), mask


def _alike(image: Image, sample: Sample, channels: int, dtype: str) -> Shaped[np.ndarray, "h w k"]:
    if image.shape[2] == 1 and channels == 3 and image.dtype == dtype:
        return fit_channels(image, channels, str(sample.image))
    if image.shape[2] != channels or image.dtype != dtype:
        raise ImageError(
            f"has {image.shape[2]} channels of {image.dtype}, and the other images for training "
            f"have {channels} of {dtype}",
            where=sample.image,
            mend="Convert the images of a dataset to one kind.",
        )
    return image
