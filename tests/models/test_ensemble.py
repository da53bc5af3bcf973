from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from delineate.config import Normalisation
from delineate.export import export_network
from delineate.models.ensemble import Ensemble, Member, mean_normalisation

FIRST = Normalisation(mean=(100.0, 90.0, 80.0), std=(50.0, 40.0, 60.0))
SECOND = Normalisation(mean=(120.0, 70.0, 85.0), std=(45.0, 55.0, 30.0))


class Fixed(nn.Module):
    """The same logits whatever the image."""

    def __init__(self, *logits: float) -> None:
        super().__init__()
        self.logits = torch.tensor(logits).reshape(1, -1, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.logits.expand(len(images), -1, *images.shape[-2:])


def convolutions(planes: int) -> list[Member]:
    members = []
    for seed, normalisation in enumerate((FIRST, SECOND)):
        torch.manual_seed(seed)
        network = nn.Conv2d(3, planes, 3, padding=1, padding_mode="replicate")
        members.append(Member(network, normalisation, 1.0 + seed))
    return members


def probabilities(logits: Tensor) -> Tensor:
    return logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(dim=1)


@pytest.mark.parametrize("planes", [1, 4])
def test_it_is_the_mean_of_the_members(planes: int) -> None:
    members = convolutions(planes)
    common = mean_normalisation([FIRST, SECOND])
    raw = torch.randint(0, 256, (2, 3, 9, 7)).float()

    def normalised(by: Normalisation) -> Tensor:
        mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in (by.mean, by.std))
        return (raw - mean) / std

    with torch.no_grad():
        each = [
            probabilities(m.network(normalised(m.normalisation)) / m.temperature) for m in members
        ]
        logits = Ensemble(members, common)(normalised(common))
    torch.testing.assert_close(probabilities(logits), (each[0] + each[1]) / 2)
    if planes > 1:  # logarithms of probabilities, not of anything in proportion to them
        torch.testing.assert_close(logits.exp().sum(dim=1), torch.ones(2, 9, 7))


def test_certain_members_stay_finite() -> None:
    images = torch.zeros(1, 3, 2, 2)
    sure = [Member(Fixed(300.0, -300.0), FIRST), Member(Fixed(-300.0, 300.0), FIRST)]
    logits = Ensemble(sure, FIRST)(images)
    torch.testing.assert_close(logits.softmax(dim=1), torch.full((1, 2, 2, 2), 0.5))
    binary = [Member(Fixed(200.0), FIRST), Member(Fixed(200.0), FIRST)]
    assert Ensemble(binary, FIRST)(images).flatten().tolist() == pytest.approx([200.0] * 4)


def test_the_mean_is_of_probabilities_not_of_logits() -> None:
    members = [Member(Fixed(math.log(9)), FIRST), Member(Fixed(0.0), FIRST)]
    found = Ensemble(members, FIRST)(torch.zeros(1, 3, 1, 1)).sigmoid()
    assert float(found) == pytest.approx((0.9 + 0.5) / 2)


@pytest.mark.parametrize("planes", [1, 4])
def test_it_is_one_graph(planes: int) -> None:
    ensemble = Ensemble(convolutions(planes), FIRST).eval()
    model = export_network(ensemble, 3)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    images = torch.randn(3, 3, 21, 13)
    with torch.no_grad():
        expected = ensemble(images).numpy()
    found = session.run(None, {"x": images.numpy()})[0]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_images_that_are_normalised_by_themselves_are_the_same_for_all() -> None:
    kinds = [FIRST.model_copy(update={"by": "image"}), SECOND.model_copy(update={"by": "image"})]
    members = [
        replace(member, normalisation=kind)
        for member, kind in zip(convolutions(4), kinds, strict=True)
    ]
    common = mean_normalisation(kinds)
    assert common.by == "image"
    x = torch.randn(2, 3, 9, 7)
    with torch.no_grad():
        each = [probabilities(m.network(x) / m.temperature) for m in members]
        logits = Ensemble(members, common)(x)
    torch.testing.assert_close(probabilities(logits), (each[0] + each[1]) / 2)


def test_the_normalisation_in_the_middle() -> None:
    found = mean_normalisation([FIRST, SECOND])
    assert found.mean == (110.0, 80.0, 82.5)
    assert found.std == (47.5, 47.5, 45.0)
