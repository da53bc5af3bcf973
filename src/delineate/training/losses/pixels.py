"""Terms that are a mean over pixels: cross-entropy, focal, online hard examples."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from delineate.training.losses.batch import Batch, Term, above, ratio

# Keeps the slope of (1 - p)**gamma finite at p = 1 when gamma is between 0 and 1
_SMALLEST_MISS = 1e-6
# Of a float32, the upper 16 bits are sign, exponent and 7 bits of the mantissa: bins of the
# cross-entropy that are 1/128 octave wide, from 2**-24 to 2**17, beyond what float16 can give
_BINS_PER_OCTAVE = 128
_FIRST_BIN = (127 - 24) * _BINS_PER_OCTAVE
_BINS = 41 * _BINS_PER_OCTAVE


class PixelTerm(Term):
    """Cross-entropy, or the focal loss of Lin et al. 2017 (arXiv:1708.02002) for ``gamma`` > 0.

    A pixel of class t counts ``-w_t (1 - p_t)^gamma log p_t``, with p the softmax; the result is
    the sum over pixels divided by the sum of their weights w_t, as
    ``torch.nn.functional.cross_entropy`` has it. w_t is the paper's alpha_t.

    Args:
        weights: a weight for each class; None for 1.
        gamma: the focusing exponent; 0 is cross-entropy.
    """

    weights: torch.Tensor | None

    def __init__(self, weights: Sequence[float] | None, gamma: float = 0.0) -> None:
        super().__init__()
        self.gamma = gamma
        # Settings, not something learnt: no part of a checkpoint
        self.register_buffer("weights", _as_tensor(weights), persistent=False)

    def sums(self, batch: Batch) -> torch.Tensor:
        """The weighted loss and the weights, (2,)."""
        loss = -batch.log_pt
        if self.gamma > 0:
            miss = (-torch.expm1(batch.log_pt)).clamp(min=_SMALLEST_MISS)
            loss = loss * miss**self.gamma
        weight = _weight(batch, self.weights)
        return torch.stack([(weight * loss).sum(), weight.sum()])

    def value(self, sums: torch.Tensor) -> torch.Tensor:
        """Sums (2,) to a scalar."""
        return ratio(sums[0], sums[1])


class HardestTerm(Term):
    """Cross-entropy of the hardest pixels only: online hard example mining.

    From Shrivastava et al. 2016 (arXiv:1604.03540), with pixels as the examples. Hard is a large
    cross-entropy, without the class weights; the weights then count as in :class:`PixelTerm`.

    The pixels are not sorted but binned by their cross-entropy, in bins 0.8 % wide or narrower:
    the bins with the largest count in full, and the one at the edge with the part of it that
    makes up the share, the same part of each of its pixels. Histograms can be summed over
    processes, orders cannot.

    Args:
        weights: a weight for each class; None for 1.
        share: of the valid pixels of the batch that counts, above 0 and up to 1.
    """

    weights: torch.Tensor | None

    def __init__(self, weights: Sequence[float] | None, share: float) -> None:
        super().__init__()
        self.share = share
        self.register_buffer("weights", _as_tensor(weights), persistent=False)

    def sums(self, batch: Batch) -> torch.Tensor:
        """The weighted loss, the weights and the pixels of each bin, (3, bins)."""
        loss = -batch.log_pt
        weight = _weight(batch, self.weights)
        # Bits, not logarithms: exact on every device, and a NaN lands in the last bin
        bits = loss.detach().contiguous().view(torch.int32) >> 16
        index = (bits.long() - _FIRST_BIN).clamp(0, _BINS - 1).flatten(1)
        return torch.stack(
            [_histogram(index, values) for values in (weight * loss, weight, batch.valid)]
        )

    def value(self, sums: torch.Tensor) -> torch.Tensor:
        """Sums (3, bins) to a scalar."""
        loss, weight, count = sums.unbind()
        room = self.share * count.sum() - above(count)
        part = ratio(room, count).clamp(0.0, 1.0).detach()
        return ratio((part * loss).sum(), (part * weight).sum())


def _as_tensor(weights: Sequence[float] | None) -> torch.Tensor | None:
    return None if weights is None else torch.tensor(weights, dtype=torch.float32)


def _weight(batch: Batch, weights: torch.Tensor | None) -> torch.Tensor:
    if weights is None:
        return batch.valid
    return batch.valid * weights.to(batch.valid.device)[batch.target]


def _histogram(index: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Sums of ``values`` (N, H, W) by bin, (bins,); ``index`` is (N, H * W) int64."""
    # By image first: short sums lose less in float32, and the images run on several cores
    rows = values.new_zeros(index.shape[0], _BINS)
    return rows.scatter_add(1, index, values.flatten(1)).sum(0)
