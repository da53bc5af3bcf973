"""The moving average of the weights, which generalises better than the last of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class MovingAverage:
    """An exponential moving average of weights and of batch normalisation's statistics.

    After step t the average moves by ``1 - d`` towards the weights, with
    ``d = min(decay, (1 + t) / (10 + t))`` (Tarvainen and Valpola 2017, arXiv:1703.01780; the
    smaller decay of the first steps is TensorFlow's), so that short trainings forget their start.

    Args:
        module: whose floating-point parameters and buffers are averaged; counters are copied.
        decay: d, from 0 below 1.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self._module = module
        self.averages = {name: value.detach().clone() for name, value in _state(module).items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after ``step`` steps."""
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        state = _state(self._module)
        floats = [name for name, value in state.items() if value.is_floating_point()]
        averages = [self.averages[name] for name in floats]
        torch._foreach_lerp_(averages, [state[name] for name in floats], weight)
        for name in state.keys() - set(floats):
            self.averages[name].copy_(state[name])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The module has the averages within the block, and its own weights again after it."""
        own = {name: value.detach().clone() for name, value in _state(self._module).items()}
        self._fill(self.averages)
        try:
            yield
        finally:
            self._fill(own)

    @torch.no_grad()
    def load(self, averages: Mapping[str, Tensor]) -> None:
        """Take the averages of a checkpoint; the names are those of the module's state."""
        for name, value in self.averages.items():
            value.copy_(averages[name])

    @torch.no_grad()
    def _fill(self, values: Mapping[str, Tensor]) -> None:
        for name, value in _state(self._module).items():
            value.copy_(values[name])


def _state(module: nn.Module) -> dict[str, Tensor]:
    return module.state_dict(keep_vars=False)
