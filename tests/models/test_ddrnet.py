from __future__ import annotations

import pytest
import torch
from torch import nn

from delineate.models.ddrnet import DDRNet, DeepAggregationPyramidPooling


def test_it_has_the_parameters_of_the_paper() -> None:
    count = sum(p.numel() for p in DDRNet(3, 19).parameters())
    assert count == pytest.approx(5.7e6, rel=0.02)


def test_it_is_made_of_plain_convolutions_and_relu() -> None:
    modules = list(DDRNet(3, 4).modules())
    convolutions = [m for m in modules if isinstance(m, nn.Conv2d)]
    assert all(m.groups == 1 and m.dilation == (1, 1) for m in convolutions)
    leaves = {type(m) for m in modules if not list(m.children())}
    assert {kind.__name__ for kind in leaves} == {
        "Conv2d", "BatchNorm2d", "PooledBatchNorm", "ReLU", "AvgPool2d", "AdaptiveAvgPool2d",
        "Identity",
    }  # fmt: skip


@pytest.mark.parametrize("side", [1, 2, 9])
def test_the_context_keeps_the_size(side: int) -> None:
    context = DeepAggregationPyramidPooling(16, 8).eval()
    with torch.no_grad():
        assert context(torch.randn(1, 16, side, side)).shape == (1, 8, side, side)


def test_an_odd_multiple_of_the_stride_sees_the_same_as_an_even_one() -> None:
    """The coarsest map rounds up; what is cut off may not shift what is left."""
    torch.manual_seed(0)
    network = DDRNet(1, 2).eval()
    # Without means over the whole image
    network.context = nn.Conv2d(512, 128, 1)  # type: ignore[assignment]
    wide = torch.randn(1, 1, 64, 640)
    with torch.no_grad():
        odd, even = network(wide[..., :608]), network(wide)
    torch.testing.assert_close(odd[..., :64], even[..., :64], atol=1e-5, rtol=1e-4)
