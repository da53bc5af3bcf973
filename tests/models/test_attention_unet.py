from __future__ import annotations

import numpy as np
import pytest
import torch

from delineate.models.attention_unet import AttentionGate


def by_equations(gate: AttentionGate, x: np.ndarray, g: np.ndarray) -> np.ndarray:
    """Equations 1 and 2 of Oktay et al. position by position, in float64."""
    weights = {k: v.detach().double().numpy() for k, v in gate.named_parameters()}
    _, _, height, width = g.shape
    a = np.zeros((x.shape[0], height, width))
    for n, i, j in np.ndindex(a.shape):
        x_i = x[n, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
        inner = np.tensordot(weights["w_x.weight"], x_i, axes=3)
        inner = inner + weights["w_g.weight"][:, :, 0, 0] @ g[n, :, i, j] + weights["w_g.bias"]
        q = weights["psi.weight"][0, :, 0, 0] @ np.maximum(inner, 0) + weights["psi.bias"][0]
        a[n, i, j] = 1 / (1 + np.exp(-q))
    return a


def test_attention_equals_the_equations_of_the_paper() -> None:
    torch.manual_seed(0)
    gate = AttentionGate(skip_channels=5, gating_channels=7, inner_channels=3)
    x, g = torch.randn(2, 5, 8, 6), torch.randn(2, 7, 4, 3)
    a = gate.attention(x, g)
    assert a.shape == (2, 1, 4, 3)
    expected = by_equations(gate, x.double().numpy(), g.double().numpy())
    assert a[:, 0].detach().numpy() == pytest.approx(expected, abs=1e-5)


def test_the_gate_scales_all_channels_of_a_position_alike_by_at_most_one() -> None:
    torch.manual_seed(0)
    gate = AttentionGate(4, 6, 2)
    x, g = torch.rand(1, 4, 8, 8) + 1, torch.randn(1, 6, 4, 4)
    share = gate(x, g) / x
    assert torch.allclose(share, share[:, :1].expand_as(share))
    assert share.min() > 0
    assert share.max() < 1


def test_an_open_gate_passes_the_skip_and_a_closed_one_nothing() -> None:
    gate = AttentionGate(4, 6, 2)
    x, g = torch.randn(1, 4, 8, 8), torch.randn(1, 6, 4, 4)
    torch.nn.init.zeros_(gate.psi.weight)
    assert gate.psi.bias is not None
    torch.nn.init.constant_(gate.psi.bias, 50.0)
    assert torch.allclose(gate(x, g), x)
    torch.nn.init.constant_(gate.psi.bias, -50.0)
    assert torch.allclose(gate(x, g), torch.zeros_like(x), atol=1e-6)
