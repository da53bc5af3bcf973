"""Rules: what of a plan follows from the look of a dataset, and from its fingerprint.

After nnU-Net (Isensee et al. 2021, doi:10.1038/s41592-020-01008-z), whose fixed rules configure a
training from a fingerprint; where that one asks for the memory of a GPU, these ask for the time of
a step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from delineate.config import (
    Architecture,
    AugmentationSettings,
    ModelSettings,
    Plan,
    TilingSettings,
    with_changes,
)
from delineate.planning.fingerprint import Fingerprint
from delineate.planning.look import FirstLook

# Networks by what their cells leave of the labels (decision 0016)
SMALLEST_LARGE_PX = 320
SMALLEST_HALVED_PX = 128
LEAST_EIGHTH = 0.75  # mean IoU in cells of 8 x 8 pixels, for a network that ends in such
LEAST_HALF = 0.95  # in cells of 2 x 2, for a network at half resolution
FIVE_STAGES = ("unet", "unet++", "attention-unet", "manet")  # decoders with five widths
NARROW = (128, 64, 32, 16, 16)
AT_FULL_SIZE = ("fast-scnn", "ddrnet-23-slim")  # look coarsely by themselves
HEAVIEST = 8.0  # largest class weight, in units of the smallest
FEW_IMAGES = 50  # fewer are augmented more strongly
RARE = 0.01  # of the pixels: a class below gets crops of its own
BY_IMAGE = 0.5  # of the variance lies between images: each is normalised by itself
OVERSAMPLED = 0.33  # of the crops, as in nnU-Net


def default_plan(look: FirstLook, architecture: str | None = None) -> Plan:
    """The plan when none is given, for a training of minutes to an hour on a few cores.

    Large images get DDRNet-23-slim unless their structures are thin, all others a U-Net with a
    narrow decoder, at half their resolution unless the structures are very thin (measured at equal
    time, decision 0016). Crops are no larger than the smallest image. Images without an up are
    turned and flipped at will, and where classes are told apart by left and right, no image is
    mirrored. Of more than two classes the rare ones weigh more. Images that differ more from each
    other than within themselves are normalised each by itself.

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
        "normalisation": "image" if look.between_images >= BY_IMAGE else "dataset",
        "crop_px": min(usual.crop_px, max(32, look.smallest_side_px // 32 * 32)),
    }
    return usual.model_copy(update=changes)


def _model(look: FirstLook, architecture: str | None) -> ModelSettings:
    if architecture is None:
        large = look.smallest_side_px >= SMALLEST_LARGE_PX
        coarse = large and look.eighth_ceiling >= LEAST_EIGHTH
        architecture = "ddrnet-23-slim" if coarse else "unet"
    if architecture not in get_args(Architecture):
        return ModelSettings()  # it is refused later, with what it could be
    half = look.half_ceiling >= LEAST_HALF and look.smallest_side_px >= SMALLEST_HALVED_PX
    return ModelSettings.model_validate(
        {
            "architecture": architecture,
            "decoder_channels": NARROW if architecture in FIVE_STAGES else None,
            "downscale": 2 if half and architecture not in AT_FULL_SIZE else 1,
            "deep_supervision": architecture == "ddrnet-23-slim",
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


@dataclass(frozen=True)
class Ruled:
    """A plan and the rules that made it.

    Attributes:
        plan: for a training.
        reasons: by dotted path of the field: why it has its value.
    """

    plan: Plan
    reasons: Mapping[str, str]


def ruled(fingerprint: Fingerprint, model: ModelSettings | None = None) -> Ruled:
    """The plan that follows from a fingerprint.

    Args:
        fingerprint: of the dataset.
        model: that was chosen; the default when left out.
    """
    look = fingerprint.look
    base = default_plan(look) if model is None else default_plan(look, model.architecture)
    changes: dict[str, tuple[Any, str]] = {}
    if model is not None:
        deep = model.model_copy(update={"deep_supervision": base.model.deep_supervision})
        base = base.model_copy(update={"model": deep})
    _say_normalisation(base, look, changes)
    _say_crop(base, look, changes)
    _sample(fingerprint, changes)
    _augment(base, fingerprint, changes)
    _tile(base, fingerprint, changes)
    _say_weights(base, changes)
    values = {path: value for path, (value, _) in changes.items() if value is not None}
    plan = with_changes(base, values, "the rules")
    return Ruled(plan, {path: reason for path, (_, reason) in changes.items()})


_Changes = dict[str, tuple[Any, str]]  # value (None: as it is) and reason, by dotted path


def _say_normalisation(base: Plan, look: FirstLook, changes: _Changes) -> None:
    channels = f"{look.channels} channel{'s' if look.channels > 1 else ''}"
    share = f"{look.between_images:.0%} of the variance lies between images"
    if base.normalisation == "image":
        reason = f"mean and standard deviation of the {channels} of each image itself: {share}"
    else:
        reason = (
            f"mean and standard deviation of the {channels} over the training images, in the "
            f"graph: {share}"
        )
    changes["normalisation"] = (None, reason)


def _say_crop(base: Plan, look: FirstLook, changes: _Changes) -> None:
    if base.crop_px < Plan().crop_px:
        reason = f"the smallest image has {look.smallest_side_px} px a side"
    else:
        reason = "eight of these fill two cores or a small GPU and show varied context in a step"
    changes["crop_px"] = (None, reason)


def _sample(fingerprint: Fingerprint, changes: _Changes) -> None:
    seen = [item for item in fingerprint.classes if item.share > 0 and not item.background]
    rare = [item.name for item in seen if item.share < RARE]
    if rare:
        reason = f"{', '.join(rare)}: less than {RARE:.0%} of the pixels each"
        changes["sampling.balanced"] = (OVERSAMPLED, reason)


def _augment(base: Plan, fingerprint: Fingerprint, changes: _Changes) -> None:
    if not fingerprint.look.upright:
        changes["augmentation.vertical_flip"] = (
            None,
            "no class lies in the upper or lower half more than chance explains",
        )
    if fingerprint.look.sided:
        changes["augmentation.horizontal_flip"] = (
            None,
            "a class is there twice, as the left and as the right one",
        )
    few = fingerprint.labelled_images
    if few < FEW_IMAGES:
        reason = f"{few} labelled images: fewer than {FEW_IMAGES}"
        changes["augmentation.elastic"] = (2 * base.augmentation.elastic, reason)
        changes["augmentation.blur"] = (2 * base.augmentation.blur, reason)
        changes["augmentation.noise"] = (2 * base.augmentation.noise, reason)


def _tile(base: Plan, fingerprint: Fingerprint, changes: _Changes) -> None:
    tile_px = base.tiling.tile_px
    largest = max(fingerprint.height_px.p95, fingerprint.width_px.p95)
    if largest <= tile_px:
        changes["tiling.tile_px"] = (None, f"images of up to {largest:.0f} px go through whole")
        return
    object_px = fingerprint.largest_object_px
    if object_px is None:
        return
    wanted = max(base.tiling.overlap_px, math.ceil(object_px / 32) * 32)
    overlap_px = min(wanted, tile_px // 4)
    reason = f"95 % of the objects are at most {object_px:.0f} px across"
    changes["tiling"] = (
        TilingSettings(tile_px=tile_px, overlap_px=overlap_px).model_dump(),
        reason + ("" if wanted <= tile_px // 4 else "; a quarter of a tile is the limit"),
    )


def _say_weights(base: Plan, changes: _Changes) -> None:
    if base.loss.class_weights is not None:
        reason = "more than two classes: by the inverse square root of their share of the pixels"
        changes["loss.class_weights"] = (None, reason)
