"""A network that sees its image smaller than it is."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class Downscaled(nn.Module):
    """Averages blocks of pixels, runs a network on the result, and enlarges its logits.

    The cost of the network falls with the square of ``factor``; fine detail goes with it. Of a
    list of logits (deep supervision) the first is enlarged, and the coarser ones stay as they are.

    Args:
        network: (N, C, H, W) to logits (N, K, H, W).
        factor: side of a block, pixels; height and width must be multiples of it.
    """

    def __init__(self, network: nn.Module, factor: int) -> None:
        super().__init__()
        self.network = network
        self.factor = factor

    def forward(self, images: Tensor) -> Tensor | list[Tensor]:
        """(N, C, H, W) float to logits (N, K, H, W), and coarser ones where there are any."""
        logits: Tensor | list[Tensor] = self.network(F.avg_pool2d(images, self.factor))
        if isinstance(logits, list):
            return [enlarged(logits[0], self.factor), *logits[1:]]
        return enlarged(logits, self.factor)


def enlarged(x: Tensor, factor: int) -> Tensor:
    """(N, C, H, W) to (N, C, factor H, factor W), bilinear, by pixel areas."""
    return F.interpolate(x, scale_factor=float(factor), mode="bilinear", align_corners=False)
