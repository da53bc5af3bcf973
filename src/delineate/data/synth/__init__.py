"""Generated datasets with exact masks and object ids: stained tissue, cells, plain shapes.

A sample is decided by the seed and its number alone. The mask comes first and the picture is
made from it, so that the two cannot disagree.
"""

from delineate.data.synth.cells import CellsSettings
from delineate.data.synth.dataset import Scene, SynthSettings, synthesise
from delineate.data.synth.shapes import ShapesSettings
from delineate.data.synth.tissue import TissueSettings

__all__ = [
    "CellsSettings",
    "Scene",
    "ShapesSettings",
    "SynthSettings",
    "TissueSettings",
    "synthesise",
]
