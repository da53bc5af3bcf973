from __future__ import annotations

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from delineate.config import LossSettings
from delineate.errors import SettingsError
from delineate.training.losses.build import build_loss

NAMES = ("ce", "focal", "ohem", "dice", "tversky", "lovasz", "boundary", "ce+0.5*dice")
IGNORE = 255


def sample(
    seed: int, classes: int, *, ignored: float = 0.2, scale: float = 3.0
) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    logits = torch.tensor(rng.normal(0, scale, (2, classes, 7, 5)), dtype=torch.float32)
    target = rng.integers(0, classes, (2, 7, 5))
    target[rng.random(target.shape) < ignored] = IGNORE
    return logits, torch.tensor(target)


def by_hand(
    name: str,
    logits: np.ndarray,
    target: np.ndarray,
    weights: tuple[float, ...] | None,
    gamma: float,
) -> float:
    """The same in float64, pixel by pixel and class by class."""
    kept = [(logits[n, :, y, x], target[n, y, x]) for n, y, x in np.argwhere(target != IGNORE)]
    rows = []
    for z, t in kept:
        e = np.exp(z.astype(np.float64) - z.max())
        rows.append((e / e.sum(), int(t)))
    pixel, total = 0.0, 0.0
    for p, t in rows:
        w = 1.0 if weights is None else weights[t]
        focus = (1 - p[t]) ** gamma if name == "focal" else 1.0
        pixel -= w * focus * np.log(p[t])
        total += w
    scores = []
    for k in sorted({t for _, t in rows}):
        both = sum(p[k] for p, t in rows if t == k)
        scores.append(2 * both / (sum(p[k] for p, _ in rows) + sum(t == k for _, t in rows)))
    dice = 1 - float(np.mean(scores))
    return {"ce": pixel / total, "focal": pixel / total, "dice": dice}.get(
        name, pixel / total + dice
    )


@given(
    seed=st.integers(0, 2**32 - 1),
    name=st.sampled_from(["ce", "dice", "ce+dice", "focal"]),
    classes=st.integers(2, 5),
    weighted=st.booleans(),
    gamma=st.sampled_from([0.0, 0.5, 1.0, 2.0, 3.5]),
)
@settings(max_examples=60, deadline=None)
def test_equals_the_definition_in_float64(
    seed: int, name: str, classes: int, weighted: bool, gamma: float
) -> None:
    weights = tuple(0.5 + k for k in range(classes)) if weighted and name != "dice" else None
    spec = LossSettings.model_validate(
        {"name": name, "class_weights": weights, "focal_gamma": gamma}
    )
    logits, target = sample(seed, classes)
    loss = build_loss(spec, classes=classes, task="multiclass", ignore_index=IGNORE)
    expected = by_hand(name, logits.numpy(), target.numpy(), weights, gamma)
    assert loss(logits, target).item() == pytest.approx(expected, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("weights", [None, (1.0, 2.0, 0.25)])
def test_cross_entropy_and_its_gradient_equal_torch(weights: tuple[float, ...] | None) -> None:
    logits, target = sample(1, 3)
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    loss = build_loss(
        LossSettings(name="ce", class_weights=weights),
        classes=3,
        task="multiclass",
        ignore_index=IGNORE,
    )
    loss(ours, target).backward()
    expected = F.cross_entropy(
        theirs,
        target,
        weight=None if weights is None else torch.tensor(weights),
        ignore_index=IGNORE,
    )
    expected.backward()  # type: ignore[no-untyped-call]
    assert loss(logits, target).item() == pytest.approx(expected.item(), rel=1e-6)
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_dice_and_its_gradient_equal_smp_where_all_classes_are_present() -> None:
    logits, target = sample(2, 3, ignored=0.0)
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    loss = build_loss(LossSettings(name="dice"), classes=3, task="multiclass", ignore_index=None)
    loss(ours, target).backward()
    expected = smp.losses.DiceLoss("multiclass", from_logits=True)(theirs, target)
    expected.backward()
    assert loss(logits, target).item() == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_binary_cross_entropy_and_focal_equal_torch_and_torchvision() -> None:
    logits, target = sample(3, 1, ignored=0.0)
    target = (torch.rand(target.shape, generator=torch.Generator().manual_seed(0)) < 0.4).long()
    plane, truth = logits[:, 0], target.float()
    ce = build_loss(LossSettings(name="ce"), classes=2, task="binary", ignore_index=None)
    assert ce(logits, target).item() == pytest.approx(
        F.binary_cross_entropy_with_logits(plane, truth).item(), rel=1e-6
    )
    focal = build_loss(LossSettings(name="focal"), classes=2, task="binary", ignore_index=None)
    assert focal(logits, target).item() == pytest.approx(
        sigmoid_focal_loss(plane, truth, alpha=-1, gamma=2, reduction="mean").item(), rel=1e-5
    )


@pytest.mark.parametrize("name", NAMES)
def test_one_logit_equals_two_classes_whose_first_logit_is_zero(name: str) -> None:
    logits, target = sample(4, 2)
    one = logits[:, 1:]
    two = torch.cat([torch.zeros_like(one), one], dim=1)
    spec = LossSettings.model_validate({"name": name})
    binary = build_loss(spec, classes=2, task="binary", ignore_index=IGNORE)
    multiclass = build_loss(spec, classes=2, task="multiclass", ignore_index=IGNORE)
    assert binary(one, target).item() == pytest.approx(multiclass(two, target).item(), rel=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_ignored_pixels_change_neither_loss_nor_gradient(name: str) -> None:
    logits, target = sample(5, 3, ignored=0.4)
    loss = build_loss(
        LossSettings.model_validate({"name": name}),
        classes=3,
        task="multiclass",
        ignore_index=IGNORE,
    )
    other = logits.clone()
    other[(target == IGNORE).unsqueeze(1).expand_as(other)] = 77.0
    a, b = logits.requires_grad_(), other.requires_grad_()
    first, second = loss(a, target), loss(b, target)
    first.backward()
    second.backward()
    assert first.item() == pytest.approx(second.item(), rel=1e-6)
    assert a.grad is not None
    assert b.grad is not None
    assert not a.grad[(target == IGNORE).unsqueeze(1).expand_as(a)].any()
    torch.testing.assert_close(a.grad, b.grad)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("task", "planes"), [("multiclass", 3), ("binary", 1)])
def test_all_ignored_gives_zero_and_a_zero_gradient(name: str, task: str, planes: int) -> None:
    loss = build_loss(
        LossSettings.model_validate({"name": name}),
        classes=max(planes, 2),
        task="binary" if task == "binary" else "multiclass",
        ignore_index=IGNORE,
    )
    logits = torch.randn(1, planes, 4, 4, requires_grad=True)
    value = loss(logits, torch.full((1, 4, 4), IGNORE))
    value.backward()
    assert value.item() == 0.0
    assert logits.grad is not None
    assert torch.equal(logits.grad, torch.zeros_like(logits))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize(("task", "planes"), [("multiclass", 3), ("binary", 1)])
@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_extreme_logits_stay_finite(
    name: str, dtype: torch.dtype, task: str, planes: int, gamma: float
) -> None:
    spec = LossSettings.model_validate({"name": name, "focal_gamma": gamma})
    loss = build_loss(
        spec,
        classes=max(planes, 2),
        task="binary" if task == "binary" else "multiclass",
        ignore_index=None,
    )
    sign = torch.tensor(np.random.default_rng(0).choice([-1e4, 1e4], (2, planes, 6, 6)))
    logits = sign.to(dtype).requires_grad_()
    target = torch.tensor(np.random.default_rng(1).integers(0, max(planes, 2), (2, 6, 6)))
    value = loss(logits, target)
    value.backward()
    assert value.dtype == torch.float32
    assert value.shape == ()
    assert torch.isfinite(value)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("name", NAMES)
def test_inside_autocast_the_arithmetic_is_float32(name: str) -> None:
    logits, target = sample(6, 4)
    loss = build_loss(
        LossSettings.model_validate({"name": name}),
        classes=4,
        task="multiclass",
        ignore_index=IGNORE,
    )
    half = logits.to(torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = loss(half, target)
    assert inside.dtype == torch.float32
    assert inside.item() == loss(half.float(), target).item()


@pytest.mark.parametrize("name", NAMES)
def test_uint8_target_and_channels_last_logits_change_nothing(name: str) -> None:
    logits, target = sample(7, 4)
    loss = build_loss(
        LossSettings.model_validate({"name": name}),
        classes=4,
        task="multiclass",
        ignore_index=IGNORE,
    )
    value = loss(logits.contiguous(memory_format=torch.channels_last), target.to(torch.uint8))
    assert value.item() == loss(logits, target).item()


def test_dice_leaves_absent_classes_out_and_still_punishes_probability_given_to_them() -> None:
    loss = build_loss(LossSettings(name="dice"), classes=3, task="multiclass", ignore_index=None)
    target = torch.zeros(1, 8, 8, dtype=torch.int64)
    target[:, :4] = 1  # class 2 is absent
    perfect = torch.full((1, 3, 8, 8), -50.0)
    perfect.scatter_(1, target.unsqueeze(1), 50.0)
    assert loss(perfect, target).item() == pytest.approx(0.0, abs=1e-6)
    wrong = perfect.clone()
    wrong[:, 2, :2] = 200.0  # half of class 1 goes to the absent class: its Dice is 2/3
    assert loss(wrong, target).item() == pytest.approx((1 - 2 / 3) / 2, abs=1e-6)


def test_binary_dice_has_a_loss_where_there_is_no_foreground() -> None:
    loss = build_loss(LossSettings(name="dice"), classes=2, task="binary", ignore_index=None)
    logits = torch.zeros(1, 1, 4, 4, requires_grad=True)
    value = loss(logits, torch.zeros(1, 4, 4, dtype=torch.int64))
    value.backward()
    assert value.item() == pytest.approx(1 - 2 * 8 / (8 + 16))
    assert logits.grad is not None
    assert (logits.grad > 0).all()


def test_focal_with_gamma_zero_is_cross_entropy() -> None:
    logits, target = sample(8, 3)
    focal = build_loss(
        LossSettings(name="focal", focal_gamma=0.0),
        classes=3,
        task="multiclass",
        ignore_index=IGNORE,
    )
    ce = build_loss(LossSettings(name="ce"), classes=3, task="multiclass", ignore_index=IGNORE)
    assert focal(logits, target).item() == ce(logits, target).item()


def test_class_weights_are_no_part_of_a_checkpoint_and_follow_the_module() -> None:
    loss = build_loss(
        LossSettings(name="ce", class_weights=(1.0, 2.0)),
        classes=2,
        task="binary",
        ignore_index=None,
    )
    assert loss.state_dict() == {}
    assert [tuple(b.shape) for b in loss.buffers()] == [(2,)]


def test_class_weights_for_other_classes_are_refused() -> None:
    spec = LossSettings(name="ce", class_weights=(1.0, 1.0, 1.0))
    with pytest.raises(SettingsError) as caught:
        build_loss(spec, classes=2, task="multiclass", ignore_index=None)
    assert str(caught.value) == (
        "class_weights: has 3 numbers for 2 classes. Give 2 numbers, in the order of the classes."
    )
