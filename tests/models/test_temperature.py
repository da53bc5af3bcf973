from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from delineate.models.temperature import BOUNDS, Tempered, best_temperature


def test_logits_are_divided_and_no_class_changes():
    x = torch.randn(2, 5, 7, 3, generator=torch.Generator().manual_seed(0))
    found = Tempered(nn.Identity(), 2.5)(x)
    torch.testing.assert_close(found, x / 2.5)
    assert torch.equal(found.argmax(dim=1), x.argmax(dim=1))


@pytest.mark.parametrize(("right", "logit"), [(0.9, 20.0), (0.6, 1.0), (0.75, 0.3)])
def test_the_most_likely_temperature_of_two_classes(right, logit):
    """A network whose logit is always the same is best as sure as it is often right."""
    truth = (torch.arange(1000) < 1000 * right).long()
    logits = torch.tensor([[0.0, logit]]).repeat(1000, 1)
    expected = logit / math.log(right / (1 - right))
    assert best_temperature(logits, truth) == pytest.approx(expected, rel=1e-3)


def test_the_temperature_of_logits_that_are_drawn_from():
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(20_000, 6, generator=generator) * 2
    truth = torch.multinomial((logits / 1.7).softmax(dim=1), 1, generator=generator)[:, 0]
    assert best_temperature(logits, truth) == pytest.approx(1.7, rel=0.04)


def test_it_stays_within_its_bounds():
    logits = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    assert best_temperature(logits, torch.tensor([1, 0])) == pytest.approx(BOUNDS[0], rel=1e-3)
    assert best_temperature(logits, torch.tensor([0, 1])) == pytest.approx(BOUNDS[1], rel=1e-3)
