"""A temperature that makes a trained network as sure as it is right.

Guo, Pleiss, Sun, Weinberger, *On Calibration of Modern Neural Networks* (ICML 2017,
arXiv:1706.04599): all logits are divided by one number, fitted on images that training did not
see. Which class is ahead stays the same.
"""

from __future__ import annotations

import math

from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

BOUNDS = (0.05, 20.0)  # beyond them, a few wrong or right pixels would decide
_STEPS = 25  # from six units of log temperature to 0.00004


class Tempered(nn.Module):
    """The logits of ``module`` divided by ``temperature``."""

    def __init__(self, module: nn.Module, temperature: float) -> None:
        super().__init__()
        self.module = module
        self.factor = 1 / temperature

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.module(x)
        return logits * self.factor


def best_temperature(logits: Float[Tensor, "m k"], truth: Int64[Tensor, " m"]) -> float:
    """The temperature within :data:`BOUNDS` under which ``truth`` is most likely.

    The loss is convex in the temperature's inverse, so a golden-section search finds its least.

    Args:
        logits: (M, K), one row for each pixel, M at least 1.
        truth: (M,) class ids.
    """

    exact = logits.double()  # near the least, float32 sees no slope

    def loss(log_temperature: float) -> float:
        return float(F.cross_entropy(exact * math.exp(-log_temperature), truth))

    low, high = (math.log(bound) for bound in BOUNDS)
    share = (math.sqrt(5) - 1) / 2
    left, right = high - share * (high - low), low + share * (high - low)
    at_left, at_right = loss(left), loss(right)
    for _ in range(_STEPS):
        if at_left < at_right:
            high, right, at_right = right, left, at_left
            left = high - share * (high - low)
            at_left = loss(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + share * (high - low)
            at_right = loss(right)
    return math.exp((low + high) / 2)
