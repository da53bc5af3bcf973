"""Settings to a network that takes images of any size."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import segmentation_models_pytorch as smp
import torch
from segmentation_models_pytorch.decoders.deeplabv3.decoder import ASPPPooling
from torch import nn
from torch.nn import functional as F

from delineate.config import ModelSettings
from delineate.errors import ModelError
from delineate.models.attention_unet import AttentionUnet
from delineate.models.downscaled import Downscaled
from delineate.models.encoders import (
    constructing,
    load_encoder,
    resolve_encoder,
    smp_weights,
    weights_source,
)
from delineate.types import Task

ARCHITECTURES = ("unet", "unet++", "attention-unet", "deeplabv3+")
LARGEST_CHANNELS = 16
_DEPTH = 5
_UNET_CHANNELS = (256, 128, 64, 32, 16)  # as in segmentation-models-pytorch, deepest first
_DEEPLAB_CHANNELS = 256  # as in the paper
# Some encoders average over a hundred steps; a training of a few hundred needs to follow faster
_BATCHNORM_MOMENTUM = 0.1


def build(settings: ModelSettings, *, channels: int, classes: int, task: Task) -> nn.Module:
    """The network that ``settings`` describe.

    It takes normalised float images (N, C, H, W) of any height and width from 1 and gives logits
    (N, K, H, W): K is ``classes``, or 1 for the task ``binary``. It can be exported with dynamic
    batch, height and width. In training mode a batch of one is accepted at every size.

    Args:
        settings: architecture, encoder, weights. ``decoder_channels`` has 5 numbers, deepest
            first, for the U-Nets, and 1 (the width of the pyramid and of the decoder) for
            ``deeplabv3+``.
        channels: channels of an image, 1 to 16.
        classes: classes, background included; 2 when ``task`` is ``binary``.
        task: ``multiclass`` or ``binary``.

    Raises:
        ModelError: an unknown or unsuitable name or number, or weights that cannot be loaded or
            downloaded.
    """
    _check_numbers(channels, classes, task)
    encoder = resolve_encoder(settings.encoder)
    source = weights_source(settings.encoder_weights, encoder)
    logits = 1 if task == "binary" else classes
    with constructing(encoder, source):
        weights = smp_weights(source, encoder)
        network = _network(settings, encoder, weights, channels=channels, logits=logits)
    body = network.get_submodule("encoder")
    if encoder.startswith("efficientnet"):
        # Parts of the classifier that no logit depends on: dead weight in every checkpoint
        del body._conv_head, body._bn1
    if isinstance(source, Path):
        load_encoder(body, source, channels)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = _BATCHNORM_MOMENTUM
    stride: Any = body.output_stride
    if settings.downscale > 1:
        network = Downscaled(network, settings.downscale)
    padded = Padded(network, int(stride) * settings.downscale)
    if encoder.startswith("tu-"):
        _refuse_fixed_size(padded, encoder, channels)
    return padded


def multiple_of(module: nn.Module) -> int:
    """Height and width are padded to a multiple of this inside ``module`` (1: no padding)."""
    for part in module.modules():
        if isinstance(part, Padded):
            return part.multiple
    return 1


class Padded(nn.Module):
    """Pads images at the bottom and the right by replication, and crops the logits back.

    Args:
        network: (N, C, H, W) to (N, K, H, W) for H and W that are multiples of ``multiple``.
        multiple: the network's stride, pixels.
    """

    def __init__(self, network: nn.Module, multiple: int) -> None:
        super().__init__()
        self.network = network
        self.multiple = multiple

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) float of any size from 1 x 1, to logits (N, K, H, W)."""
        height, width = images.shape[-2:]
        # In this form the exporter knows that the padded size is a multiple
        padded_h = (height + self.multiple - 1) // self.multiple * self.multiple
        padded_w = (width + self.multiple - 1) // self.multiple * self.multiple
        if not torch.compiler.is_compiling():
            one_value = images.shape[0] * padded_h * padded_w == self.multiple**2
            if self.training and one_value:
                # Batch normalisation cannot train on one value for each channel
                padded_w += self.multiple
            if (height, width) == (padded_h, padded_w):
                logits: torch.Tensor = self.network(images)
                return logits
        padding = (0, padded_w - width, 0, padded_h - height)
        logits = self.network(F.pad(images, padding, mode="replicate"))
        return logits[:, :, :height, :width]


def _check_numbers(channels: int, classes: int, task: Task) -> None:
    if not 1 <= channels <= LARGEST_CHANNELS:
        raise ModelError(
            f"{channels} channels are not supported", mend=f"Use 1 to {LARGEST_CHANNELS}."
        )
    if classes < 2:
        raise ModelError(
            f"{classes} classes leave nothing to tell apart",
            mend="Name 2 or more, background included.",
        )
    if task == "binary" and classes != 2:
        raise ModelError(
            f"the task binary has 2 classes, background included, not {classes}",
            mend="Use the task multiclass.",
        )


def _network(
    settings: ModelSettings, encoder: str, weights: str | bool | None, *, channels: int, logits: int
) -> nn.Module:
    architecture: str = settings.architecture
    common = {"encoder_weights": weights, "in_channels": channels, "classes": logits}
    match architecture:
        case "unet":
            decoder = _unet_channels(settings)
            network: nn.Module = smp.Unet(encoder, decoder_channels=decoder, **common)
        case "unet++":
            decoder = _unet_channels(settings)
            network = smp.UnetPlusPlus(encoder, decoder_channels=decoder, **common)
        case "attention-unet":
            body = smp.encoders.get_encoder(encoder, channels, _DEPTH, weights)
            network = AttentionUnet(body, _unet_channels(settings), logits)
        case "deeplabv3+":
            width = _deeplab_channels(settings)
            deeplab = smp.DeepLabV3Plus(encoder, decoder_channels=width, **common)
            deeplab.initialize()  # the library leaves this one of its models as torch made it
            _unnormalise_image_pooling(deeplab)
            network = deeplab
        case _:
            close = difflib.get_close_matches(architecture, ARCHITECTURES, n=1, cutoff=0.3)
            raise ModelError(
                "no architecture of this name is known",
                where=f"architecture {architecture}",
                mend=(f"Did you mean {close[0]}? " if close else "")
                + f"Known: {', '.join(ARCHITECTURES)}.",
            )
    return network


def _unet_channels(settings: ModelSettings) -> tuple[int, ...]:
    channels = settings.decoder_channels or _UNET_CHANNELS
    if len(channels) != _DEPTH:
        raise ModelError(
            f"has {len(channels)} numbers where {settings.architecture} has {_DEPTH} stages",
            where="decoder_channels",
            mend=f"Give {_DEPTH} numbers, deepest first, for example "
            f"{', '.join(str(c) for c in _UNET_CHANNELS)}.",
        )
    return _positive(channels)


def _deeplab_channels(settings: ModelSettings) -> int:
    channels = settings.decoder_channels or (_DEEPLAB_CHANNELS,)
    if len(channels) != 1:
        raise ModelError(
            f"has {len(channels)} numbers where deeplabv3+ has one width for its pyramid and "
            "its decoder",
            where="decoder_channels",
            mend=f"Give 1 number, for example {_DEEPLAB_CHANNELS}.",
        )
    return _positive(channels)[0]


def _positive(channels: tuple[int, ...]) -> tuple[int, ...]:
    if min(channels) < 1:
        raise ModelError(
            f"holds {min(channels)}", where="decoder_channels", mend="Use numbers from 1."
        )
    return channels


def _unnormalise_image_pooling(network: nn.Module) -> None:
    """Give the pooled branch of the pyramid a bias in place of its batch normalisation.

    That branch has one value for each image and channel: normalised over a batch of one it
    fails, and over a small batch its statistics are noise (Detectron2 does the same).
    """
    for module in network.modules():
        if isinstance(module, ASPPPooling):
            convolution = module[1]
            convolution.bias = nn.Parameter(torch.zeros(convolution.out_channels))
            module[2] = nn.Identity()


def _refuse_fixed_size(network: nn.Module, encoder: str, channels: int) -> None:
    """Raise for the networks of timm that only take the size they were published with."""
    network.eval()
    try:
        with torch.no_grad():
            network(torch.zeros(1, channels, 33, 65))
    except Exception as error:
        raise ModelError(
            f"does not take images of every size ({str(error)[:120]})",
            where=f"encoder {encoder}",
            mend="Use a convolutional encoder, for example resnet18, efficientnet-b4 or "
            "tu-convnext_tiny.",
        ) from error
    network.train()
