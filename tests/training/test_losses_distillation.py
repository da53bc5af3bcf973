from __future__ import annotations

import math

import pytest
import torch

from delineate.config import DistillationSettings
from delineate.training.losses.distillation import DistillationLoss

PAIRS = [(0, 0), (1, 1), (2, 2)]


def logits(seed: int, planes: int = 3, side: int = 16) -> torch.Tensor:
    return 3 * torch.randn(2, planes, side, side, generator=torch.Generator().manual_seed(seed))


def loss(pairs: list[tuple[int, int]] = PAIRS, **settings: float) -> DistillationLoss:
    return DistillationLoss(DistillationSettings(**settings), pairs)


@pytest.mark.parametrize("settings", [{"pixels": 1.0}, {"pixels": 0.0, "channels": 3.0}])
def test_a_student_that_says_the_same_has_nothing_to_learn(settings: dict[str, float]) -> None:
    same = logits(0).requires_grad_()
    value = loss(**settings)(same, logits(0))
    value.backward()
    assert float(value.detach()) == pytest.approx(0, abs=1e-5)
    assert same.grad is not None
    assert float(same.grad.abs().max()) < 1e-5
    assert float(loss(**settings)(logits(1), logits(0))) > 0.1


def test_pixels_are_the_divergence_at_a_temperature() -> None:
    student, teacher = logits(1), logits(2)
    found = float(loss(temperature=2.0)(student, teacher))
    p = torch.distributions.Categorical(logits=(teacher / 2).movedim(1, -1))
    q = torch.distributions.Categorical(logits=(student / 2).movedim(1, -1))
    wanted = 4 * torch.distributions.kl_divergence(p, q).mean()
    assert found == pytest.approx(float(wanted), rel=1e-4)


def over_places(x: torch.Tensor, temperature: float) -> torch.distributions.Categorical:
    cells = x.unfold(2, 8, 8).unfold(3, 8, 8).mean((4, 5))
    return torch.distributions.Categorical(logits=cells.flatten(2) / temperature)


def test_channels_are_the_divergence_over_places() -> None:
    student, teacher = logits(1, side=32), logits(2, side=32)
    places = loss(pixels=0.0, channels=1.0, channel_temperature=4.0)
    found = float(places(student, teacher))
    p, q = over_places(teacher, 4.0), over_places(student, 4.0)
    assert found == pytest.approx(
        float(16 * torch.distributions.kl_divergence(p, q).mean()), rel=1e-4
    )
    # a class may shift everywhere alike without any place changing
    shifted = student + torch.tensor([5.0, 0.0, -5.0]).reshape(1, 3, 1, 1)
    assert float(places(shifted, teacher)) == pytest.approx(found, rel=1e-4)


def test_classes_go_by_their_pairs() -> None:
    teacher = logits(2)
    shuffled = teacher[:, [2, 0, 1]]
    found = loss([(0, 1), (1, 2), (2, 0)])(logits(1), shuffled)
    assert float(found) == pytest.approx(float(loss()(logits(1), teacher)), rel=1e-5)


def test_a_class_that_the_teacher_does_not_know_takes_no_part() -> None:
    student = logits(1, planes=4).requires_grad_()
    loss()(student, logits(2)).backward()
    assert student.grad is not None
    assert float(student.grad[:, 3].abs().max()) == 0
    assert float(student.grad[:, :3].abs().max()) > 0


def test_one_plane_stands_for_two_classes() -> None:
    one = logits(1, planes=1)
    two = torch.cat([torch.zeros_like(one), one], 1)
    teacher = logits(2, planes=2)
    pairs = [(0, 0), (1, 1)]
    assert float(loss(pairs)(one, teacher)) == pytest.approx(float(loss(pairs)(two, teacher)))


def test_half_precision_does_not_overflow() -> None:
    value = loss(channels=1.0)((4000 * logits(1)).half(), 4000 * logits(2))
    assert math.isfinite(float(value))
