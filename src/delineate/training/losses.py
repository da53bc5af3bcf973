"""What training minimises: cross-entropy, soft Dice, their sum, and the focal loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from delineate.config import LossSettings
from delineate.errors import SettingsError
from delineate.types import Task

# Keeps the slope of (1 - p)**gamma finite at p = 1 when gamma is between 0 and 1
_SMALLEST_MISS = 1e-6


def build_loss(
    settings: LossSettings, *, classes: int, task: Task, ignore_index: int | None
) -> nn.Module:
    """The loss that ``settings`` describe, called as ``loss(logits, target)``.

    Args:
        settings: name, class weights, gamma.
        classes: classes, background included; 2 when ``task`` is ``binary``.
        task: ``multiclass`` takes ``classes`` logits, ``binary`` takes one (of class 1).
        ignore_index: pixels of this id take no part; None where there is no such id.

    Returns:
        a module that takes logits (N, K, H, W) of any float dtype and a target (N, H, W), int64
        or uint8, and gives a float32 scalar. All arithmetic is in float32. When no pixel takes
        part the loss is zero, and so is its gradient.

    Raises:
        SettingsError: there are not as many class weights as classes.
    """
    weights = settings.class_weights
    if weights is not None and len(weights) != classes:
        raise SettingsError(
            f"has {len(weights)} numbers for {classes} classes",
            where="class_weights",
            mend=f"Give {classes} numbers, in the order of the classes.",
        )
    if weights is not None and settings.name == "dice":
        raise SettingsError(
            "has no meaning for the Dice loss, which weighs each class the same",
            where="class_weights",
            mend="Leave it out, or use the loss ce+dice, ce or focal.",
        )
    pixels = settings.name != "dice"
    gamma = settings.focal_gamma if settings.name == "focal" else 0.0
    return SegmentationLoss(
        PixelTerm(weights, gamma) if pixels else None,
        with_dice=settings.name in ("dice", "ce+dice"),
        binary=task == "binary",
        ignore_index=ignore_index,
    )


class SegmentationLoss(nn.Module):
    """A term over pixels, a term over regions, or the sum of both, from one log-softmax.

    One logit z is read as the two logits (0, z): sigmoid(z) is the softmax of these, so that
    the binary task differs from the multiclass one in nothing else.

    Args:
        pixel_term: cross-entropy or focal, or None.
        with_dice: add :func:`soft_dice_loss`.
        binary: the logits have one plane.
        ignore_index: the id of pixels that take no part, or None.
    """

    def __init__(
        self,
        pixel_term: PixelTerm | None,
        *,
        with_dice: bool,
        binary: bool,
        ignore_index: int | None,
    ) -> None:
        super().__init__()
        self.pixel_term = pixel_term
        self.with_dice = with_dice
        self.binary = binary
        self.ignore_index = ignore_index

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Logits (N, K, H, W) and target (N, H, W) to a float32 scalar."""
        logits = logits.float()  # before anything is summed: float16 ends at 65504
        if self.binary:
            logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
        # Planes in memory order (channels-last logits are common) make every pass below faster
        log_p = logits.contiguous().log_softmax(dim=1)
        target = target.long()  # gather takes no other integers
        valid = torch.ones_like(target, dtype=torch.float32)
        if self.ignore_index is not None:
            kept = target != self.ignore_index
            valid = kept.float()
            target = target.where(kept, 0)
        loss = log_p.new_zeros(())
        if self.pixel_term is not None:
            loss = loss + self.pixel_term(log_p, target, valid)
        if self.with_dice:
            loss = loss + soft_dice_loss(log_p.exp(), target, valid)
        return loss


class PixelTerm(nn.Module):
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
        tensor = None if weights is None else torch.tensor(weights, dtype=torch.float32)
        self.register_buffer("weights", tensor, persistent=False)

    def forward(
        self, log_p: torch.Tensor, target: torch.Tensor, valid: torch.Tensor
    ) -> torch.Tensor:
        """log_p (N, K, H, W), target (N, H, W) below K, valid (N, H, W) 0 or 1; a scalar."""
        log_pt = log_p.gather(1, target.unsqueeze(1)).squeeze(1)
        weight = valid
        if self.weights is not None:
            weight = weight * self.weights.to(log_p.device)[target]
        if self.gamma > 0:
            miss = (-torch.expm1(log_pt)).clamp(min=_SMALLEST_MISS)
            log_pt = log_pt * miss**self.gamma
        # A pixel's weight is positive, so the clamp acts only where no pixel takes part
        return -(weight * log_pt).sum() / weight.sum().clamp(min=torch.finfo(torch.float32).tiny)


def soft_dice_loss(p: torch.Tensor, target: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """One minus the mean over classes of ``2 sum(p t) / (sum(p) + sum(t))``.

    The sums run over the whole batch: Dice of single crops jumps between 0 and 1 with objects of
    a few pixels. The mean is over the classes that the batch's truth holds. A class that is
    absent from it would be 1 - 0 / sum(p), flat at 1 until its last trace is gone; probability
    given to it is missing from the classes that are there, whose Dice it lowers. For the same
    reason the binary task counts both its classes: a batch without foreground still has a loss.

    Args:
        p: probabilities (N, K, H, W), float32.
        target: (N, H, W) int64, below K.
        valid: (N, H, W), 1 for pixels that take part and 0 for others.

    Returns:
        a scalar in 0..1; 0 when no pixel takes part.
    """
    valid = valid.unsqueeze(1)
    truth = torch.zeros_like(p).scatter_(1, target.unsqueeze(1), valid)
    dims = (0, 2, 3)
    truth_mass = truth.sum(dims)
    present = (truth_mass > 0).float()
    mass = (p * valid).sum(dims) + truth_mass
    dice = 2 * (p * truth).sum(dims) / mass.clamp(min=1.0)  # a present class has a mass from 1
    return (present * (1 - dice)).sum() / present.sum().clamp(min=1.0)
