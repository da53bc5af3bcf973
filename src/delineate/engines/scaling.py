"""Normalisation by the image itself: scale and offset of each channel, taken of the whole image.

A graph that is normalised so takes them as its second input, because it may see but a tile of the
image: tiles that were normalised each by itself would disagree at their seams. Each channel comes
to mean 0 and standard deviation 1, as in nnU-Net (Isensee et al. 2021), whatever the exposure.
"""

from __future__ import annotations

import cv2
import numpy as np
import onnx
from jaxtyping import Float32, Float64

from delineate.types import Image, Images, PerImagePredictor, Predictor, Scaling

SCALING = "scaling"  # name of the graph's input
CONSTANT = 1e-6  # standard deviation, as a share of the mean, that is rounding
_AT_ONCE = 4  # channels that OpenCV takes


def image_scaling(image: Image) -> Scaling:
    """Scale and offset of each channel: ``image * scale + offset`` has mean 0 and deviation 1.

    Pixels that are no finite number do not count; a channel of one value, but for rounding, keeps
    its scale.

    Args:
        image: (H, W, C), the whole of it.

    Returns:
        (2, C): scales, then offsets.
    """
    mean, std = np.empty(image.shape[2]), np.empty(image.shape[2])
    for first in range(0, image.shape[2], _AT_ONCE):
        part = slice(first, first + _AT_ONCE)
        native = np.ascontiguousarray(image[:, :, part], image.dtype.newbyteorder("="))
        mean[part], std[part] = _mean_and_std(native)
    scale = 1 / np.where(std > CONSTANT * np.abs(mean), std, 1.0)
    return np.stack([scale, -mean * scale]).astype(np.float32)


def _mean_and_std(image: Image) -> tuple[Float64[np.ndarray, " c"], Float64[np.ndarray, " c"]]:
    mean, std = (found.reshape(-1) for found in cv2.meanStdDev(image))
    if np.isfinite(mean).all() and np.isfinite(std).all():
        return mean, std
    for channel, values in enumerate(np.moveaxis(image, 2, 0)):
        finite = values[np.isfinite(values)].astype(np.float64)
        mean[channel], std[channel] = (finite.mean(), finite.std()) if len(finite) else (0.0, 0.0)
    return mean, std


def batch_scalings(images: Images, given: Scaling | None = None) -> Float32[np.ndarray, "n 2 c"]:
    """What a graph takes for a batch: ``given`` for all of it, or each image's own."""
    if given is not None:
        return np.repeat(given[None], len(images), axis=0)
    return np.stack([image_scaling(image) for image in images])


def scaled_for(predictor: Predictor, image: Image) -> Predictor:
    """A predictor for tiles of ``image``, normalised by all of it where that is what it wants."""
    if not predictor.spec.normalised_by_image:
        return predictor
    return with_scaling(predictor, image_scaling(image))


def with_scaling(predictor: Predictor, scaling: Scaling) -> Predictor:
    """A predictor that is normalised by image, for tiles of one whose scaling is known.

    Raises:
        TypeError: it takes none.
    """
    if not isinstance(predictor, PerImagePredictor):
        raise TypeError(f"{type(predictor).__name__} is normalised by image and has no scaled()")
    return predictor.scaled(scaling)


def graph_inputs(
    model: onnx.ModelProto, image: Image, scaling: Scaling | None = None
) -> dict[str, np.ndarray]:
    """The inputs of a finished graph for one image: a piece, where the scaling of all is given."""
    batch = image[None]
    wants = any(value.name == SCALING for value in model.graph.input)
    return {"image": batch, **({SCALING: batch_scalings(batch, scaling)} if wants else {})}
