"""Terms that compare regions, class by class: Dice, Tversky, Lovász-softmax."""

from __future__ import annotations

import torch

from delineate.training.losses.batch import Batch, Term, above, mean_of_present

# Pixels; bounds the slope where a class has no probability left and misses cost nothing
_LEAST_MASS = 1e-6
_BINS = 1024


class TverskyTerm(Term):
    """One minus the Tversky index (Salehi et al. 2017, arXiv:1706.05721), mean over classes.

    The index of a class is ``tp / (tp + a fp + b fn)`` with ``tp = sum(p t)``,
    ``fp = sum(p (1 - t))``, ``fn = sum((1 - p) t)`` and a = 1 - b. For b = 1/2 it is the soft
    Dice ``2 sum(p t) / (sum(p) + sum(t))``.

    The sums run over the whole batch: Dice of single crops jumps between 0 and 1 with objects of
    a few pixels. The mean is over the classes that the batch's truth holds. A class that is
    absent from it would be 1 - 0 / sum(p), flat at 1 until its last trace is gone; probability
    given to it is missing from the classes that are there, whose index it lowers. For the same
    reason the binary task counts both its classes: a batch without foreground still has a loss.

    Args:
        false_negatives: b, the weight of missed pixels, 0 to 1.
    """

    def __init__(self, false_negatives: float) -> None:
        super().__init__()
        self.false_negatives = false_negatives

    def sums(self, batch: Batch) -> torch.Tensor:
        """Overlap, mass of the prediction and mass of the truth of each class, (3, K)."""
        return batch.overlap

    def value(self, sums: torch.Tensor) -> torch.Tensor:
        """Sums (3, K) to a scalar in 0..1."""
        hits, mass, truth = sums.unbind()
        # tp + (1 - b) (sum(p) - tp) + b (sum(t) - tp)
        whole = (1 - self.false_negatives) * mass + self.false_negatives * truth
        return mean_of_present(1 - hits / whole.clamp(min=_LEAST_MASS), truth > 0)


class LovaszTerm(Term):
    """The Lovász-softmax loss of Berman et al. 2018 (arXiv:1705.08790) over the batch.

    The error of a pixel for class k is ``|t - p|``, t being 1 in the class and 0 outside. The
    Lovász extension of the Jaccard loss, which the paper computes by sorting the errors, is the
    mean over thresholds from 0 to 1 of the Jaccard loss with the pixels wrong whose error is
    above the threshold: with P pixels in the class, F of them wrong, and G wrong ones outside,
    ``1 - (P - F) / (P + G)``. Here the mean is taken over 1024 bins of thresholds, with F and G
    averaged within the bin. The result differs from the paper's by less than 1/1024, usually by
    far less; it takes linear time, and its histograms can be summed over processes. The mean is
    over the classes that the batch's truth holds.
    """

    def sums(self, batch: Batch) -> torch.Tensor:
        """Histograms of the errors, (2, K, 2, bins).

        First how many pixels are in a bin, then by how much, in bins, they exceed its lower edge;
        the third axis is outside and inside the class.
        """
        inside = batch.truth
        valid = batch.valid.unsqueeze(1)
        place = (inside - batch.p).abs() * _BINS
        # The bounds after the conversion: a NaN becomes any integer
        index = place.detach().long().clamp_(0, _BINS - 1)
        excess = (place - index) * valid
        index = (index + _BINS * inside.long()).flatten(2)
        # By image first: short sums lose less in float32, and the planes run on several cores
        rows = place.new_zeros((*index.shape[:2], 2 * _BINS))
        count = rows.scatter_add(2, index, valid.expand_as(place).flatten(2))
        part = rows.scatter_add(2, index, excess.flatten(2))
        return torch.stack([count.sum(0), part.sum(0)]).view(2, -1, 2, _BINS)

    def value(self, sums: torch.Tensor) -> torch.Tensor:
        """Sums (2, K, 2, bins) to a scalar in 0..1."""
        count, part = sums.unbind()
        wrong = above(count) + part
        outside, inside = wrong.unbind(1)  # (K, bins) each
        size = count[:, 1].sum(-1)
        hits = size.unsqueeze(1) - inside
        jaccard = hits / (size.unsqueeze(1) + outside).clamp(min=1.0)
        return mean_of_present(1 - jaccard.mean(-1), size > 0)
