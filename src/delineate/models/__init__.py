"""Networks: normalised images in, logits out, for any channel count and any size."""

from delineate.models.build import build, multiple_of, resolved
from delineate.models.padded import Padded

__all__ = ["Padded", "build", "multiple_of", "resolved"]
