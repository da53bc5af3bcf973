"""Dilated depthwise convolutions learn in bfloat16 what they learn in float32."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from delineate.config import ModelSettings
from delineate.models import build
from delineate.training.dilated_depthwise import spare_dilated_depthwise

AFFECTED = {"fast-scnn": 1, "deeplabv3+": 3, "unet": 0}


def gradients(network: nn.Module, images: Tensor, *, bf16: bool) -> dict[str, Tensor]:
    filled = torch.full((1 << 22,), 1e30)  # so that memory that is never written shows
    del filled
    network.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        logits = network(images)
    logits.float().square().mean().backward()
    return {n: p.grad.clone() for n, p in network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("dilation", [2, 4, 12])
def test_the_gradient_is_that_of_float32(dilation: int) -> None:
    torch.manual_seed(0)
    convolution = nn.Conv2d(
        64, 64, 3, padding=dilation, dilation=dilation, groups=64, bias=False
    ).to(memory_format=torch.channels_last)
    network = nn.Sequential(convolution)
    spare_dilated_depthwise(network)
    images = torch.randn(4, 64, 32, 32).contiguous(memory_format=torch.channels_last)
    right = gradients(network, images, bf16=False)["0.weight"]
    for _ in range(5):
        found = gradients(network, images, bf16=True)["0.weight"]
        assert (found - right).abs().max() < 0.05 * right.abs().max()


@pytest.mark.parametrize("architecture", sorted(AFFECTED))
def test_which_convolutions_are_spared_and_what_they_compute(architecture: str) -> None:
    settings = ModelSettings.model_validate({"architecture": architecture})
    network = build(settings, channels=3, classes=3, task="multiclass")
    spared = copy.deepcopy(network)
    spare_dilated_depthwise(spared)
    changed = [one for one in spared.modules() if type(one).__name__ == "_InFloat32"]
    assert len(changed) == AFFECTED[architecture]
    images = torch.randn(1, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        before, after = network.eval()(images), spared.eval()(images)
    assert torch.allclose(before, after, atol=1e-5)
    assert spared.state_dict().keys() == network.state_dict().keys()
