"""How far a training is, and what the learning rate is there."""

from __future__ import annotations

import math
from dataclasses import dataclass


def learning_rate_factor(progress: float, warmup: float) -> float:
    """Linear warm-up, then a cosine to zero (Loshchilov and Hutter 2017).

    Args:
        progress: 0 at the start, 1 at the end.
        warmup: share of the training spent warming up.
    """
    progress = min(max(progress, 0.0), 1.0)
    if progress < warmup:
        return max(progress / warmup, 0.01)
    return 0.5 * (1 + math.cos(math.pi * (progress - warmup) / max(1 - warmup, 1e-9)))


@dataclass
class StepCount:
    """A training of a fixed number of steps.

    Attributes:
        steps: in all.
        first_step: steps done when the loop of this process began.
        began_s: seconds that the run had taken by then; the set-up is no part of a step.
    """

    steps: int
    first_step: int = 0
    began_s: float = 0.0

    def progress(self, step: int, elapsed_s: float) -> float:  # noqa: ARG002
        return step / self.steps

    def remaining_s(self, step: int, elapsed_s: float) -> float:
        done = max(step - self.first_step, 1)
        return (elapsed_s - self.began_s) / done * (self.steps - step)


@dataclass
class TimeBudget:
    """A training of a fixed time from start to bundle.

    Attributes:
        budget_s: seconds in all.
        reserve_s: seconds kept for what follows the last step: the last validation and the
            export. Corrected when a validation has been timed.
    """

    budget_s: float
    reserve_s: float

    def progress(self, step: int, elapsed_s: float) -> float:  # noqa: ARG002
        # however short the budget is, a tenth of it goes into steps
        return elapsed_s / max(self.budget_s - self.reserve_s, 0.1 * self.budget_s)

    def remaining_s(self, step: int, elapsed_s: float) -> float:  # noqa: ARG002
        return max(self.budget_s - elapsed_s, 0.0)
