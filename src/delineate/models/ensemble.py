"""Several trained networks as one: the mean of their probabilities."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from delineate.config import Normalisation


@dataclass(frozen=True)
class Member:
    """One network of an ensemble.

    Attributes:
        network: logits (N, K, H, W), or (N, 1, H, W) of a binary task, from normalised images.
        normalisation: of the raw pixels that it was trained with.
        temperature: its logits are divided by this before the softmax.
    """

    network: nn.Module
    normalisation: Normalisation
    temperature: float = 1.0


class Ensemble(nn.Module):
    """The average of the members' probabilities, as logits (Hansen and Salamon 1990).

    The logarithm of the mean probability is returned, or, where there is one logit, the logit of
    the mean probability: the softmax or sigmoid behind it gives the mean back. All is computed in
    logarithms, so that certain members neither overflow nor become infinite.

    Args:
        members: one or more, of the same classes.
        normalisation: of the images that the ensemble is given; each member is fed what its own
            normalisation would have made of the same pixels.
    """

    def __init__(self, members: Sequence[Member], normalisation: Normalisation) -> None:
        super().__init__()
        self.networks = nn.ModuleList(member.network for member in members)
        self._sharpness = [1 / member.temperature for member in members]
        for index, member in enumerate(members):
            scale, offset = _between(normalisation, member.normalisation)
            self.register_buffer(f"scale_{index}", scale)
            self.register_buffer(f"offset_{index}", offset)

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) float to logits (N, K, H, W), or (N, 1, H, W) where the members give one."""
        for_class: Tensor | None = None
        against: Tensor | None = None
        for index, (network, sharpness) in enumerate(
            zip(self.networks, self._sharpness, strict=True)
        ):
            scale = self.get_buffer(f"scale_{index}")
            offset = self.get_buffer(f"offset_{index}")
            logits = network(images * scale + offset) * sharpness
            if logits.shape[1] == 1:
                for_class = _added(for_class, F.logsigmoid(logits))
                against = _added(against, F.logsigmoid(-logits))
            else:
                for_class = _added(for_class, F.log_softmax(logits, dim=1))
        if for_class is None:
            raise ValueError("an ensemble needs a member")
        if against is not None:
            return for_class - against
        return for_class - math.log(len(self.networks))


def _added(total: Tensor | None, log_probabilities: Tensor) -> Tensor:
    """The logarithm of a sum of probabilities, one more added."""
    if total is None:
        return log_probabilities
    # torch.logaddexp, which the exporter turns into log(exp(a) + exp(b)), and that becomes -inf
    larger = torch.maximum(total, log_probabilities)
    return larger + torch.log1p(torch.exp(-(total - log_probabilities).abs()))


def _between(given: Normalisation, own: Normalisation) -> tuple[Tensor, Tensor]:
    """Scale and offset (1, C, 1, 1) from images normalised by ``given`` to those by ``own``."""
    if given.by == "image":  # the same for all
        return torch.ones(1, len(own.mean), 1, 1), torch.zeros(1, len(own.mean), 1, 1)
    mean, std, own_mean, own_std = (
        torch.tensor(values, dtype=torch.float64).reshape(1, -1, 1, 1)
        for values in (given.mean, given.std, own.mean, own.std)
    )
    return (std / own_std).float(), ((mean - own_mean) / own_std).float()


def mean_normalisation(members: Sequence[Normalisation]) -> Normalisation:
    """One normalisation for an ensemble, in the middle of its members'; all are of one kind."""
    count = len(members)
    if len({member.by for member in members}) > 1:
        raise ValueError("members are normalised in different ways")
    return Normalisation(
        by=members[0].by,
        mean=tuple(sum(values) / count for values in zip(*(m.mean for m in members), strict=True)),
        std=tuple(sum(values) / count for values in zip(*(m.std for m in members), strict=True)),
    )
