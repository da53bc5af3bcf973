"""The processes that train together: one, or several that each hold a part of every batch."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor, distributed

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """This process among those that train together.

    What passes between processes needs the process group that Fabric makes when it is launched.
    Every process has to make the same calls in the same order; one that is left alone in a call
    waits until the group's timeout.

    Attributes:
        rank: its number, from 0.
        size: how many there are.
        local_size: how many of them are on this machine.
        main: the rank of the one that decides, logs and writes.
    """

    rank: int = 0
    size: int = 1
    local_size: int = 1
    main: int = 0

    @property
    def is_main(self) -> bool:
        return self.rank == self.main

    @property
    def nodes(self) -> int:
        return self.size // self.local_size

    def total(self, tensor: Tensor) -> Tensor:
        """The sum of ``tensor`` over all processes, through which gradients flow.

        The gradient is summed over processes too, as if one objective were the sum of those of
        all processes.
        """
        if self.size == 1:
            return tensor
        summed: Tensor = _Sum.apply(tensor)
        return summed

    def gathered(self, tensor: Tensor) -> Tensor:
        """The ``tensor`` of every process, stacked by rank; equal bits everywhere, no gradient."""
        if self.size == 1:
            return tensor.detach()[None]
        own = tensor.detach().contiguous()
        found = [torch.empty_like(own) for _ in range(self.size)]
        distributed.all_gather(found, own)
        return torch.stack(found)

    def from_main(self, value: T) -> T:
        """What the main process has for ``value``, in all of them."""
        if self.size == 1:
            return value
        box = [value]
        distributed.broadcast_object_list(box, src=self.main)
        return box[0]

    def from_all(self, value: T) -> list[T]:
        """What each process has for ``value``, by rank."""
        if self.size == 1:
            return [value]
        box: list[T | None] = [None] * self.size
        distributed.all_gather_object(box, value)
        return cast("list[T]", box)

    def total_counts(self, counts: Int64[np.ndarray, "k k"]) -> Int64[np.ndarray, "k k"]:
        """The sum of a confusion matrix over all processes."""
        if self.size == 1:
            return counts
        device = torch.device("cuda" if distributed.get_backend() == "nccl" else "cpu")
        tensor = torch.from_numpy(counts).to(device)
        distributed.all_reduce(tensor)
        summed: np.ndarray = tensor.cpu().numpy()
        return summed


def world_from_environment() -> World:
    """This process as torchrun or :func:`delineate.training.launch.launch` started it.

    The only process there is where neither did.
    """
    return World(
        rank=int(os.environ.get("RANK", "0")),
        size=int(os.environ.get("WORLD_SIZE", "1")),
        local_size=int(os.environ.get("LOCAL_WORLD_SIZE", "1")),
    )


class _Sum(torch.autograd.Function):
    """A sum over processes, forwards and backwards."""

    @staticmethod
    def forward(_ctx: Any, tensor: Tensor) -> Tensor:
        summed = tensor.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(summed)
        return summed

    @staticmethod
    def backward(_ctx: Any, *gradients: Tensor) -> Tensor:
        summed = gradients[0].clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(summed)
        return summed
