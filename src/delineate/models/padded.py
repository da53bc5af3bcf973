"""Images of any size for a network that wants multiples of its stride."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Padded(nn.Module):
    """Pads images at the bottom and the right by replication, and crops the logits back.

    A network with deep supervision gives a list while it trains: the logits of full size, then
    coarser ones. The coarser ones are cropped as well, to the smallest grid that covers the image:
    logits of stride s become (N, K, ceil(H / s), ceil(W / s)). Whoever compares them with a mask
    resamples the mask to that grid.

    Args:
        network: (N, C, H, W) to (N, K, H, W) for H and W that are multiples of ``multiple``.
        multiple: the network's stride, pixels.
        coarsest: pixels of the image, by side, to one value of the coarsest map whose batch
            normalisation is trained; ``multiple`` when left out.
    """

    def __init__(self, network: nn.Module, multiple: int, coarsest: int | None = None) -> None:
        super().__init__()
        self.network = network
        self.multiple = multiple
        self.coarsest = multiple if coarsest is None else coarsest

    def forward(self, images: Tensor) -> Tensor | list[Tensor]:
        """(N, C, H, W) float of any size from 1 x 1, to logits (N, K, H, W); see the class."""
        height, width = images.shape[-2:]
        # In this form the exporter knows that the padded size is a multiple
        padded_h = (height + self.multiple - 1) // self.multiple * self.multiple
        padded_w = (width + self.multiple - 1) // self.multiple * self.multiple
        if not torch.compiler.is_compiling():
            if self.training and images.shape[0] == 1 and max(padded_h, padded_w) <= self.coarsest:
                # Batch normalisation cannot train on one value for each channel
                padded_w = self.coarsest + self.multiple
            if (height, width) == (padded_h, padded_w):
                logits: Tensor | list[Tensor] = self.network(images)
                return logits
        padding = (0, padded_w - width, 0, padded_h - height)
        logits = self.network(F.pad(images, padding, mode="replicate"))
        if not isinstance(logits, list):
            return logits[:, :, :height, :width]
        return [
            grid[:, :, : _ceil(height * grid.shape[2], padded_h)][
                ..., : _ceil(width * grid.shape[3], padded_w)
            ]
            for grid in logits
        ]


def _ceil(numerator: int, denominator: int) -> int:
    return -(-numerator // denominator)
