"""A network that sees its image smaller than it is."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class Downscaled(nn.Module):
    """Averages blocks of pixels, runs a network on the result, and enlarges its logits.

    The cost of the network falls with the square of ``factor``; fine detail goes with it.

    Args:
        network: (N, C, H, W) to logits (N, K, H, W).
        factor: side of a block, pixels; height and width must be multiples of it.
    """

    def __init__(self, network: nn.Module, factor: int) -> None:
        super().__init__()
        self.network = network
        self.factor = factor

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) float to logits (N, K, H, W)."""
        logits: Tensor = self.network(F.avg_pool2d(images, self.factor))
        return F.interpolate(
            logits, scale_factor=float(self.factor), mode="bilinear", align_corners=False
        )
