"""Batch normalisation over the batch of all processes, on any device.

PyTorch's own ``SyncBatchNorm`` refuses the CPU, and its conversion drops the activation that
timm's layers carry.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn
from torch.nn import functional as F

from delineate.errors import ModelError
from delineate.models.pooling import PooledBatchNorm
from delineate.training.world import World

_SHARED = (nn.BatchNorm2d, PooledBatchNorm, BatchNormAct2d)


class SynchronisedBatchNorm(PooledBatchNorm):
    """A batch normalisation whose training statistics are those of all processes together.

    Ioffe and Szegedy 2015 (arXiv:1502.03167). The means and variances of the processes are
    merged as in Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for
    computing sample variances" (1979): no difference of large squares is taken. In evaluation,
    and for tensors without memory, it is the layer it was made from; its state's names are too.

    Args:
        plain: the layer whose parameters and buffers this one takes over.
        world: the processes; in training each gives a tensor of the same shape.
    """

    def __init__(self, plain: nn.BatchNorm2d, world: World) -> None:
        tracked = plain.track_running_stats
        super().__init__(
            plain.num_features,
            plain.eps,
            plain.momentum,
            track_running_stats=tracked,
            device="meta",
        )
        self.weight, self.bias = plain.weight, plain.bias
        self.running_mean, self.running_var = plain.running_mean, plain.running_var
        self.num_batches_tracked = plain.num_batches_tracked
        self.train(plain.training)
        self.world = world
        self.alone = False
        if isinstance(plain, BatchNormAct2d):  # the same names, as an activation may have weights
            self.drop, self.act = plain.drop, plain.act
        else:
            self.drop = self.act = nn.Identity()

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape and dtype; the statistics are float32."""
        if not self.training or self.alone or input.is_meta:
            y = super().forward(input)
        else:
            y = self._normalised(input)
        activated: Tensor = self.act(self.drop(y))
        return activated

    def _normalised(self, x: Tensor) -> Tensor:
        y, mean, variance = _Normalise.apply(x, self.weight, self.bias, self.eps, self.world)
        if self.running_mean is None or self.running_var is None:
            return y  # type: ignore[no-any-return]
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        momentum = self.momentum
        if momentum is None:  # the mean over all batches so far
            momentum = 1 / float(self.num_batches_tracked)
        count = x.numel() // x.shape[1] * self.world.size
        with torch.no_grad():
            self.running_mean.lerp_(mean, momentum)
            self.running_var.lerp_(variance * (count / max(count - 1, 1)), momentum)
        return y  # type: ignore[no-any-return]


class _Normalise(torch.autograd.Function):
    """(x - mean) / sqrt(variance + eps) * weight + bias over all processes."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, world: World
    ) -> tuple[Tensor, Tensor, Tensor]:
        variance, mean = torch.var_mean(x.float(), dim=(0, 2, 3), correction=0)
        # float64: a channel's few hundred numbers cost nothing, and merging them then adds no error
        means, variances = world.gathered(torch.stack([mean, variance]).double()).unbind(1)
        merged = means.mean(0)
        mean = merged.float()
        variance = (variances.mean(0) + (means - merged).square().mean(0)).float()
        ctx.save_for_backward(x, weight, mean, variance)
        ctx.eps, ctx.world = eps, world
        ctx.mark_non_differentiable(mean, variance)
        y = F.batch_norm(x, mean, variance, weight, bias, training=False, eps=eps)
        return y, mean, variance

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        x, weight, mean, variance = ctx.saved_tensors
        # of a layer whose statistics are constants; what they add to it follows
        dx, d_weight, d_bias = torch.ops.aten.native_batch_norm_backward(
            gradients[0], x, weight, mean, variance, None, None, False, ctx.eps, [True] * 3
        )
        sums = ctx.world.gathered(torch.stack([d_weight, d_bias]).double()).mean(0)
        count = x.numel() // x.shape[1]
        reciprocal = (variance.double() + ctx.eps).rsqrt()
        slope = -weight * reciprocal.square() * sums[0] / count
        offset = -weight * reciprocal * sums[1] / count - slope * mean
        shape = (1, -1, 1, 1)
        dx = dx + x * slope.float().reshape(shape) + offset.float().reshape(shape)
        return dx.to(x.dtype), d_weight, d_bias, None, None


def synchronise(module: nn.Module, world: World) -> None:
    """Let every batch normalisation in ``module`` take its statistics over all processes.

    Parameters, buffers and the names of the state stay the same, so that checkpoints serve any
    number of processes; an optimiser that has the parameters keeps them.

    Args:
        module: changed in place.
        world: the processes; nothing is changed for one.

    Raises:
        ModelError: a layer normalises over the batch in a way that is not known here.
    """
    if world.size == 1:
        return
    made: dict[int, SynchronisedBatchNorm] = {}  # by layer, which may be in two places
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if not isinstance(child, nn.modules.batchnorm._BatchNorm):
                continue
            if (
                not isinstance(child, nn.BatchNorm2d)
                or type(child) not in _SHARED
                or child.weight is None
            ):
                raise ModelError(
                    f"{type(child).__name__} cannot take its statistics over several processes",
                    where=f"the layer {name}",
                    mend="Train with --devices 1, or take another encoder.",
                )
            layer = made.setdefault(id(child), SynchronisedBatchNorm(child, world))
            setattr(parent, name, layer)


@contextmanager
def alone(module: nn.Module) -> Iterator[None]:
    """Within the block each process normalises by itself, whatever the others do."""
    layers = [layer for layer in module.modules() if isinstance(layer, SynchronisedBatchNorm)]
    for layer in layers:
        layer.alone = True
    try:
        yield
    finally:
        for layer in layers:
            layer.alone = False
