"""Candidates: the networks among which a plan is chosen, and what they cost anywhere."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from delineate.config import Architecture, ModelSettings
from delineate.models import build
from delineate.models.build import resolved
from delineate.planning.rules import NARROW
from delineate.types import Task

# How many pixels a side make one cell of the finest map that logits are made from
LOGITS_STRIDE: dict[Architecture, int] = {
    "unet": 1,
    "unet++": 1,
    "attention-unet": 1,
    "manet": 1,
    "linknet": 1,
    "fpn": 4,
    "pspnet": 8,
    "pan": 4,
    "upernet": 4,
    "deeplabv3": 8,
    "deeplabv3+": 4,
    "deeplabv3-resnet101": 8,
    "segformer": 4,
    "fast-scnn": 8,
    "ddrnet-23-slim": 8,
}
_TITLES: dict[Architecture, str] = {
    "unet": "U-Net",
    "unet++": "U-Net++",
    "attention-unet": "Attention U-Net",
    "manet": "MA-Net",
    "linknet": "LinkNet",
    "fpn": "FPN",
    "pspnet": "PSPNet",
    "pan": "PAN",
    "upernet": "UPerNet",
    "deeplabv3": "DeepLabV3",
    "deeplabv3+": "DeepLabV3+",
    "deeplabv3-resnet101": "DeepLabV3",
    "segformer": "SegFormer",
    "fast-scnn": "Fast-SCNN",
    "ddrnet-23-slim": "DDRNet-23-slim",
}
FAMILIES: tuple[ModelSettings, ...] = (
    ModelSettings(architecture="fast-scnn"),
    ModelSettings(architecture="ddrnet-23-slim"),
    ModelSettings(architecture="unet", encoder="mobilenet_v2", decoder_channels=NARROW),
    ModelSettings(architecture="unet", encoder="resnet18", decoder_channels=NARROW),
    ModelSettings(architecture="unet", encoder="resnet34"),
    ModelSettings(architecture="linknet", encoder="resnet18"),
    ModelSettings(architecture="fpn", encoder="resnet18"),
    ModelSettings(architecture="deeplabv3+", encoder="mobilenet_v2"),
    ModelSettings(architecture="deeplabv3+", encoder="resnet34"),
    ModelSettings(architecture="segformer", encoder="mit-b0"),
    ModelSettings(architecture="unet", encoder="efficientnet-b4"),
)
INPUT_SCALES = (1, 2)


@dataclass(frozen=True)
class Candidate:
    """A network that could be trained.

    Attributes:
        model: its settings, with the encoder's own name.
        name: for people.
        stride: pixels a side of one cell of the map its logits are made from.
    """

    model: ModelSettings
    name: str
    stride: int


@dataclass(frozen=True)
class Size:
    """What a network costs wherever it runs.

    Attributes:
        parameters: numbers that are learnt.
        multiply_adds: for one image.
    """

    parameters: int
    multiply_adds: int


def candidate(model: ModelSettings) -> Candidate:
    """Settings with their name and stride.

    Raises:
        ModelError: an unknown architecture or encoder.
    """
    model = resolved(model)
    words = [_TITLES[model.architecture]]
    if model.encoder != "none":
        words.append(model.encoder.removeprefix("tu-"))
    if model.decoder_channels == NARROW:
        words.append("narrow")
    if model.downscale > 1:
        words.append(f"at 1/{model.downscale}")
    stride = LOGITS_STRIDE[model.architecture] * model.downscale
    return Candidate(model, " ".join(words), stride)


def candidates(smallest_side_px: int) -> tuple[Candidate, ...]:
    """The networks that are compared when nobody names others.

    Args:
        smallest_side_px: of the images that will be segmented; those of under 64 pixels are not
            made smaller.
    """
    scales = INPUT_SCALES if smallest_side_px >= 64 else (1,)
    return tuple(
        candidate(family.model_copy(update={"downscale": scale}))
        for family in FAMILIES
        for scale in scales
    )


def size_of(
    model: ModelSettings, *, channels: int, classes: int, task: Task, image_hw: tuple[int, int]
) -> Size:
    """Count parameters and multiply-adds, without memory for either.

    Args:
        model: which network.
        channels: of an image.
        classes: background included.
        task: multiclass or binary.
        image_hw: height and width of the image, pixels.

    Raises:
        ModelError: the network cannot be built.
    """
    with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
        bare = model.model_copy(update={"encoder_weights": None})
        network = build(bare, channels=channels, classes=classes, task=task).eval()
        network(torch.zeros(1, channels, *image_hw))
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return Size(parameters, counter.get_total_flops() // 2)
