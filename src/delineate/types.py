"""Array types and the protocol that joins every engine to everything above it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias, TypedDict, runtime_checkable

import numpy as np
from jaxtyping import Float32, Shaped, UInt, UInt8, UInt16

Task: TypeAlias = Literal["multiclass", "binary"]
Output: TypeAlias = Literal["labels", "confidence", "probabilities", "summary"]
PixelType: TypeAlias = Literal["uint8", "uint16", "float32"]

OUTPUTS: tuple[Output, ...] = ("labels", "confidence", "probabilities", "summary")

# One image and a batch of one size, as read from the file: uint8, uint16 or float32
Image: TypeAlias = Shaped[np.ndarray, "h w c"]
Images: TypeAlias = Shaped[np.ndarray, "n h w c"]
# For each channel a scale, then an offset; the network sees ``image * scale + offset``
Scaling: TypeAlias = Float32[np.ndarray, "2 c"]
# Class ids: uint8 up to 256 classes, else uint16
LabelMap: TypeAlias = UInt[np.ndarray, "h w"]
# Object ids from 1; 0 is no object. Two objects may touch and have one class
InstanceMap: TypeAlias = UInt16[np.ndarray, "h w"]
LabelMaps: TypeAlias = UInt[np.ndarray, "n h w"]
# round(255 * probability); the planes of one pixel need not sum to 255 exactly
Probabilities: TypeAlias = UInt8[np.ndarray, "n k h w"]
# round(255 * largest probability)
Confidence: TypeAlias = UInt8[np.ndarray, "n h w"]
# columns as PredictorSpec.summary_names
Summary: TypeAlias = Float32[np.ndarray, "n s"]


class Prediction(TypedDict, total=False):
    """What a predictor returns: only the outputs that were asked for are there."""

    labels: LabelMaps
    confidence: Confidence
    probabilities: Probabilities
    summary: Summary


@dataclass(frozen=True)
class PredictorSpec:
    """What a predictor takes and gives. It never changes during the predictor's life.

    Attributes:
        classes: class names by id, background included; ``K = len(classes)``.
        task: ``binary`` has two classes and one logit; its probabilities have two planes too.
        channels: channels of an image.
        dtype: pixel type of an image.
        multiple_of: height and width are padded to a multiple of this inside the graph; sizes
            that are multiples already cost nothing extra.
        fixed_hw: the only size (height, width) that is accepted, or None for any size.
        largest_batch: the largest batch that is accepted, or None for any.
        calls_in_flight: how many calls may run at the same time with profit.
        normalised_by_image: each image is normalised by its own mean and deviation, so whoever
            cuts one into tiles has to take them of the whole (:class:`PerImagePredictor`).
    """

    classes: tuple[str, ...]
    task: Task
    channels: int
    dtype: PixelType
    multiple_of: int = 1
    fixed_hw: tuple[int, int] | None = None
    largest_batch: int | None = None
    calls_in_flight: int = 1
    normalised_by_image: bool = False

    @property
    def summary_names(self) -> tuple[str, ...]:
        """Names of the summary's columns: the share of each class, then two means over pixels."""
        return (*(f"share/{name}" for name in self.classes), "mean_confidence", "mean_entropy")


@runtime_checkable
class Predictor(Protocol):
    """Images in, finished results out, whatever runs the network.

    Implementations are thread-safe and keep no state between calls.
    """

    @property
    def spec(self) -> PredictorSpec: ...

    def predict(self, images: Images, outputs: Sequence[Output] = ("labels",)) -> Prediction:
        """Run a batch of images of one size.

        Args:
            images: (N, H, W, C), dtype and channels as in ``spec``.
            outputs: which of :data:`OUTPUTS` to compute; what is not asked for costs nothing.

        Raises:
            ImageError: the batch does not fit ``spec``.
        """
        ...


@runtime_checkable
class PerImagePredictor(Predictor, Protocol):
    """A predictor whose ``spec`` says ``normalised_by_image``."""

    def scaled(self, scaling: Scaling) -> Predictor:
        """The same predictor for tiles of one image, all of them normalised by ``scaling``.

        Without it, each image of a batch is taken for a whole one.
        """
        ...
