"""What every term of a loss looks at, computed once for all of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import nn


@dataclass(frozen=True)
class Batch:
    """Predictions and truth of one batch at one resolution.

    Attributes:
        log_p: log of the softmax, (N, K, H, W) float32.
        target: class ids below K, (N, H, W) int64; any class where ``valid`` is 0.
        valid: (N, H, W) float32, 1 for pixels that take part and 0 for the others.
    """

    log_p: torch.Tensor
    target: torch.Tensor
    valid: torch.Tensor

    @cached_property
    def log_pt(self) -> torch.Tensor:
        """Log-probability of the true class, (N, H, W)."""
        return self.log_p.gather(1, self.target.unsqueeze(1)).squeeze(1)

    @cached_property
    def p(self) -> torch.Tensor:
        """Probabilities, (N, K, H, W)."""
        return self.log_p.exp()

    @cached_property
    def truth(self) -> torch.Tensor:
        """One plane for each class, (N, K, H, W): 1 in its pixels, 0 elsewhere and if ignored."""
        planes = torch.zeros_like(self.log_p, requires_grad=False)
        return planes.scatter_(1, self.target.unsqueeze(1), self.valid.unsqueeze(1))

    @cached_property
    def overlap(self) -> torch.Tensor:
        """``sum(p t)``, ``sum(p)`` and ``sum(t)`` of each class over valid pixels, (3, K)."""
        dims = (0, 2, 3)
        hits = (self.p * self.truth).sum(dims)
        mass = (self.p * self.valid.unsqueeze(1)).sum(dims)
        return torch.stack([hits, mass, self.truth.sum(dims)])


class Term(nn.Module, ABC):
    """One term of a loss, in two steps, so that several processes can share one batch.

    What a term knows of its pixels is a short vector of sums. The sums of all processes are
    added before the term's value is computed from them: the value, and with a sum that can be
    differentiated the gradient too, are those of the whole batch in one process.
    """

    @abstractmethod
    def sums(self, batch: Batch) -> torch.Tensor:
        """Sums over the pixels of this process, float32, of any shape."""

    @abstractmethod
    def value(self, sums: torch.Tensor) -> torch.Tensor:
        """The term, a scalar, from sums of the same shape over all pixels there are.

        It is 0, and so is its gradient, when no pixel takes part.
        """


def ratio(numerator: torch.Tensor, denominator: torch.Tensor) -> torch.Tensor:
    """Numerator over denominator; where that is not positive, the numerator, which is 0 there."""
    return numerator / denominator.where(denominator > 0, 1.0)


def mean_of_present(values: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
    """Mean of ``values`` (K,) over the classes that are ``present`` (K,) bool; 0 without any."""
    kept = values.where(present, 0.0)
    return kept.sum() / present.sum().clamp(min=1)


def above(counts: torch.Tensor) -> torch.Tensor:
    """For each bin of a histogram (..., B), the count in the bins above it."""
    return counts.flip(-1).cumsum(-1).flip(-1) - counts
