"""Rules: what of a plan follows from the look of a dataset."""

from __future__ import annotations

from typing import get_args

import numpy as np

from delineate.config import Architecture, AugmentationSettings, ModelSettings, Plan
from delineate.planning.look import FirstLook

SMALLEST_LARGE_PX = 320  # smaller images need every pixel of a coarse output
FIVE_STAGES = ("unet", "unet++", "attention-unet", "manet")  # decoders with five widths
NARROW = (128, 64, 32, 16, 16)
AT_FULL_SIZE = ("fast-scnn", "ddrnet-23-slim")  # look coarsely by themselves
HEAVIEST = 8.0  # largest class weight, in units of the smallest


def default_plan(look: FirstLook, architecture: str | None = None) -> Plan:
    """The plan when none is given, for a training of minutes to an hour on a few cores.

    Large images get DDRNet-23-slim, small ones a U-Net with a narrow decoder (measured at equal
    time, decision 0006). Crops are no larger than the smallest image. Images without an up are
    turned and flipped at will, and where classes are told apart by left and right, no image is
    mirrored. Of more than two classes the rare ones weigh more.

    Args:
        look: at the training images.
        architecture: that was chosen already, if any.
    """
    usual = Plan()
    loss = usual.loss.model_copy(update={"class_weights": balancing_weights(look.class_shares)})
    changes = {
        "model": _model(look, architecture),
        "loss": loss,
        "augmentation": _augmentation(look),
        "crop_px": min(usual.crop_px, max(32, look.smallest_side_px // 32 * 32)),
    }
    return usual.model_copy(update=changes)


def _model(look: FirstLook, architecture: str | None) -> ModelSettings:
    large = look.smallest_side_px >= SMALLEST_LARGE_PX
    if architecture is None:
        architecture = "ddrnet-23-slim" if large else "unet"
    if architecture not in get_args(Architecture):
        return ModelSettings()  # it is refused later, with what it could be
    half = large and architecture not in AT_FULL_SIZE
    return ModelSettings.model_validate(
        {
            "architecture": architecture,
            "decoder_channels": NARROW if architecture in FIVE_STAGES else None,
            "downscale": 2 if half else 1,
        }
    )


def _augmentation(look: FirstLook) -> AugmentationSettings:
    changes = {} if look.upright else {"vertical_flip": 0.5, "rotation_degrees": 180.0}
    if look.sided:
        # neither what mirrors, nor what turns the left to the right
        changes = {"horizontal_flip": 0.0, "vertical_flip": 0.0}
    return AugmentationSettings().model_copy(update=changes)


def balancing_weights(shares: tuple[float, ...]) -> tuple[float, ...] | None:
    """Weights by the inverse square root of the class shares, with a mean of 1 over pixels.

    The square root lies between no balance, by which rare classes are learnt last, and full
    balance, by which a few pixels drown the rest. A class that is never seen weighs as the
    rarest. Two classes get none: Dice balances them already.
    """
    if len(shares) == 2 or not any(shares):
        return None
    seen = np.array(shares)[np.array(shares) > 0]
    raw = 1 / np.sqrt(np.maximum(np.array(shares), seen.min()))
    raw = np.minimum(raw / raw.min(), HEAVIEST)
    return tuple(round(float(v), 4) for v in raw / float(np.dot(raw, shares)))
