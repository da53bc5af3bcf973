"""Each term against an implementation of somebody else, or written down from the paper."""

from __future__ import annotations

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from delineate.config import LossSettings
from delineate.training.losses.build import build_loss

IGNORE = 255
TERMS = ("ce", "focal", "ohem", "dice", "tversky", "lovasz", "boundary")
BOUNDED = ("dice", "tversky", "lovasz", "boundary")


def loss_of(name: str, classes: int, **numbers: float | tuple[float, ...]) -> torch.nn.Module:
    spec = LossSettings.model_validate({"name": name, **numbers})
    return build_loss(spec, classes=classes, task="multiclass", ignore_index=IGNORE)


def sample(
    seed: int, classes: int, *, ignored: float = 0.2, hw: tuple[int, int] = (12, 9)
) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    logits = torch.tensor(rng.normal(0, 2, (2, classes, *hw)), dtype=torch.float32)
    target = rng.integers(0, classes, (2, *hw))
    target[rng.random(target.shape) < ignored] = IGNORE
    return logits, torch.tensor(target)


def certain(target: torch.Tensor, classes: int) -> torch.Tensor:
    """Logits that give all probability to the target; to class 0 where it is ignored."""
    planes = torch.zeros(target.shape[0], classes, *target.shape[1:])
    return planes.scatter_(1, target.where(target != IGNORE, 0).unsqueeze(1), 100.0)


@pytest.mark.parametrize("misses", [0.0, 0.3, 0.5, 1.0])
def test_tversky_and_its_gradient_equal_smp_where_all_classes_are_present(misses: float) -> None:
    logits, target = sample(1, 3, ignored=0.0)
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    value = loss_of("tversky", 3, tversky_false_negatives=misses)(ours, target)
    value.backward()
    expected = smp.losses.TverskyLoss("multiclass", alpha=1 - misses, beta=misses)(theirs, target)
    expected.backward()
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_tversky_with_even_weights_is_dice() -> None:
    logits, target = sample(2, 4)
    even = loss_of("tversky", 4, tversky_false_negatives=0.5)
    assert even(logits, target).item() == loss_of("dice", 4)(logits, target).item()


@given(
    seed=st.integers(0, 2**32 - 1), classes=st.integers(2, 6), scale=st.sampled_from([0.1, 1, 5])
)
@settings(max_examples=25, deadline=None)
def test_lovasz_is_within_a_bin_of_smp(seed: int, classes: int, scale: float) -> None:
    logits, target = sample(seed, classes)
    logits = logits * scale
    expected = smp.losses.LovaszLoss("multiclass", ignore_index=IGNORE)(logits, target)
    assert loss_of("lovasz", classes)(logits, target).item() == pytest.approx(
        expected.item(), abs=1 / 1024
    )


def test_the_gradient_of_lovasz_is_that_of_smp() -> None:
    logits, target = sample(3, 4, hw=(64, 64))
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    loss_of("lovasz", 4)(ours, target).backward()
    smp.losses.LovaszLoss("multiclass", ignore_index=IGNORE)(theirs, target).backward()
    assert ours.grad is not None
    assert theirs.grad is not None
    difference = (ours.grad - theirs.grad).norm() / theirs.grad.norm()
    assert difference.item() < 0.005


def test_lovasz_of_a_certain_prediction_is_one_minus_the_mean_iou() -> None:
    _, target = sample(4, 4)
    _, guess = sample(5, 4, ignored=0.0)
    kept = target != IGNORE
    ious = []
    for k in range(4):
        truth, found = target[kept] == k, guess[kept] == k
        ious.append(((truth & found).sum() / (truth | found).sum()).item())
    value = loss_of("lovasz", 4)(certain(guess, 4), target)
    assert value.item() == pytest.approx(1 - np.mean(ious), abs=1e-5)


@given(
    seed=st.integers(0, 2**32 - 1),
    share=st.floats(0.01, 1.0),
    weights=st.sampled_from([None, (1.0, 3.0, 0.5)]),
)
@settings(max_examples=25, deadline=None)
def test_ohem_is_the_mean_over_the_hardest_pixels(
    seed: int, share: float, weights: tuple[float, ...] | None
) -> None:
    logits, target = sample(seed, 3)
    kept = target != IGNORE
    labels = target[kept].numpy()
    log_p = logits.double().log_softmax(1).movedim(1, -1)[kept].numpy()
    hardness = -log_p[np.arange(len(labels)), labels]
    order = np.argsort(-hardness)
    count = share * len(labels)  # the last of them counts in part
    part = np.clip(count - np.arange(len(labels)), 0, 1)
    weight = part * (1.0 if weights is None else np.asarray(weights)[labels[order]])
    expected = (weight * hardness[order]).sum() / weight.sum()
    numbers = {} if weights is None else {"class_weights": weights}
    value = loss_of("ohem", 3, ohem_share=share, **numbers)(logits, target).item()
    # A pixel at the edge may stand in for a neighbour in its bin, of another weight
    slack = 0.01 * expected if weights is None else 0.1 * expected
    assert value == pytest.approx(expected, abs=slack)


def test_ohem_moves_only_the_hardest_pixels_and_with_all_of_them_it_is_cross_entropy() -> None:
    logits, target = sample(6, 3, ignored=0.0)
    leaf = logits.clone().requires_grad_()
    loss_of("ohem", 3, ohem_share=0.25)(leaf, target).backward()
    assert leaf.grad is not None
    moved = leaf.grad.abs().amax(1) > 0
    hardness = torch.nn.functional.cross_entropy(logits, target, reduction="none")
    assert moved.sum().item() == pytest.approx(target.numel() / 4, abs=3)
    assert hardness[moved].min() >= 0.99 * hardness[~moved].max()
    every = loss_of("ohem", 3, ohem_share=1.0)(logits, target).item()
    assert every == pytest.approx(loss_of("ce", 3)(logits, target).item(), rel=1e-6)


def boundary_by_hand(p: np.ndarray, target: np.ndarray, band_px: int) -> float:
    """The loss in float64, with scipy's filters, for p (N, K, H, W)."""

    def widest(planes: np.ndarray, radius: int) -> np.ndarray:
        size = (1, 1, 2 * radius + 1, 2 * radius + 1)
        return np.asarray(ndimage.maximum_filter(planes, size, mode="constant", cval=0.0))

    valid = (target != IGNORE)[:, None]
    truth = (target[:, None] == np.arange(p.shape[1])[:, None, None]) & valid
    edges = []
    for planes in (p.astype(np.float64), truth.astype(np.float64)):
        outside = np.where(valid, 1 - planes, 0.0)
        edges.append(np.where(valid, widest(outside, 1) - outside, 0.0))
    found, true = edges
    scores = []
    for k in range(p.shape[1]):
        if true[:, k].sum() == 0:
            continue
        hits = (found * widest(true, band_px))[:, k].sum()
        precision = (hits + 1) / (found[:, k].sum() + 1)
        recall = (true * widest(found, band_px))[:, k].sum() / true[:, k].sum()
        scores.append(2 * precision * recall / (precision + recall))
    return 1 - float(np.mean(scores)) if scores else 0.0


@given(
    seed=st.integers(0, 2**32 - 1),
    band_px=st.integers(1, 4),
    size=st.sampled_from([(12, 9), (3, 2), (1, 7)]),
)
@settings(max_examples=25, deadline=None)
def test_boundary_equals_the_definition(seed: int, band_px: int, size: tuple[int, int]) -> None:
    logits, target = sample(seed, 3, hw=size)
    # blocks of pixels, so that there is something between the boundaries
    target = target.repeat_interleave(5, 1).repeat_interleave(5, 2)
    logits = logits.repeat_interleave(5, 2).repeat_interleave(5, 3)
    expected = boundary_by_hand(logits.softmax(1).numpy(), target.numpy(), band_px)
    value = loss_of("boundary", 3, boundary_px=band_px)(logits, target)
    assert value.item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("shift_px", "agrees"), [(0, True), (3, True), (4, False)])
def test_boundaries_agree_within_the_band(shift_px: int, agrees: bool) -> None:
    target = torch.zeros(1, 64, 64, dtype=torch.int64)
    target[:, 20:40, 20:40] = 1
    moved = certain(target.roll(shift_px, 2), 2)
    value = loss_of("boundary", 2, boundary_px=3)(moved, target).item()
    assert (value < 1e-6) == agrees
    assert value < 1


def test_no_boundary_runs_along_ignored_pixels_or_the_image_edge() -> None:
    target = torch.zeros(1, 16, 16, dtype=torch.int64)
    target[:, 5:8] = IGNORE
    logits = torch.randn(1, 2, 16, 16, generator=torch.Generator().manual_seed(0))
    assert loss_of("boundary", 2)(logits, target).item() == 0.0


@pytest.mark.parametrize("name", TERMS)
@given(seed=st.integers(0, 2**32 - 1), classes=st.integers(2, 5))
@settings(max_examples=5, deadline=None)
def test_a_perfect_prediction_costs_nothing(name: str, seed: int, classes: int) -> None:
    _, target = sample(seed, classes)
    value = loss_of(name, classes)(certain(target, classes), target)
    assert value.item() == pytest.approx(0.0, abs=1e-5)


@pytest.mark.parametrize("name", TERMS)
@given(seed=st.integers(0, 2**32 - 1), order=st.permutations(range(4)))
@settings(max_examples=5, deadline=None)
def test_the_order_of_the_classes_is_of_no_account(name: str, seed: int, order: list[int]) -> None:
    logits, target = sample(seed, 4)
    renamed = torch.full_like(target, IGNORE)
    for new, old in enumerate(order):
        renamed[target == old] = new
    loss = loss_of(name, 4)
    value = loss(logits, target).item()
    assert loss(logits[:, order], renamed).item() == pytest.approx(value, rel=1e-4)


@pytest.mark.parametrize("name", BOUNDED)
@given(seed=st.integers(0, 2**32 - 1), scale=st.sampled_from([0.0, 1.0, 100.0]))
@settings(max_examples=5, deadline=None)
def test_terms_over_regions_are_between_0_and_1(name: str, seed: int, scale: float) -> None:
    logits, target = sample(seed, 3)
    assert -1e-6 <= loss_of(name, 3)(scale * logits, target).item() <= 1 + 1e-6


@pytest.mark.parametrize("name", TERMS)
def test_descending_its_gradient_lowers_a_term(name: str) -> None:
    target = torch.zeros(2, 24, 24, dtype=torch.int64)
    target[:, 4:15, 6:18] = 1
    target[:, 12:20, 3:9] = 2
    logits = torch.randn(2, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    logits.requires_grad_()
    loss = loss_of(name, 3, boundary_px=1)
    adam = torch.optim.Adam([logits], lr=0.3)
    first = loss(logits, target).item()
    for _ in range(30):
        adam.zero_grad()
        loss(logits, target).backward()
        adam.step()
    assert loss(logits, target).item() < 0.5 * first


@pytest.mark.parametrize("name", TERMS)
def test_a_logit_that_is_no_number_makes_a_loss_that_is_none(name: str) -> None:
    logits, target = sample(7, 3, ignored=0.0)
    logits[1, 2, 3, 4] = torch.nan
    assert torch.isnan(loss_of(name, 3)(logits, target))
