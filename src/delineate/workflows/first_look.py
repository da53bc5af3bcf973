"""A first look at the training images, and the plan that is taken when none is given."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Shaped

from delineate.config import Normalisation, Plan
from delineate.data.dataset import DatasetInfo, Sample, read_pair
from delineate.data.images import fit_channels
from delineate.errors import ImageError
from delineate.types import Image, LabelMap, PixelType

LOOKED_AT = 200  # images at most, evenly spread
SMALLEST_HALVED_PX = 320  # smaller images keep their resolution by default
CONSTANT = 1e-6  # standard deviation, as a share of the mean, that is rounding
HEAVIEST = 8.0  # largest class weight, in units of the smallest


@dataclass(frozen=True)
class FirstLook:
    """What the training images are like.

    Attributes:
        channels, dtype: of an image.
        normalisation: mean and standard deviation for each channel, in raw values.
        smallest_side_px: the smallest height or width.
        class_shares: share of the labelled pixels of each class, by id.
    """

    channels: int
    dtype: PixelType
    normalisation: Normalisation
    smallest_side_px: int
    class_shares: tuple[float, ...]


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
    classes = np.zeros(len(info.classes), np.int64)
    smallest = min(first.shape[:2])
    for sample in chosen:
        image, mask = read_pair(sample, info)
        if (channels, image.shape[2]) == (1, 3):  # grey so far, and the first in colour
            channels, sums = 3, np.repeat(sums, 3, axis=1)
        image = _alike(image, sample, channels, first.dtype.name)
        smallest = min(smallest, *image.shape[:2])
        values = image.reshape(-1, image.shape[2]).astype(np.float64)
        sums += [np.full(image.shape[2], len(values)), values.sum(0), (values**2).sum(0)]
        counted = mask if info.ignore_index is None else mask[mask != info.ignore_index]
        classes += np.bincount(counted.reshape(-1), minlength=len(classes))
    return FirstLook(
        channels=channels,
        dtype=pixel_type(first),
        normalisation=_normalisation(sums),
        smallest_side_px=smallest,
        class_shares=tuple(float(v) for v in classes / max(int(classes.sum()), 1)),
    )


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


def default_plan(look: FirstLook) -> Plan:
    """The plan when none is given, for a training of minutes to an hour on a few cores.

    A U-Net with a narrow decoder; where images are large enough it works on half of their
    resolution, which makes a step three times as fast (measured: 0.70 s instead of 2.34 s for
    eight crops of 256 px on two cores). Crops are no larger than the smallest image. Of more
    than two classes the rare ones weigh more.

    """
    usual = Plan()
    crop_px = min(usual.crop_px, max(32, look.smallest_side_px // 32 * 32))
    half = look.smallest_side_px >= SMALLEST_HALVED_PX
    model = usual.model.model_copy(
        update={"decoder_channels": (128, 64, 32, 16, 16), "downscale": 2 if half else 1}
    )
    weights = balancing_weights(look.class_shares)
    loss = usual.loss.model_copy(update={"class_weights": weights})
    return usual.model_copy(update={"crop_px": crop_px, "model": model, "loss": loss})


def balancing_weights(shares: tuple[float, ...]) -> tuple[float, ...] | None:
    """Weights by the inverse square root of the class shares, with a mean of 1 over pixels.

    The square root lies between no balance, by which rare classes are learnt last, and full
    balance, by which a few pixels drown the rest. A class that is never seen weighs as the
    rarest. Two classes get none: Dice balances them already.
    """
    if len(shares) == 2 or not any(shares):
        return None
    seen = np.array(shares)[np.array(shares) > 0]
    raw = 1 / np.sqrt(np.maximum(np.array(shares), seen.min()))
    raw = np.minimum(raw / raw.min(), HEAVIEST)
    return tuple(round(float(v), 4) for v in raw / float(np.dot(raw, shares)))
