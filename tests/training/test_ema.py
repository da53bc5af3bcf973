from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from delineate.training.checkpoint import Progress, load_checkpoint, save_checkpoint
from delineate.training.ema import MovingAverage


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


def moved(module: nn.Module, by: float) -> None:
    with torch.no_grad():
        for value in module.state_dict().values():
            value.add_(by if value.is_floating_point() else int(by))


def test_it_is_the_average_by_hand() -> None:
    module = network()
    average = MovingAverage(module, 0.9)
    wanted = {name: value.clone() for name, value in module.state_dict().items()}
    for step in range(1, 30):
        moved(module, 1.0)
        average.update(step)
        decay = min(0.9, (1 + step) / (10 + step))
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                wanted[name] = decay * wanted[name] + (1 - decay) * value
            else:
                wanted[name] = value.clone()
    for name, value in wanted.items():
        torch.testing.assert_close(average.averages[name], value, rtol=1e-5, atol=1e-5)


def test_it_is_applied_within_the_block_alone() -> None:
    module = network()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    average = MovingAverage(module, 0.9)
    moved(module, 5.0)
    own = {name: value.clone() for name, value in module.state_dict().items()}
    with average.applied():
        assert all(torch.equal(value, before[n]) for n, value in module.state_dict().items())
    assert all(torch.equal(value, own[name]) for name, value in module.state_dict().items())
    with pytest.raises(RuntimeError), average.applied():
        module(torch.zeros(1, 1, 1, 1))
    assert all(torch.equal(value, own[name]) for name, value in module.state_dict().items())


def test_a_checkpoint_keeps_it(tmp_path: Path) -> None:
    module = network()
    average = MovingAverage(module, 0.5)
    moved(module, 1.0)
    average.update(1)
    file = tmp_path / "last.safetensors"
    save_checkpoint(file, module, None, Progress(step=1), "abc", average)
    again = network(seed=1)
    other = MovingAverage(again, 0.5)
    load_checkpoint(file, again, None, "abc", other)
    for name, value in average.averages.items():
        assert torch.equal(other.averages[name], value)
        assert torch.equal(again.state_dict()[name], module.state_dict()[name])
