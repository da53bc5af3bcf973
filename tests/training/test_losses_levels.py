"""Losses of several outputs, and of one batch spread over several processes."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from delineate.config import LossSettings
from delineate.training.losses.build import build_loss, coarser

IGNORE = 255
TERMS = ("ce", "focal", "ohem", "dice", "tversky", "lovasz", "boundary")


def sample(seed: int, *, n: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (N, 3, 16, 12) and target; the first image has another mix than the rest."""
    rng = np.random.default_rng(seed)
    logits = torch.tensor(rng.normal(0, 2, (n, 3, 16, 12)), dtype=torch.float32)
    target = rng.integers(0, 3, (n, 16, 12))
    target[0] = np.minimum(target[0], 1)
    target[rng.random(target.shape) < 0.2] = IGNORE
    target[0, :9] = IGNORE
    return logits, torch.tensor(target)


def loss_of(
    name: str, total: Callable[[torch.Tensor], torch.Tensor] | None = None
) -> torch.nn.Module:
    spec = LossSettings.model_validate({"name": name})
    return build_loss(spec, classes=3, task="multiclass", ignore_index=IGNORE, total=total)


def gradients(
    loss: torch.nn.Module, outputs: list[torch.Tensor], target: torch.Tensor
) -> tuple[float, list[torch.Tensor]]:
    leaves = [output.clone().requires_grad_() for output in outputs]
    value = loss(leaves, target)
    value.backward()
    found = [leaf.grad for leaf in leaves if leaf.grad is not None]
    assert len(found) == len(leaves)
    return value.item(), found


@pytest.mark.parametrize("name", [*TERMS, "ce+dice+0.3*lovasz"])
@pytest.mark.parametrize("cuts", [(0, 2, 4), (0, 1, 4), (0, 1, 2, 3, 4)])
def test_processes_that_share_a_batch_have_its_loss_and_its_gradient(
    name: str, cuts: tuple[int, ...]
) -> None:
    logits, target = sample(1)
    outputs = [logits, logits[:, :, ::4, ::4] + 0.5]
    expected, whole = gradients(loss_of(name), outputs, target)
    shards = [slice(a, b) for a, b in pairwise(cuts)]
    sums: list[torch.Tensor] = []

    def note(vector: torch.Tensor) -> torch.Tensor:
        sums.append(vector.detach().clone())
        return vector

    for shard in shards:
        loss_of(name, note)([output[shard] for output in outputs], target[shard])
    assert len(sums) == len(shards)  # one call for all terms and outputs
    for number, shard in enumerate(shards):
        others = torch.stack([vector for i, vector in enumerate(sums) if i != number]).sum(0)

        def total(vector: torch.Tensor, others: torch.Tensor = others) -> torch.Tensor:
            return vector + others

        mine = [output[shard] for output in outputs]
        value, found = gradients(loss_of(name, total), mine, target[shard])
        assert value == pytest.approx(expected, rel=1e-5)
        for part, full in zip(found, whole, strict=True):
            torch.testing.assert_close(part, full[shard], rtol=1e-4, atol=1e-8)


def test_a_process_without_a_pixel_has_the_loss_of_the_others_and_no_gradient() -> None:
    logits, target = sample(2)
    sums: list[torch.Tensor] = []

    def note(vector: torch.Tensor) -> torch.Tensor:
        sums.append(vector.detach().clone())
        return vector

    expected = loss_of("ce+dice+lovasz+ohem+boundary", note)(logits, target).item()
    empty = loss_of("ce+dice+lovasz+ohem+boundary", lambda vector: vector + sums[0])
    value, (gradient,) = gradients(empty, [logits], torch.full_like(target, IGNORE))
    assert value == pytest.approx(expected, rel=1e-6)
    assert torch.equal(gradient, torch.zeros_like(logits))


@pytest.mark.parametrize("name", TERMS)
def test_a_list_of_one_is_the_output_itself(name: str) -> None:
    logits, target = sample(3)
    assert loss_of(name)([logits], target).item() == loss_of(name)(logits, target).item()


def test_outputs_weigh_half_of_the_one_before() -> None:
    logits, target = sample(4)
    half, quarter = logits[:, :, 1::2, 1::2], logits[:, :, 2::4, 2::4]
    each = [
        F.cross_entropy(output, truth, ignore_index=IGNORE).item()
        for output, truth in [
            (logits, target),
            (half, target[:, 1::2, 1::2]),
            (quarter, target[:, 2::4, 2::4]),
        ]
    ]
    value = loss_of("ce")([logits, half, quarter], target).item()
    assert value == pytest.approx(np.average(each, weights=[4, 2, 1]), rel=1e-6)


def test_one_logit_at_several_resolutions_equals_two_classes() -> None:
    logits, target = sample(5)
    target = target.where(target != 2, 1)
    spec = LossSettings(name="ce+dice")
    binary = build_loss(spec, classes=2, task="binary", ignore_index=IGNORE)
    multiclass = build_loss(spec, classes=2, task="multiclass", ignore_index=IGNORE)
    one = [logits[:, :1], logits[:, 1:2, ::2, ::2]]
    two = [torch.cat([torch.zeros_like(plane), plane], dim=1) for plane in one]
    assert binary(one, target).item() == pytest.approx(multiclass(two, target).item(), rel=1e-6)


@given(
    height=st.integers(2, 70),
    width=st.integers(2, 70),
    stride=st.sampled_from([1, 2, 4, 8, 16]),
)
@settings(max_examples=50, deadline=None)
def test_coarser_truth_is_the_pixel_at_each_centre(height: int, width: int, stride: int) -> None:
    target = torch.arange(height * width).reshape(1, height, width)
    rows, columns = -(-height // stride), -(-width // stride)
    assume(max(rows, columns) > 1)  # one pixel alone does not tell its stride
    truth, valid = coarser(
        target, torch.ones(1, height, width), like=torch.zeros(1, 1, rows, columns)
    )
    for y, x in np.ndindex(rows, columns):
        at = y * stride + stride // 2, x * stride + stride // 2
        if at[0] < height and at[1] < width:
            assert truth[0, y, x] == target[0, *at]
            assert valid[0, y, x] == 1
        else:
            assert valid[0, y, x] == 0


def test_what_a_padded_output_covers_beyond_the_truth_is_invalid() -> None:
    target = torch.arange(50 * 50).reshape(1, 50, 50)
    kept = torch.ones(1, 50, 50)
    kept[0, 2, 2] = 0
    truth, valid = coarser(target, kept, like=torch.zeros(1, 3, 16, 16))  # 64 px at stride 4
    assert truth[0, 3, 5] == 50 * 14 + 22
    assert valid[0, :12, :12].sum() == 143
    assert valid[0, 12:].sum() == 0
    assert valid[0, :, 12:].sum() == 0
