"""The boundary loss."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F

from delineate.training.losses.batch import Batch, Term, mean_of_present, ratio


class BoundaryTerm(Term):
    """One minus a differentiable boundary F1 (Bokhovkin & Burnaev 2019, arXiv:1905.07852).

    The boundary of a class is what a maximum over 3 x 3 pixels adds to everything outside it, so
    it lies inside the class and is one pixel wide. Precision is the part of the predicted
    boundary within ``band_px`` of the true one, recall the part of the true boundary within
    ``band_px`` of the predicted one, distances being the larger of the two along the axes.
    Pixels that are ignored, or beyond the image, make no boundary and have none.

    As with :class:`~delineate.training.losses.regions.TverskyTerm` the sums run over the whole
    batch, not over single images as in the paper, and the mean over the classes whose truth has
    a boundary. One pixel is added to the predicted boundary and to its hits, which keeps the
    slope of the precision finite where no boundary is predicted yet.

    Args:
        band_px: how far apart two boundaries may lie and still agree, pixels, from 1.
    """

    def __init__(self, band_px: int) -> None:
        super().__init__()
        self.band_px = band_px

    def sums(self, batch: Batch) -> torch.Tensor:
        """Predicted boundary: near the true one, all; true one: near the predicted, all; (4, K)."""
        valid = batch.valid.unsqueeze(1)
        with torch.no_grad():
            true = _boundary(batch.truth, valid)
            true_band = _widest(true, self.band_px)
        predicted = _boundary(batch.p, valid)
        predicted_band = _widest(predicted, self.band_px)
        dims = (0, 2, 3)
        return torch.stack(
            [
                (predicted * true_band).sum(dims),
                predicted.sum(dims),
                (true * predicted_band).sum(dims),
                true.sum(dims),
            ]
        )

    def value(self, sums: torch.Tensor) -> torch.Tensor:
        """Sums (4, K) to a scalar in 0..1."""
        hits, predicted, found, true = sums.unbind()
        precision = (hits + 1) / (predicted + 1)
        recall = ratio(found, true)
        f1 = 2 * precision * recall / (precision + recall)
        return mean_of_present(1 - f1, true > 0)


def _boundary(planes: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """The inner boundary of planes (N, K, H, W) in 0..1; ``valid`` is (N, 1, H, W)."""
    outside = (1 - planes) * valid  # nothing ignored is outside, so none of it makes a boundary
    return (_widest(outside, 1) - outside) * valid


def _widest(planes: torch.Tensor, radius_px: int) -> torch.Tensor:
    """The maximum of planes (N, K, H, W), from 0, over squares of ``2 radius_px + 1`` pixels."""
    # Beyond the edge are zeros, which no maximum notices
    spread = F.pad(planes, (radius_px,) * 4)
    for axis in (2, 3):
        reach = 1
        while reach < 2 * radius_px + 1:  # the reach doubles, where pooling looks at every pixel
            shift = min(reach, 2 * radius_px + 1 - reach)
            spread = _LargerOfTwo.apply(spread, axis, shift)
            reach += shift
    return spread


class _LargerOfTwo(torch.autograd.Function):
    """The larger of each value and the one ``shift`` further along ``axis``.

    The gradient goes to the larger, and to the first if both are equal. On a CPU several of these
    take a fifth of the time of ``max_pool2d`` and its gradient.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, axis: int, shift: int) -> torch.Tensor:
        size = x.shape[axis] - shift
        first, second = x.narrow(axis, 0, size), x.narrow(axis, shift, size)
        ctx.axis, ctx.shift = axis, shift
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(first >= second)
        return torch.maximum(first, second)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (is_first,) = ctx.saved_tensors
        (gradient,) = gradients
        size = gradient.shape[ctx.axis]
        shape = list(gradient.shape)
        shape[ctx.axis] += ctx.shift
        to_first = gradient * is_first
        total = gradient.new_zeros(shape)
        total.narrow(ctx.axis, 0, size).copy_(to_first)
        total.narrow(ctx.axis, ctx.shift, size).add_(gradient - to_first)
        return total, None, None
