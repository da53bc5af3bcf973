"""What every engine checks before it runs a batch, with one wording."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from delineate.errors import ImageError, SettingsError
from delineate.types import OUTPUTS, Output, PredictorSpec


def check_outputs(outputs: Sequence[Output]) -> None:
    """Raise when an output is unknown or none is asked for.

    Raises:
        SettingsError: that is so.
    """
    unknown = [name for name in outputs if name not in OUTPUTS]
    if unknown or not outputs:
        asked = ", ".join(unknown) if unknown else "none"
        raise SettingsError(f"asked for outputs {asked}", mend=f"Choose from {', '.join(OUTPUTS)}.")


def check_batch(images: np.ndarray, outputs: Sequence[Output], spec: PredictorSpec) -> None:
    """Raise when ``images``, which ought to be (N, H, W, C), or ``outputs`` do not fit ``spec``.

    Raises:
        ImageError: rank, pixel type, channels, size or batch do not fit.
        SettingsError: an output is unknown or none is asked for.
    """
    check_outputs(outputs)
    if images.ndim != 4:
        raise ImageError(
            f"a batch of shape {tuple(images.shape)} was given",
            mend="Give (N, H, W, C); image[None] makes a batch of one image.",
        )
    count, height, width, channels = images.shape
    if images.dtype.name != spec.dtype:
        raise ImageError(
            f"pixels are {images.dtype.name}, the model takes {spec.dtype}",
            mend=f"Convert the image to {spec.dtype} in the value range the model was trained on.",
        )
    if channels != spec.channels:
        raise ImageError(f"the image has {channels} channels, the model takes {spec.channels}")
    if min(count, height, width) == 0:
        raise ImageError(f"a batch of shape {tuple(images.shape)} holds no pixels")
    if spec.fixed_hw is not None and (height, width) != spec.fixed_hw:
        raise ImageError(
            f"the image is {height} x {width} (height x width), the model takes only "
            f"{spec.fixed_hw[0]} x {spec.fixed_hw[1]}",
            mend="delineate.tiling.segment cuts any image into such tiles.",
        )
    if spec.largest_batch is not None and count > spec.largest_batch:
        raise ImageError(
            f"a batch of {count} images was given, the model takes {spec.largest_batch} at most"
        )
