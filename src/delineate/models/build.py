"""Settings to a network that takes images of any size."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import get_args

import torch
from torch import nn

from delineate.config import Architecture, ModelSettings
from delineate.errors import ModelError
from delineate.models import ddrnet, fast_scnn, torchvision_networks
from delineate.models.ddrnet import DDRNet
from delineate.models.deep_supervision import DeeplySupervised
from delineate.models.downscaled import Downscaled
from delineate.models.encoders import (
    constructing,
    load_encoder,
    resolve_encoder,
    smp_weights,
    weights_source,
)
from delineate.models.fast_scnn import FastSCNN
from delineate.models.padded import Padded
from delineate.models.segformer import SIZES, segformer
from delineate.models.segformer import STRIDE as SEGFORMER_STRIDE
from delineate.models.smp_networks import Built, refuse_decoder_channels, smp_network
from delineate.models.torchvision_networks import torchvision_deeplab
from delineate.types import Task

ARCHITECTURES: tuple[str, ...] = get_args(Architecture)
DEEPLY_SUPERVISED = (
    "unet",
    "unet++",
    "attention-unet",
    "manet",
    "deeplabv3-resnet101",
    "fast-scnn",
    "ddrnet-23-slim",
)
LARGEST_CHANNELS = 16
# Architectures that bring their own encoder, and what it may be called; the usual one first
OWN_ENCODERS: dict[str, tuple[str, ...]] = {
    "segformer": tuple(SIZES),
    "deeplabv3-resnet101": torchvision_networks.ENCODERS,
    "fast-scnn": ("none",),
    "ddrnet-23-slim": ("none",),
}
# Some encoders average over a hundred steps; a training of a few hundred needs to follow faster
_BATCHNORM_MOMENTUM = 0.1


def build(settings: ModelSettings, *, channels: int, classes: int, task: Task) -> nn.Module:
    """The network that ``settings`` describe.

    It takes normalised float images (N, C, H, W) of any height and width from 1 and gives logits
    (N, K, H, W): K is ``classes``, or 1 for the task ``binary``. It can be exported with dynamic
    batch, height and width. In training mode a batch of one is accepted at every size.

    With ``deep_supervision``, a call in training mode gives a list: the same logits, then coarser
    ones (N, K, h, w) that cover the image, finest first. In evaluation mode, and so in an export,
    there is never a list.

    Args:
        settings: architecture, encoder, weights. ``decoder_channels`` has 5 numbers, deepest
            first, for the U-Nets and ``manet``; 2 for ``fpn`` (pyramid, branches); 1 for
            ``pspnet``, ``pan``, ``upernet``, ``deeplabv3``, ``deeplabv3+`` and ``segformer``.
            The encoder of the architectures in ``OWN_ENCODERS`` is settled by :func:`resolved`.
        channels: channels of an image, 1 to 16.
        classes: classes, background included; 2 when ``task`` is ``binary``.
        task: ``multiclass`` or ``binary``.

    Raises:
        ModelError: an unknown or unsuitable name or number, or weights that cannot be loaded or
            downloaded.
    """
    _check_numbers(channels, classes, task)
    settings = resolved(settings)
    if settings.deep_supervision and settings.architecture not in DEEPLY_SUPERVISED:
        raise ModelError(
            f"{settings.architecture} has no coarser outputs to train",
            where="deep_supervision",
            mend=f"Leave it out, or use one of: {', '.join(DEEPLY_SUPERVISED)}.",
        )
    logits = 1 if task == "binary" else classes
    if settings.architecture in OWN_ENCODERS:
        built = _own_network(settings, channels=channels, logits=logits)
    else:
        built = _on_an_encoder(settings, channels=channels, logits=logits)
    network, stride, coarsest = built.network, built.stride, built.coarsest or built.stride
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = _BATCHNORM_MOMENTUM
    factor = settings.downscale
    if factor > 1:
        network = Downscaled(network, factor)
    padded = Padded(network, stride * factor, coarsest * factor)
    if settings.encoder.startswith("tu-"):
        _refuse_fixed_size(padded, settings.encoder, channels)
    return padded


def resolved(settings: ModelSettings) -> ModelSettings:
    """The same settings with the name of the encoder that is really built.

    Names are brought to the form that the libraries know. Where the architecture has its own
    encoder, the default of the settings stands for the usual one of that architecture:
    ``mit-b0`` for ``segformer``, ``resnet101`` for ``deeplabv3-resnet101``, and ``none`` for
    ``fast-scnn`` and ``ddrnet-23-slim``.

    Raises:
        ModelError: an unknown architecture, or an encoder it does not have.
    """
    architecture, encoder = settings.architecture, settings.encoder
    if architecture not in ARCHITECTURES:
        close = difflib.get_close_matches(architecture, ARCHITECTURES, n=1, cutoff=0.3)
        raise ModelError(
            "no architecture of this name is known",
            where=f"architecture {architecture}",
            mend=(f"Did you mean {close[0]}? " if close else "")
            + f"Known: {', '.join(ARCHITECTURES)}.",
        )
    own = OWN_ENCODERS.get(architecture)
    if own is None:
        name = resolve_encoder(encoder)
    elif encoder == ModelSettings.model_fields["encoder"].default:
        name = own[0]
    else:
        name = encoder.strip().lower().replace("_", "-")
        if name not in own:
            raise ModelError(
                f"{architecture} has its own encoder"
                + (f": {', '.join(own)}" if len(own) > 1 else ", and none to choose"),
                where=f"encoder {encoder}",
                mend=f"Use --encoder {own[0]}.",
            )
    return settings.model_copy(update={"encoder": name})


def multiple_of(module: nn.Module) -> int:
    """Height and width are padded to a multiple of this inside ``module`` (1: no padding)."""
    for part in module.modules():
        if isinstance(part, Padded):
            return part.multiple
    return 1


def _on_an_encoder(settings: ModelSettings, *, channels: int, logits: int) -> Built:
    encoder = settings.encoder
    source = weights_source(settings.encoder_weights, encoder)
    with constructing(encoder, source):
        weights = smp_weights(source, encoder)
        built = smp_network(settings, encoder, weights, channels=channels, logits=logits)
    network = built.network
    inner = network.network if isinstance(network, DeeplySupervised) else network
    body = inner.get_submodule("encoder")
    if encoder.startswith("efficientnet"):
        # Parts of the classifier that no logit depends on: dead weight in every checkpoint
        del body._conv_head, body._bn1
    if isinstance(source, Path):
        load_encoder(body, source, channels)
    return built


def _own_network(settings: ModelSettings, *, channels: int, logits: int) -> Built:
    deep = settings.deep_supervision
    if settings.architecture == "segformer":
        return Built(segformer(settings, channels=channels, logits=logits), SEGFORMER_STRIDE)
    if settings.decoder_channels is not None:
        raise refuse_decoder_channels(settings.architecture)
    if settings.architecture == "deeplabv3-resnet101":
        network = torchvision_deeplab(settings, channels=channels, logits=logits)
        return Built(network, torchvision_networks.STRIDE)
    if settings.encoder_weights not in (None, "none"):
        raise ModelError(
            f"{settings.architecture} has no encoder of its own to fill, and starts from random "
            "weights",
            where=f"--encoder-weights {settings.encoder_weights}",
            mend="Use --encoder-weights none.",
        )
    if settings.architecture == "fast-scnn":
        return Built(FastSCNN(channels, logits, deep_supervision=deep), fast_scnn.STRIDE)
    return Built(DDRNet(channels, logits, deep_supervision=deep), ddrnet.STRIDE, ddrnet.COARSEST)


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
