"""One process by itself; several are in ``test_distributed.py``."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from delineate.training.world import World, world_from_environment


def test_alone_nothing_is_exchanged() -> None:
    world = World()
    tensor = torch.ones(3, requires_grad=True)
    assert world.is_main
    assert world.nodes == 1
    assert world.total(tensor) is tensor
    assert world.gathered(tensor).equal(torch.ones(1, 3))
    assert not world.gathered(tensor).requires_grad
    assert world.from_main("word") == "word"
    assert world.from_all("word") == ["word"]
    counts = np.eye(2, dtype=np.int64)
    assert world.total_counts(counts) is counts


def test_the_environment_of_torchrun_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert world_from_environment() == World()
    monkeypatch.setenv("RANK", "5")
    monkeypatch.setenv("WORLD_SIZE", "8")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    world = world_from_environment()
    assert world == World(rank=5, size=8, local_size=4)
    assert (world.nodes, world.is_main) == (2, False)
    assert replace(world, main=5).is_main
