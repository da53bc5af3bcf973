"""Fast-SCNN: a small network whose branches share their first layers.

Poudel, Liwicki and Cipolla, "Fast-SCNN: Fast Semantic Segmentation Network", BMVC 2019
(arXiv:1902.04502): table 1 the layers, table 2 the bottleneck, table 3 the fusion.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from delineate.models.downscaled import enlarged
from delineate.models.pooling import PyramidBranch

STRIDE = 32
_LOGITS_STRIDE = 8
_EXPANSION = 6
_CELLS = (1, 2, 3, 6)
_DROPOUT = 0.1


def _conv(
    inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1, relu: bool = True
) -> nn.Sequential:
    """Convolution without bias, batch normalisation, and ReLU where wanted."""
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    return nn.Sequential(*layers, *([nn.ReLU(inplace=True)] if relu else []))


def _separable(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """DSConv: depth-wise and point-wise, without a non-linearity between them as in the paper."""
    return nn.Sequential(
        _conv(inputs, inputs, 3, stride=stride, groups=inputs, relu=False),
        _conv(inputs, outputs, 1),
    )


class _Bottleneck(nn.Module):
    """The inverted residual of MobileNetV2, with a residual where shapes allow it."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        inner = inputs * _EXPANSION
        self.layers = nn.Sequential(
            _conv(inputs, inner, 1),
            _conv(inner, inner, 3, stride=stride, groups=inner),
            _conv(inner, outputs, 1, relu=False),
        )
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.layers(x)
        return x + result if self.residual else result


def _bottlenecks(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        _Bottleneck(inputs, outputs, stride),
        _Bottleneck(outputs, outputs, 1),
        _Bottleneck(outputs, outputs, 1),
    )


class _PyramidPooling(nn.Module):
    """Means over four grids beside the map itself; the mean of the whole is not normalised."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        width = channels // len(_CELLS)
        whole = nn.Sequential(nn.Conv2d(channels, width, 1), nn.ReLU(inplace=True))
        self.branches = nn.ModuleList(
            PyramidBranch(
                cells, whole if cells == 1 else _conv(channels, width, 1), align_corners=False
            )
            for cells in _CELLS
        )
        self.fuse = _conv(2 * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.fuse(torch.cat([x, *(b(x) for b in self.branches)], dim=1))
        return result


class _Fusion(nn.Module):
    """Table 3: the coarse map, four times enlarged, is added to the fine one."""

    def __init__(self, fine: int, coarse: int, outputs: int) -> None:
        super().__init__()
        self.depthwise = nn.Sequential(
            nn.Conv2d(coarse, outputs, 3, padding=4, dilation=4, groups=coarse, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        )
        self.coarse = _conv(outputs, outputs, 1, relu=False)
        self.fine = _conv(fine, outputs, 1, relu=False)

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        return F.relu(self.fine(fine) + self.coarse(self.depthwise(enlarged(coarse, 4))))


class FastSCNN(nn.Module):
    """The network of the paper's table 1.

    With deep supervision, ``forward`` returns a list in training mode: the logits of full size,
    then those of the two auxiliary heads of the paper's section 4, behind "learning to
    downsample" (an eighth of the size) and the global features (a thirty-second).

    Args:
        channels: of the images.
        logits: channels of the output.
        deep_supervision: whether it has the auxiliary heads.
    """

    def __init__(self, channels: int, logits: int, *, deep_supervision: bool = False) -> None:
        super().__init__()
        self.downsample = nn.Sequential(
            _conv(channels, 32, 3, stride=2), _separable(32, 48, 2), _separable(48, 64, 2)
        )
        self.features = nn.Sequential(
            _bottlenecks(64, 64, 2),
            _bottlenecks(64, 96, 2),
            _bottlenecks(96, 128, 1),
            _PyramidPooling(128),
        )
        self.fusion = _Fusion(fine=64, coarse=128, outputs=128)
        self.classifier = nn.Sequential(
            _separable(128, 128),
            _separable(128, 128),
            nn.Dropout(_DROPOUT),
            nn.Conv2d(128, logits, 1),
        )
        self.auxiliary_heads = nn.ModuleList(
            _auxiliary(width, logits) for width in ((64, 128) if deep_supervision else ())
        )

    def forward(self, images: Tensor) -> Tensor | list[Tensor]:
        """(N, C, H, W), H and W multiples of 32, to logits (N, K, H, W)."""
        fine = self.downsample(images)
        coarse = self.features(fine)
        logits = enlarged(self.classifier(self.fusion(fine, coarse)), _LOGITS_STRIDE)
        if self.training and len(self.auxiliary_heads) > 0:
            maps = (fine, coarse)
            return [logits, *(h(x) for h, x in zip(self.auxiliary_heads, maps, strict=True))]
        return logits


def _auxiliary(channels: int, logits: int) -> nn.Sequential:
    return nn.Sequential(_conv(channels, 32, 3), nn.Dropout(_DROPOUT), nn.Conv2d(32, logits, 1))
