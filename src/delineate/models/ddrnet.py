"""DDRNet-23-slim: two branches of plain residual blocks that exchange their maps.

Hong et al., "Deep Dual-resolution Networks for Real-time and Accurate Semantic Segmentation of
Road Scenes", 2021 (arXiv:2101.06085): table 1 the layers, figure 5 the context module DAPPM.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from delineate.models.downscaled import enlarged
from delineate.models.pooling import PooledBatchNorm

STRIDE = 32
COARSEST = 64
_LOGITS_STRIDE = 8
_WIDTH = 32  # channels of the first stage
_CONTEXT = 128  # channels inside DAPPM
_HEAD = 64  # channels inside a segmentation head
_POOLS = ((5, 2), (9, 4), (17, 8))  # kernel and stride, pixels of the coarsest map


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Convolution without bias, then batch normalisation."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
    )


class _Residual(nn.Module):
    """A residual block without the ReLU behind its sum, which the next block applies."""

    def __init__(self, layers: nn.Sequential, shortcut: nn.Module) -> None:
        super().__init__()
        self.layers = layers
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Takes a map behind its ReLU and gives one before it."""
        result: Tensor = self.layers(x) + self.shortcut(x)
        return result


def _basic(inputs: int, outputs: int, stride: int = 1) -> _Residual:
    layers = nn.Sequential(
        _conv(inputs, outputs, 3, stride), nn.ReLU(inplace=True), _conv(outputs, outputs, 3)
    )
    same = stride == 1 and inputs == outputs
    return _Residual(layers, nn.Identity() if same else _conv(inputs, outputs, 1, stride))


def _stage(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(_basic(inputs, outputs, stride), nn.ReLU(), _basic(outputs, outputs))


def _bottleneck(channels: int, stride: int = 1) -> _Residual:
    """Twice the channels at its end."""
    layers = nn.Sequential(
        _conv(channels, channels, 1),
        nn.ReLU(inplace=True),
        _conv(channels, channels, 3, stride),
        nn.ReLU(inplace=True),
        _conv(channels, 2 * channels, 1),
    )
    return _Residual(layers, _conv(channels, 2 * channels, 1, stride))


def _context_branch(inputs: int, pool: nn.Module | None, *, pooled_to_one: bool) -> nn.Sequential:
    """Pool, normalise, ReLU, 1 x 1 convolution; no normalisation where one value is left."""
    norm = [] if pooled_to_one else [PooledBatchNorm(inputs)]
    return nn.Sequential(
        *([] if pool is None else [pool]),
        *norm,
        nn.ReLU(),
        nn.Conv2d(inputs, _CONTEXT, 1, bias=pooled_to_one),
    )


def _activated(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    """Normalisation and ReLU before the convolution, as everywhere in DAPPM."""
    return nn.Sequential(
        nn.BatchNorm2d(inputs),
        nn.ReLU(inplace=True),
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False),
    )


class DeepAggregationPyramidPooling(nn.Module):
    """DAPPM, figure 5 and equation 2: ever larger means, each added to the one before.

    Args:
        inputs: channels of the coarsest map.
        outputs: channels of the result.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        pools = [nn.AvgPool2d(kernel, stride, kernel // 2) for kernel, stride in _POOLS]
        self.first = _context_branch(inputs, None, pooled_to_one=False)
        self.branches = nn.ModuleList(
            [
                *(_context_branch(inputs, pool, pooled_to_one=False) for pool in pools),
                _context_branch(inputs, nn.AdaptiveAvgPool2d(1), pooled_to_one=True),
            ]
        )
        self.process = nn.ModuleList(_activated(_CONTEXT, _CONTEXT, 3) for _ in self.branches)
        self.compress = _activated(_CONTEXT * (len(self.branches) + 1), outputs, 1)
        self.shortcut = _activated(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, H, W)."""
        scales = [self.first(x)]
        for branch, process in zip(self.branches, self.process, strict=True):
            resized = F.interpolate(
                branch(x), size=x.shape[2:], mode="bilinear", align_corners=False
            )
            scales.append(process(resized + scales[-1]))
        result: Tensor = self.compress(torch.cat(scales, dim=1)) + self.shortcut(x)
        return result


def _head(inputs: int, logits: int) -> nn.Sequential:
    return nn.Sequential(
        nn.BatchNorm2d(inputs),
        nn.ReLU(),
        _conv(inputs, _HEAD, 3),
        nn.ReLU(inplace=True),
        nn.Conv2d(_HEAD, logits, 1),
    )


class DDRNet(nn.Module):
    """DDRNet-23-slim, with the high-resolution branch at an eighth of the size.

    With deep supervision, ``forward`` returns a list in training mode: the logits of full size,
    then those of the paper's auxiliary head, at an eighth, behind the first exchange.

    Args:
        channels: of the images.
        logits: channels of the output.
        deep_supervision: whether it has the auxiliary head.
    """

    def __init__(self, channels: int, logits: int, *, deep_supervision: bool = False) -> None:
        super().__init__()
        c = _WIDTH
        self.stem = nn.Sequential(
            *(_conv(channels, c, 3, 2), nn.ReLU(inplace=True)),
            *(_conv(c, c, 3, 2), nn.ReLU(inplace=True)),
            *(_stage(c, c), nn.ReLU()),
            *(_stage(c, 2 * c, 2), nn.ReLU()),
        )
        self.low3, self.low4 = _stage(2 * c, 4 * c, 2), _stage(4 * c, 8 * c, 2)
        self.low5 = _bottleneck(8 * c, 2)
        self.high3, self.high4 = _stage(2 * c, 2 * c), _stage(2 * c, 2 * c)
        self.high5 = _bottleneck(2 * c)
        self.up3, self.up4 = _conv(4 * c, 2 * c, 1), _conv(8 * c, 2 * c, 1)
        self.down3 = _conv(2 * c, 4 * c, 3, 2)
        self.down4 = nn.Sequential(
            _conv(2 * c, 4 * c, 3, 2), nn.ReLU(inplace=True), _conv(4 * c, 8 * c, 3, 2)
        )
        self.context = DeepAggregationPyramidPooling(16 * c, 4 * c)
        self.head = _head(4 * c, logits)
        self.auxiliary_head = _head(2 * c, logits) if deep_supervision else None

    def forward(self, images: Tensor) -> Tensor | list[Tensor]:
        """(N, C, H, W), H and W multiples of 32, to logits (N, K, H, W)."""
        eighth = self.stem(images)
        low, high = self.low3(eighth), self.high3(eighth)
        fused = low + self.down3(F.relu(high))
        high = high + enlarged(self.up3(F.relu(low)), 2)
        auxiliary = high
        high = self.high4(F.relu(high))
        low = self.low4(F.relu(fused))
        fused = low + self.down4(F.relu(high))
        high = high + enlarged(self.up4(F.relu(low)), 4)
        high = self.high5(F.relu(high))
        low = enlarged(self.context(self.low5(F.relu(fused))), 8)
        # The coarsest map rounds up where the padded size is an odd multiple of 32
        low = low.narrow(2, 0, high.shape[2]).narrow(3, 0, high.shape[3])
        logits = enlarged(self.head(high + low), _LOGITS_STRIDE)
        if self.training and self.auxiliary_head is not None:
            return [logits, self.auxiliary_head(auxiliary)]
        return logits
