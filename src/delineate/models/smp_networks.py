"""The decoders of segmentation-models-pytorch, made to train on one image and to export.

DPT is left out: it takes only the vision transformers of timm, which have one fixed size. Its
SegFormer decoder is left out too, since ``segformer`` is the network as published.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import segmentation_models_pytorch as smp
from segmentation_models_pytorch.decoders.deeplabv3.decoder import ASPPPooling
from segmentation_models_pytorch.decoders.linknet.decoder import TransposeX2
from segmentation_models_pytorch.decoders.pan.decoder import ConvBnRelu, FPABlock, GAUBlock
from torch import Tensor, nn
from torch.nn import functional as F

from delineate.config import ModelSettings
from delineate.errors import ModelError
from delineate.models.attention_unet import AttentionUnet
from delineate.models.deep_supervision import (
    DeeplySupervised,
    UnetPlusPlusStages,
    manet_stages,
    unet_stages,
)
from delineate.models.pooling import PyramidBranch, bias_in_place_of_normalisation

_DEPTH = 5
# As in the library, deepest first
_WIDTHS: dict[str, tuple[int, ...]] = {
    "unet": (256, 128, 64, 32, 16),
    "unet++": (256, 128, 64, 32, 16),
    "attention-unet": (256, 128, 64, 32, 16),
    "manet": (256, 128, 64, 32, 16),
    "fpn": (256, 128),
    "pspnet": (512,),
    "pan": (32,),
    "upernet": (256,),
    "deeplabv3": (256,),
    "deeplabv3+": (256,),
}
_MEANING = {
    1: "one width",
    2: "two widths, of the pyramid and of the branches that are summed",
    5: "5 stages",
}
_GROUPS = 32  # of FPN's group normalisation


class Built(NamedTuple):
    """A network and what :class:`delineate.models.padded.Padded` must know of it.

    Attributes:
        network: (N, C, H, W) to logits (N, K, H, W), H and W multiples of ``stride``.
        stride: pixels.
        coarsest: pixels to one value of the coarsest normalised map; the stride if None.
    """

    network: nn.Module
    stride: int
    coarsest: int | None = None


def smp_network(
    settings: ModelSettings, encoder: str, weights: str | bool | None, *, channels: int, logits: int
) -> Built:
    """A decoder of segmentation-models-pytorch, or the attention U-Net, on its encoder.

    Args:
        settings: architecture and widths of the decoder.
        encoder: as the library knows it.
        weights: as the library takes them.
        channels: of the images.
        logits: channels of the output.

    Raises:
        ModelError: ``decoder_channels`` does not suit the architecture.
    """
    widths = decoder_widths(settings)
    common: dict[str, Any] = {
        "encoder_name": encoder,
        "encoder_weights": weights,
        "in_channels": channels,
        "classes": logits,
    }
    deep = settings.deep_supervision
    match settings.architecture:
        case "attention-unet":
            body = smp.encoders.get_encoder(encoder, channels, _DEPTH, weights)
            network: nn.Module = AttentionUnet(body, widths, logits, deep_supervision=deep)
        case "unet" | "unet++" | "manet":
            network = _unet(settings.architecture, widths, common, deep=deep)
        case "linknet":
            network = _linknet(common)
        case "fpn":
            network = smp.FPN(
                decoder_pyramid_channels=widths[0],
                decoder_segmentation_channels=widths[1],
                **common,
            )
        case "pspnet":
            network = _pspnet(widths[0], common)
        case "pan":
            # Its attention pools three times more
            return Built(_pan(widths[0], common), stride=16, coarsest=128)
        case "upernet":
            network = _upernet(widths[0], common)
        case _:
            network = _deeplab(settings.architecture, widths[0], common)
    inner = network.network if isinstance(network, DeeplySupervised) else network
    stride: Any = inner.get_submodule("encoder").output_stride
    return Built(network, int(stride))


def decoder_widths(settings: ModelSettings) -> tuple[int, ...]:
    """``decoder_channels`` of the settings, or the library's, checked for the architecture.

    Raises:
        ModelError: the architecture has none, another count of them, or one is not possible.
    """
    usual = _WIDTHS.get(settings.architecture, ())
    widths = usual if settings.decoder_channels is None else settings.decoder_channels
    if not usual and widths:
        raise refuse_decoder_channels(settings.architecture)
    if len(widths) != len(usual):
        raise ModelError(
            f"has {len(widths)} number{'s' if len(widths) != 1 else ''} where "
            f"{settings.architecture} has {_MEANING[len(usual)]}",
            where="decoder_channels",
            mend=f"Give {len(usual)} number{'s' if len(usual) > 1 else ''}"
            f"{', deepest first' if len(usual) == _DEPTH else ''}, for example "
            f"{', '.join(str(c) for c in usual)}.",
        )
    if min(widths, default=1) < 1:
        raise ModelError(
            f"holds {min(widths)}", where="decoder_channels", mend="Use numbers from 1."
        )
    # One channel in a group would be one value in the smallest images, which PyTorch refuses
    if settings.architecture == "fpn" and (widths[1] % _GROUPS or widths[1] == _GROUPS):
        raise ModelError(
            f"has {widths[1]} channels in the branches of fpn, which are normalised in {_GROUPS} "
            "groups of 2 channels or more",
            where="decoder_channels",
            mend=f"Use a multiple of {_GROUPS} from {2 * _GROUPS}, for example "
            f"{widths[0]}, {max(2, -(-widths[1] // _GROUPS)) * _GROUPS}.",
        )
    return widths


def refuse_decoder_channels(architecture: str) -> ModelError:
    """The error for an architecture whose decoder has no width to choose."""
    return ModelError(
        f"the decoder of {architecture} has no width to choose",
        where="decoder_channels",
        mend="Leave decoder_channels out.",
    )


def _unet(
    architecture: str, widths: tuple[int, ...], common: dict[str, Any], *, deep: bool
) -> nn.Module:
    kinds = {"unet": smp.Unet, "unet++": smp.UnetPlusPlus, "manet": smp.MAnet}
    network: nn.Module = kinds[architecture](decoder_channels=widths, **common)
    if not deep:
        return network
    if architecture == "unet++":
        decoder: Any = network.get_submodule("decoder")
        nodes = UnetPlusPlusStages(decoder.skip_channels)
        return DeeplySupervised(network, nodes, nodes.channels, common["classes"])
    stages = unet_stages if architecture == "unet" else manet_stages
    return DeeplySupervised(network, stages, widths[-2:0:-1], common["classes"])


def _linknet(common: dict[str, Any]) -> nn.Module:
    network: nn.Module = smp.Linknet(**common)
    for module in network.modules():
        if isinstance(module, TransposeX2):
            module[0].bias = None  # the normalisation behind it takes any constant away
    return network


def _pspnet(width: int, common: dict[str, Any]) -> nn.Module:
    """On an encoder dilated to a stride of 8 as in the paper; the library cuts it off there."""
    network: nn.Module = smp.PSPNet(
        encoder_depth=_DEPTH, output_stride=8, upsampling=8, psp_out_channels=width, **common
    )
    blocks: Any = network.get_submodule("decoder.psp.blocks")
    for index, block in enumerate(blocks):
        blocks[index] = PyramidBranch(block.pool_size, block.pool[1], align_corners=True)
    return network


def _upernet(width: int, common: dict[str, Any]) -> nn.Module:
    network: nn.Module = smp.UPerNet(decoder_channels=width, **common)
    blocks: Any = network.get_submodule("decoder.psp.blocks")
    for index, (pool, layer) in enumerate(blocks):
        if pool.output_size == 1:
            bias_in_place_of_normalisation(layer, convolution=0, norm=1)
        blocks[index] = PyramidBranch(pool.output_size, layer, align_corners=False)
    return network


class _AnySizeAttention(FPABlock):  # type: ignore[misc]
    """Feature pyramid attention whose pools round up, so that maps of every size fit."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, D, H, W)."""
        pooled = self.branch1(x).expand(-1, -1, x.shape[2], x.shape[3])
        x1 = self.down1(x)
        x2 = self.down2(x1)
        x3 = self.down3(x2)
        fused = self.conv2(x2) + _resized(x3, x2)
        fused = self.conv1(x1) + _resized(fused, x1)
        result: Tensor = _resized(fused, x) * self.mid(x) + pooled
        return result


def _resized(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=True)


def _pan(width: int, common: dict[str, Any]) -> nn.Module:
    network: Any = smp.PAN(decoder_channels=width, **common)
    attention = _AnySizeAttention(network.encoder.out_channels[-1], width)
    network.decoder.fpa = attention
    network.initialize()
    for module in network.decoder.modules():
        if isinstance(module, nn.MaxPool2d):
            module.ceil_mode = True
        elif isinstance(module, ConvBnRelu):
            module.conv.bias = None  # the normalisation behind it takes any constant away
    gates = [module.conv1 for module in network.modules() if isinstance(module, GAUBlock)]
    for branch in (attention.branch1, *gates):
        layer: Any = branch[1]
        layer.conv.bias = nn.Parameter(layer.conv.weight.new_zeros(layer.conv.out_channels))
        layer.bn = nn.Identity()
    body: nn.Module = network
    return body


def _deeplab(architecture: str, width: int, common: dict[str, Any]) -> nn.Module:
    kind = smp.DeepLabV3 if architecture == "deeplabv3" else smp.DeepLabV3Plus
    network: Any = kind(decoder_channels=width, **common)
    network.initialize()  # the library leaves these of its models as torch made them
    for module in network.modules():
        if isinstance(module, ASPPPooling):
            bias_in_place_of_normalisation(module, convolution=1, norm=2)
    body: nn.Module = network
    return body
