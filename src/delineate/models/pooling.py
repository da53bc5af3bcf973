"""Pooled branches that train on one image and export with free height and width."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class GridMean(nn.Module):
    """What ``nn.AdaptiveAvgPool2d(cells)`` computes, in operations that ONNX has.

    The sides are cut into ``cells`` windows, window i from floor(i L / cells) to
    ceil((i + 1) L / cells); two matrix products take their means.

    Args:
        cells: windows along each side.
    """

    def __init__(self, cells: int) -> None:
        super().__init__()
        self.cells = cells

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, cells, cells)."""
        rows, columns = _window_weights(x, 2, self.cells), _window_weights(x, 3, self.cells)
        return torch.matmul(torch.matmul(rows, x), columns.transpose(0, 1))


def _window_weights(x: Tensor, dim: int, cells: int) -> Tensor:
    """(cells, x.shape[dim]): in each row 1 / the window's length inside the window, else 0."""
    length = x.shape[dim]  # symbolic in an export
    cell = torch.arange(cells, device=x.device).unsqueeze(1)
    position = torch.arange(length, device=x.device).unsqueeze(0)
    first = cell * length // cells
    end = ((cell + 1) * length + cells - 1) // cells
    inside = (position >= first) & (position < end)
    return inside.to(x.dtype) / (end - first).to(x.dtype)


class PyramidBranch(nn.Module):
    """One branch of a pyramid pooling module: mean over a grid, a layer, back to the size.

    Zhao et al., "Pyramid Scene Parsing Network", CVPR 2017 (arXiv:1612.01105), figure 3.

    Args:
        cells: windows along each side.
        layer: (N, C, cells, cells) to (N, D, cells, cells).
        align_corners: of the bilinear interpolation.
    """

    def __init__(self, cells: int, layer: nn.Module, *, align_corners: bool) -> None:
        super().__init__()
        # The mean of the whole is one operation everywhere
        self.pool = nn.AdaptiveAvgPool2d(1) if cells == 1 else GridMean(cells)
        self.layer = layer
        self.align_corners = align_corners

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, D, H, W)."""
        pooled = self.layer(self.pool(x))
        return F.interpolate(
            pooled, size=x.shape[2:], mode="bilinear", align_corners=self.align_corners
        )


class PooledBatchNorm(nn.BatchNorm2d):
    """Batch normalisation that takes its running statistics where a batch has one value.

    Maps pooled over windows shrink to one value for each channel in small images; of a batch of
    one nothing is left to normalise over.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W), of any size from 1 x 1, to the same shape."""
        if self.training and input.shape[0] * input.shape[2] * input.shape[3] == 1:
            return F.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return super().forward(input)


def bias_in_place_of_normalisation(layers: nn.Sequential, convolution: int, norm: int) -> None:
    """Give a convolution behind a global mean a bias in place of its batch normalisation.

    Such a branch has one value for each image and channel: normalised over a batch of one it
    fails, and over a small batch its statistics are noise (Detectron2 does the same).

    Args:
        layers: changed in place.
        convolution: index of the convolution.
        norm: index of its batch normalisation.
    """
    layer: Any = layers[convolution]
    layer.bias = nn.Parameter(torch.zeros(layer.out_channels))
    layers[norm] = nn.Identity()
