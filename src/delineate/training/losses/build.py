"""Settings to a loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import nn

from delineate.config import LossSettings, LossTerm
from delineate.errors import SettingsError
from delineate.training.losses.batch import Batch, Term
from delineate.training.losses.boundary import BoundaryTerm
from delineate.training.losses.pixels import HardestTerm, PixelTerm
from delineate.training.losses.regions import LovaszTerm, TverskyTerm
from delineate.types import Task

Total = Callable[[torch.Tensor], torch.Tensor]


def build_loss(
    settings: LossSettings,
    *,
    classes: int,
    task: Task,
    ignore_index: int | None,
    total: Total | None = None,
) -> nn.Module:
    """The loss that ``settings`` describe, called as ``loss(logits, target)``.

    Args:
        settings: terms and their weights, class weights, and the numbers of single terms.
        classes: classes, background included; 2 when ``task`` is ``binary``.
        task: ``multiclass`` takes ``classes`` logits, ``binary`` takes one (of class 1).
        ignore_index: pixels of this id take no part; None where there is no such id.
        total: sums a float32 vector over all processes that share a batch, differentiably, the
            gradient being summed over them as well: an all-reduce forwards and backwards. Every
            process then has the loss of the whole batch, and the mean over processes of the
            gradients of their weights is its gradient. It is called once in each evaluation.
            None for one process.

    Returns:
        a :class:`SegmentationLoss`.

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
    return SegmentationLoss(
        [(_term(term, settings), weight) for term, weight in settings.terms.items()],
        binary=task == "binary",
        ignore_index=ignore_index,
        total=total,
    )


def _term(term: LossTerm, settings: LossSettings) -> Term:
    match term:
        case "ce":
            return PixelTerm(settings.class_weights)
        case "focal":
            return PixelTerm(settings.class_weights, settings.focal_gamma)
        case "ohem":
            return HardestTerm(settings.class_weights, settings.ohem_share)
        case "dice":
            return TverskyTerm(0.5)
        case "tversky":
            return TverskyTerm(settings.tversky_false_negatives)
        case "lovasz":
            return LovaszTerm()
        case "boundary":
            return BoundaryTerm(settings.boundary_px)


class SegmentationLoss(nn.Module):
    """A weighted sum of terms, which share one log-softmax.

    One logit z is read as the two logits (0, z): sigmoid(z) is the softmax of these, so that
    the binary task differs from the multiclass one in nothing else.

    Args:
        terms: each with its weight.
        binary: the logits have one plane.
        ignore_index: the id of pixels that take no part, or None.
        total: see :func:`build_loss`.
    """

    def __init__(
        self,
        terms: Sequence[tuple[Term, float]],
        *,
        binary: bool,
        ignore_index: int | None,
        total: Total | None,
    ) -> None:
        super().__init__()
        self.terms = nn.ModuleList(term for term, _ in terms)
        self.weights = tuple(weight for _, weight in terms)
        self.binary = binary
        self.ignore_index = ignore_index
        self.total = total

    def forward(
        self, logits: torch.Tensor | Sequence[torch.Tensor], target: torch.Tensor
    ) -> torch.Tensor:
        """The loss of one output, or of several by deep supervision.

        Several outputs weigh 1, 1/2, 1/4 and so on, divided by the sum of these, as in nnU-Net
        (Isensee et al. 2021, doi:10.1038/s41592-020-01008-z); see :func:`coarser` for the truth
        of the coarser ones.

        Args:
            logits: (N, K, H, W) of any float dtype; or a sequence of such, the first of the
                target's size, the others coarser and coarser.
            target: (N, H, W), int64 or uint8.

        Returns:
            a float32 scalar. All arithmetic is in float32. When no pixel takes part the loss is
            zero, and so is its gradient.
        """
        levels = [logits] if isinstance(logits, torch.Tensor) else logits
        target = target.long()  # gather takes no other integers
        valid = torch.ones_like(target, dtype=torch.float32)
        if self.ignore_index is not None:
            kept = target != self.ignore_index
            valid = kept.float()
            target = target.where(kept, 0)
        pairs = list(zip(cast("Sequence[Term]", self.terms), self.weights, strict=True))
        parts: list[torch.Tensor] = []
        for number, level in enumerate(levels):
            truth = (target, valid) if number == 0 else coarser(target, valid, like=level)
            batch = Batch(self._log_softmax(level), *truth)
            parts += [term.sums(batch) for term, _ in pairs]
        if self.total is not None:
            parts = _summed(parts, self.total)
        loss = parts[0].new_zeros(())
        halvings = [0.5**number for number in range(len(levels))]
        for number, part in enumerate(parts):
            level_number, term_number = divmod(number, len(pairs))
            term, weight = pairs[term_number]
            loss = loss + weight * halvings[level_number] / sum(halvings) * term.value(part)
        return loss

    def _log_softmax(self, logits: torch.Tensor) -> torch.Tensor:
        logits = logits.float()  # before anything is summed: float16 ends at 65504
        if self.binary:
            logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
        # Planes in memory order (channels-last logits are common) make every later pass faster
        return logits.contiguous().log_softmax(dim=1)


def coarser(
    target: torch.Tensor, valid: torch.Tensor, *, like: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Truth at the resolution of a coarser output, from the nearest pixel to each pixel's centre.

    The stride between the two is a power of two, as in all networks here, the same along both
    axes, and the first pixels of both cover the same corner. What the output has beyond the
    truth, because the image was padded to a multiple at the bottom and the right, is invalid.

    Args:
        target: (N, H, W).
        valid: (N, H, W), 1 for pixels that take part.
        like: (N, K, h, w), h of at most ``H / stride`` rounded up, or a little more, and so w.

    Returns:
        target and valid, (N, h, w).
    """
    (height, width), (rows, columns) = target.shape[-2:], like.shape[-2:]
    factor = max(-(-height // rows), -(-width // columns))
    stride = 1 << (factor - 1).bit_length()
    y = torch.arange(rows, device=target.device) * stride + stride // 2
    x = torch.arange(columns, device=target.device) * stride + stride // 2
    inside = (y < height).unsqueeze(1) & (x < width)
    y, x = y.clamp(max=height - 1).unsqueeze(1), x.clamp(max=width - 1)
    return target[:, y, x], valid[:, y, x] * inside


def _summed(parts: Sequence[torch.Tensor], total: Total) -> list[torch.Tensor]:
    """Each of ``parts`` summed over processes, in one call."""
    together = total(torch.cat([part.flatten() for part in parts]))
    pieces = torch.split(together, [part.numel() for part in parts])
    return [piece.view_as(part) for piece, part in zip(pieces, parts, strict=True)]
