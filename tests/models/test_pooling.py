from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from delineate.models.pooling import GridMean, PooledBatchNorm, PyramidBranch


@settings(max_examples=40, deadline=None)
@given(cells=st.integers(1, 7), height=st.integers(1, 40), width=st.integers(1, 40))
def test_the_mean_over_a_grid_is_that_of_pytorch(cells: int, height: int, width: int) -> None:
    x = torch.linspace(-1, 1, 2 * 3 * height * width).reshape(2, 3, height, width).sin()
    expected = nn.AdaptiveAvgPool2d(cells)(x)
    torch.testing.assert_close(GridMean(cells)(x), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("cells", [1, 2, 6])
def test_a_branch_of_the_pyramid_gives_the_size_of_the_map(cells: int) -> None:
    branch = PyramidBranch(cells, nn.Conv2d(4, 2, 1), align_corners=False)
    assert branch(torch.randn(2, 4, 5, 9)).shape == (2, 2, 5, 9)


def test_a_branch_of_one_cell_is_the_mean_of_the_whole_everywhere() -> None:
    x = torch.randn(2, 4, 5, 9)
    found = PyramidBranch(1, nn.Identity(), align_corners=True)(x)
    torch.testing.assert_close(found, x.mean(dim=(2, 3), keepdim=True).expand_as(x))


def test_one_value_is_normalised_by_the_running_statistics() -> None:
    norm = PooledBatchNorm(3).train()
    norm.running_mean = torch.tensor([1.0, 2.0, 3.0])
    norm.running_var = torch.tensor([4.0, 4.0, 4.0])
    before = norm.running_mean.clone()
    one = norm(torch.full((1, 3, 1, 1), 5.0))
    torch.testing.assert_close(one.flatten(), torch.tensor([2.0, 1.5, 1.0]), atol=1e-4, rtol=1e-4)
    assert torch.equal(norm.running_mean, before)


def test_more_values_are_normalised_as_ever() -> None:
    own, usual = PooledBatchNorm(3).train(), nn.BatchNorm2d(3).train()
    for shape in ((2, 3, 1, 1), (1, 3, 2, 1)):
        x = torch.randn(shape)
        assert torch.equal(own(x), usual(x))
    assert own.running_mean is not None
    assert usual.running_mean is not None
    assert torch.equal(own.running_mean, usual.running_mean)
