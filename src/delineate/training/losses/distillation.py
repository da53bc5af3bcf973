"""What a student learns from a teacher beside the labels: soft classes, and where each class lies.

- pixels: the Kullback-Leibler divergence of the student's class probabilities from the teacher's at
  each pixel, both at a temperature T, times T squared (Hinton et al. 2015, arXiv:1503.02531).
- channels: for each class, the divergence of where the student sees it from where the teacher does,
  by a softmax over places (Shu et al. 2021, arXiv:2011.13256). Places are cells of 8 x 8 pixels,
  the resolution at which the paper compares.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from delineate.config import DistillationSettings

_CELL = 8


class DistillationLoss(nn.Module):
    """The weighted sum of both terms, over the classes that teacher and student share.

    Classes are shared by name. Where the student has others as well, both distributions are taken
    over the shared ones alone.

    Args:
        settings: weights and temperatures.
        pairs: (student's id, teacher's id) of each shared class, two or more.
    """

    def __init__(self, settings: DistillationSettings, pairs: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        self.settings = settings
        self.register_buffer("own", torch.tensor([own for own, _ in pairs]), persistent=False)
        self.register_buffer(
            "taught", torch.tensor([other for _, other in pairs]), persistent=False
        )
        self.own: Tensor
        self.taught: Tensor

    def forward(
        self, logits: Float[Tensor, "n k h w"], teacher: Float[Tensor, "n j h w"]
    ) -> Float[Tensor, ""]:
        """The loss of the student's logits (one plane for two classes) against the teacher's."""
        logits = logits.float()
        if logits.shape[1] == 1:
            logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
        student = logits.index_select(1, self.own).contiguous()
        wanted = teacher.float().index_select(1, self.taught)
        settings = self.settings
        loss = student.new_zeros(())
        if settings.pixels > 0:
            loss = loss + settings.pixels * self._pixels(student, wanted)
        if settings.channels > 0:
            loss = loss + settings.channels * self._channels(student, wanted)
        return loss

    def _pixels(self, student: Tensor, wanted: Tensor) -> Tensor:
        t = self.settings.temperature
        found, truth = (student / t).log_softmax(1), (wanted / t).log_softmax(1)
        return t**2 * (truth.exp() * (truth - found)).sum(1).mean()

    def _channels(self, student: Tensor, wanted: Tensor) -> Tensor:
        t = self.settings.channel_temperature
        found, truth = (
            (F.avg_pool2d(x, min(_CELL, *x.shape[2:])).flatten(2) / t).log_softmax(2)
            for x in (student, wanted)
        )
        return t**2 * (truth.exp() * (truth - found)).sum(2).mean()
