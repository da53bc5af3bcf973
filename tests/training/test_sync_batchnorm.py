"""Batch normalisation over processes; threads stand in for them."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn

from delineate.errors import ModelError
from delineate.models.pooling import PooledBatchNorm
from delineate.training.sync_batchnorm import SynchronisedBatchNorm, alone, synchronise
from delineate.training.world import World

T = TypeVar("T")


@dataclass(frozen=True)
class Threads(World):
    """A world of threads: each puts down what it has, and takes up what all have."""

    table: dict[int, Tensor] = field(default_factory=dict)
    barrier: threading.Barrier = field(default_factory=lambda: threading.Barrier(1))

    def gathered(self, tensor: Tensor) -> Tensor:
        self.table[self.rank] = tensor.detach()
        self.barrier.wait(timeout=30)
        found = torch.stack([self.table[rank] for rank in range(self.size)])
        self.barrier.wait(timeout=30)
        return found


def together(size: int, work: Callable[[World], T]) -> list[T]:
    """What ``work`` gives in each of ``size`` threads, by rank."""
    table: dict[int, Tensor] = {}
    barrier = threading.Barrier(size)
    with ThreadPoolExecutor(size) as pool:
        worlds = [
            Threads(rank=rank, size=size, local_size=size, table=table, barrier=barrier)
            for rank in range(size)
        ]
        return list(pool.map(work, worlds))


def layer(channels: int = 3) -> nn.BatchNorm2d:
    made = nn.BatchNorm2d(channels)
    with torch.no_grad():
        made.weight.copy_(torch.linspace(0.5, 2.0, channels))
        made.bias.copy_(torch.linspace(-1.0, 1.0, channels))
    return made


def passes(
    norm: nn.Module, x: Tensor, dy: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, dict[str, Tensor]]:
    """Output, the gradients of input, weight and bias, and the state after one step."""
    x = x.detach().clone().requires_grad_()
    y = norm(x)
    y.backward(dy)
    weight, bias = norm.weight.grad, norm.bias.grad
    assert x.grad is not None
    assert isinstance(weight, Tensor)
    assert isinstance(bias, Tensor)
    state = {name: value.clone() for name, value in norm.state_dict().items()}
    return y.detach(), x.grad, weight, bias, state


@settings(max_examples=10, deadline=None)
@given(
    size=st.integers(2, 3),
    side=st.integers(1, 5),
    mean=st.sampled_from([0.0, 1000.0]),
    seed=st.integers(0, 99),
)
def test_processes_together_do_what_one_does_with_the_whole_batch(
    size: int, side: int, mean: float, seed: int
) -> None:
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(2 * size, 3, side, side, generator=random) + mean
    dy = torch.randn(2 * size, 3, side, side, generator=random)
    y, dx, d_weight, d_bias, state = passes(layer(), x, dy)

    def part(world: World) -> tuple[Tensor, Tensor, Tensor, Tensor, dict[str, Tensor]]:
        own = slice(2 * world.rank, 2 * world.rank + 2)
        return passes(SynchronisedBatchNorm(layer(), world), x[own], dy[own])

    found = together(size, part)
    # numbers around 1000 have 4 digits less behind the point
    atol = 1e-5 if mean == 0 else 1e-2

    def check_close(own: Tensor, whole: Tensor) -> None:
        torch.testing.assert_close(own, whole, rtol=1e-4, atol=atol)

    check_close(torch.cat([one[0] for one in found]), y)
    check_close(torch.cat([one[1] for one in found]), dx)
    # each has the gradient of its part; adding them up is DDP's
    check_close(torch.stack([one[2] for one in found]).sum(0), d_weight)
    check_close(torch.stack([one[3] for one in found]).sum(0), d_bias)
    for *_, own in found:
        assert own.keys() == state.keys()
        for name in state:
            torch.testing.assert_close(own[name], state[name], rtol=1e-4, atol=1e-5)
            assert own[name].equal(found[0][4][name])  # every process has the same bits


def test_large_means_cost_no_accuracy() -> None:
    # where sums of squares in float32 give a variance of 0 or worse
    x = torch.randn(4, 1, 16, 16, generator=torch.Generator().manual_seed(0)) + 3e4
    exact = x.double().var(dim=(0, 2, 3), correction=1)

    def part(world: World) -> Tensor:
        norm = SynchronisedBatchNorm(nn.BatchNorm2d(1, momentum=1.0), world)
        norm(x[2 * world.rank : 2 * world.rank + 2])
        assert norm.running_var is not None
        return norm.running_var

    for variance in together(2, part):
        torch.testing.assert_close(variance.double(), exact, rtol=1e-5, atol=0)


def test_a_cumulative_mean_counts_the_batches() -> None:
    x = torch.arange(4.0).reshape(4, 1, 1, 1)
    plain = nn.BatchNorm2d(1, momentum=None)
    plain(x)
    plain(x * 3)

    def part(world: World) -> dict[str, Tensor]:
        norm = SynchronisedBatchNorm(nn.BatchNorm2d(1, momentum=None), world)
        own = x[2 * world.rank : 2 * world.rank + 2]
        norm(own)
        norm(own * 3)
        return dict(norm.state_dict())

    for state in together(2, part):
        torch.testing.assert_close(state, dict(plain.state_dict()))


def test_sixteen_bits_keep_their_type_and_float32_statistics() -> None:
    x = (torch.randn(4, 3, 8, 8) + 5).bfloat16()
    dy = torch.randn(4, 3, 8, 8).bfloat16()
    y, dx, *_ = passes(layer(), x, dy)

    def part(world: World) -> tuple[Tensor, Tensor, Tensor, Tensor, dict[str, Tensor]]:
        own = slice(2 * world.rank, 2 * world.rank + 2)
        return passes(SynchronisedBatchNorm(layer(), world), x[own], dy[own])

    found = together(2, part)
    own_y, own_dx = torch.cat([one[0] for one in found]), torch.cat([one[1] for one in found])
    assert own_y.dtype == own_dx.dtype == torch.bfloat16
    torch.testing.assert_close(own_y, y, rtol=2e-2, atol=2e-2)
    torch.testing.assert_close(own_dx, dx, rtol=2e-2, atol=2e-2)
    assert all(value.dtype == torch.float32 for value in found[0][2:4])


def test_evaluation_and_alone_need_no_others() -> None:
    x = torch.randn(2, 3, 4, 4)
    plain, norm = layer(), SynchronisedBatchNorm(layer(), World(0, 2, 2))
    assert norm.eval()(x).equal(plain.eval()(x))
    norm.train()
    plain.train()
    with alone(norm):
        assert norm(x).equal(plain(x))
        norm(x[:1, :, :1, :1])  # a single value: with the running statistics
    ghost = copy.deepcopy(norm).to("meta")
    assert ghost(x.to("meta")).is_meta  # memory is estimated without the others


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.Sequential(nn.Conv2d(4, 4, 1), BatchNormAct2d(4, act_layer=nn.PReLU)),
        PooledBatchNorm(4),
    )


def test_a_network_keeps_its_parameters_state_and_activations() -> None:
    plain, shared = network(), network()
    parameters = list(shared.parameters())
    synchronise(shared, World(0, 2, 2))
    kinds = [type(one) for one in shared.modules()]
    assert kinds.count(SynchronisedBatchNorm) == 3
    after = list(shared.parameters())
    assert [id(one) for one in after] == [id(one) for one in parameters]
    assert list(shared.state_dict()) == list(plain.state_dict())
    plain.load_state_dict(shared.state_dict())
    x = torch.randn(2, 3, 8, 8)
    assert shared.eval()(x).equal(plain.eval()(x))
    with alone(shared.train()):
        assert shared(x).equal(plain.train()(x))


def test_one_process_keeps_its_layers() -> None:
    module = network()
    synchronise(module, World())
    assert not any(isinstance(one, SynchronisedBatchNorm) for one in module.modules())


def test_an_unknown_layer_is_refused_by_name() -> None:
    with pytest.raises(ModelError) as caught:
        synchronise(nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm3d(4)), World(0, 2, 2))
    assert str(caught.value) == (
        "the layer 1: BatchNorm3d cannot take its statistics over several processes. "
        "Train with --devices 1, or take another encoder."
    )
