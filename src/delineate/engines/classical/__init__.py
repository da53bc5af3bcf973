"""Classical methods behind the predictor's protocol: contenders that a network has to beat.

All are fitted on labelled images in seconds. Where they do well, the task needs no network.
"""

from typing import TypeAlias

from delineate.engines.classical.colour import ColourPredictor
from delineate.engines.classical.forest import ForestPredictor
from delineate.engines.classical.grabcut import GrabCutPredictor
from delineate.engines.classical.kmeans import KMeansPredictor
from delineate.engines.classical.multi_otsu import MultiOtsuPredictor
from delineate.engines.classical.otsu import OtsuPredictor
from delineate.engines.classical.watershed import WatershedPredictor

Classical: TypeAlias = (
    OtsuPredictor
    | MultiOtsuPredictor
    | ColourPredictor
    | KMeansPredictor
    | GrabCutPredictor
    | WatershedPredictor
    | ForestPredictor
)
# by the name that people give; each has ``fit(pairs, classes, foreground)``
METHODS: dict[str, type[Classical]] = {
    "otsu": OtsuPredictor,
    "multi-otsu": MultiOtsuPredictor,
    "colour": ColourPredictor,
    "kmeans": KMeansPredictor,
    "grabcut": GrabCutPredictor,
    "watershed": WatershedPredictor,
    "forest": ForestPredictor,
}

__all__ = [
    "METHODS",
    "Classical",
    "ColourPredictor",
    "ForestPredictor",
    "GrabCutPredictor",
    "KMeansPredictor",
    "MultiOtsuPredictor",
    "OtsuPredictor",
    "WatershedPredictor",
]
