"""Networks: normalised images in, logits out, for any channel count and any size."""

from delineate.models.build import Padded, build, multiple_of

__all__ = ["Padded", "build", "multiple_of"]
