from __future__ import annotations

import pytest
import torch

from delineate.models.fast_scnn import FastSCNN


def test_it_has_the_parameters_of_the_paper() -> None:
    count = sum(p.numel() for p in FastSCNN(3, 19).parameters())
    assert count == pytest.approx(1.11e6, rel=0.03)


def test_the_maps_have_the_sizes_and_channels_of_table_1() -> None:
    network = FastSCNN(3, 19).eval()
    with torch.no_grad():
        fine = network.downsample(torch.randn(1, 3, 128, 256))
        assert fine.shape == (1, 64, 16, 32)
        assert network.features(fine).shape == (1, 128, 4, 8)


def test_the_auxiliary_heads_add_only_themselves() -> None:
    plain, deep = FastSCNN(3, 4), FastSCNN(3, 4, deep_supervision=True)
    added = deep.state_dict().keys() - plain.state_dict().keys()
    assert {key.split(".")[0] for key in added} == {"auxiliary_heads"}
    assert plain.state_dict().keys() < deep.state_dict().keys()
