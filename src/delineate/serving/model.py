"""What a server serves."""

from __future__ import annotations

from dataclasses import dataclass

from delineate.config import PostprocessingSettings, TilingSettings
from delineate.types import Predictor


@dataclass(frozen=True)
class ServedModel:
    """A predictor with what is needed to answer over HTTP.

    Attributes:
        name: the model's name, as answers and metrics give it.
        version: its version.
        predictor: runs the network.
        colours: colour of each class by id, (red, green, blue) of 0 to 255.
        tiling: how images larger than one tile are cut.
        postprocessing: what is done to a finished label map.
    """

    name: str
    version: str
    predictor: Predictor
    colours: tuple[tuple[int, int, int], ...]
    tiling: TilingSettings
    postprocessing: PostprocessingSettings
