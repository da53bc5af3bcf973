"""Pieces of images, as the network that is quantised takes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import onnx
from jaxtyping import Shaped

from delineate.engines.scaling import graph_inputs, with_scaling
from delineate.types import Output, Prediction, Predictor, Scaling

AnySize: TypeAlias = Shaped[np.ndarray, "_ _ c"]  # an image, among others of other sizes


@dataclass(frozen=True, eq=False)
class Piece:
    """A piece of an image, or all of it.

    Attributes:
        pixels: (H, W, C), raw.
        scaling: of the image that it is a piece of; None where it is a whole image, or where the
            network is not normalised by image.
    """

    pixels: AnySize
    scaling: Scaling | None = None

    def inputs(self, model: onnx.ModelProto) -> dict[str, np.ndarray]:
        """What a finished graph takes, a batch of one."""
        return graph_inputs(model, self.pixels, self.scaling)

    def predicted(
        self, predictor: Predictor, outputs: Sequence[Output] = ("labels",)
    ) -> Prediction:
        """What a predictor says of it, a batch of one."""
        if self.scaling is not None:
            predictor = with_scaling(predictor, self.scaling)
        return predictor.predict(self.pixels[None], outputs)
