"""A gradient that PyTorch gets wrong in bfloat16 on processors.

With torch 2.15 the gradient of the weights of a depthwise convolution that is dilated is memory
that was never written (1e30, or NaN), where it runs in bfloat16 with the channels last; the result
itself, the gradient of the input and float32 are right. Fast-SCNN and DeepLabV3+ have such
convolutions. Trainings that are lucky with the memory do not stop, but learn from noise.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class _InFloat32(nn.Conv2d):
    """A convolution that the autocast of processors does not reach."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return super().forward(x.float())


def spare_dilated_depthwise(network: nn.Module) -> None:
    """Let dilated depthwise convolutions run in float32, whatever the others run in.

    Args:
        network: changed in place; its weights and what it computes stay the same.
    """
    for module in network.modules():
        if (
            type(module) is nn.Conv2d
            and module.groups == module.in_channels > 1
            and max(module.dilation) > 1
        ):
            module.__class__ = _InFloat32
