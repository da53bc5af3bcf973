"""Generated images that look like tissue stained with haematoxylin and eosin, with exact masks.

Tumour differs from the rest in texture and arrangement: its mean stain is made equal to that of
stroma and glands, so that a threshold on colour fails where a network does not.
"""

from delineate.data.synth.tissue.appearance import HELD_OUT, TRAINED, Appearance, AppearanceRanges
from delineate.data.synth.tissue.dataset import CLASSES, COLOURS, PIXEL_SIZE_UM, TissueSettings
from delineate.data.synth.tissue.scene import render_tissue

__all__ = [
    "CLASSES",
    "COLOURS",
    "HELD_OUT",
    "PIXEL_SIZE_UM",
    "TRAINED",
    "Appearance",
    "AppearanceRanges",
    "TissueSettings",
    "render_tissue",
]
