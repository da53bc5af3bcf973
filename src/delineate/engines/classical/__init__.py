"""Classical methods behind the predictor's protocol: contenders that a network has to beat.

All are fitted on labelled images in seconds. Where they do well, the task needs no network.
"""

from delineate.engines.classical.colour import ColourPredictor
from delineate.engines.classical.forest import ForestPredictor
from delineate.engines.classical.grabcut import GrabCutPredictor
from delineate.engines.classical.kmeans import KMeansPredictor
from delineate.engines.classical.multi_otsu import MultiOtsuPredictor
from delineate.engines.classical.otsu import OtsuPredictor
from delineate.engines.classical.watershed import WatershedPredictor

__all__ = [
    "ColourPredictor",
    "ForestPredictor",
    "GrabCutPredictor",
    "KMeansPredictor",
    "MultiOtsuPredictor",
    "OtsuPredictor",
    "WatershedPredictor",
]
