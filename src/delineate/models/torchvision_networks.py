"""DeepLabV3 as torchvision builds it.

Chen et al., "Rethinking Atrous Convolution for Semantic Image Segmentation", 2017
(arXiv:1706.05587). The auxiliary head on the third stage is torchvision's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torchvision.models import segmentation
from torchvision.models.segmentation.deeplabv3 import ASPPPooling

from delineate.config import ModelSettings
from delineate.errors import ModelError
from delineate.models.downscaled import enlarged
from delineate.models.encoders import load_encoder, weights_file
from delineate.models.pooling import bias_in_place_of_normalisation

ENCODERS = ("resnet101", "resnet50")
STRIDE = 8


class TorchvisionDeepLab(nn.Module):
    """A DeepLabV3 of torchvision that gives tensors where torchvision gives dictionaries.

    With an auxiliary classifier, ``forward`` returns a list in training mode: the logits of full
    size and those of the third stage, at an eighth of the size.

    Args:
        network: ``torchvision.models.segmentation.DeepLabV3``.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor | list[Tensor]:
        """(N, C, H, W), H and W multiples of 8, to logits (N, K, H, W)."""
        network: Any = self.network
        features: dict[str, Tensor] = network.backbone(images)
        logits = enlarged(network.classifier(features["out"]), STRIDE)
        if self.training and network.aux_classifier is not None:
            return [logits, network.aux_classifier(features["aux"])]
        return logits


def torchvision_deeplab(settings: ModelSettings, *, channels: int, logits: int) -> nn.Module:
    """``deeplabv3_resnet101`` or ``deeplabv3_resnet50`` from random weights or a file.

    Args:
        settings: ``encoder`` is one of the two; ``encoder_weights`` is none or a .safetensors
            file of torchvision's ResNet or of its DeepLabV3, whose backbone is taken.
        channels: of the images.
        logits: channels of the output.

    Raises:
        ModelError: weights that cannot be used.
    """
    kind = getattr(segmentation, f"deeplabv3_{settings.encoder}")
    network: Any = kind(
        weights=None,
        weights_backbone=None,
        num_classes=logits,
        aux_loss=settings.deep_supervision,
    )
    if channels != 3:
        first = nn.Conv2d(channels, 64, kernel_size=7, stride=2, padding=3, bias=False)
        nn.init.kaiming_normal_(first.weight, mode="fan_out", nonlinearity="relu")
        network.backbone.conv1 = first
    for module in network.modules():
        if isinstance(module, ASPPPooling):
            bias_in_place_of_normalisation(module, convolution=1, norm=2)
    path = _weights_file(settings)
    if path is not None:
        load_encoder(network.backbone, path, channels)
    return TorchvisionDeepLab(network)


def _weights_file(settings: ModelSettings) -> Path | None:
    path = weights_file(settings.encoder_weights)
    if path is None and settings.encoder_weights not in (None, "none"):
        raise ModelError(
            f"{settings.architecture} takes weights from a .safetensors file only",
            where=f"--encoder-weights {settings.encoder_weights}",
            mend="Name the file of torchvision's network, or use --architecture deeplabv3 with "
            f"--encoder {settings.encoder}, for which published weights are downloaded.",
        )
    return path
