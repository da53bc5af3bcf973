"""A PyTorch module as a predictor."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from delineate.config import Normalisation
from delineate.engines.pytorch import TorchPredictor, as_tensor
from delineate.types import OUTPUTS, PredictorSpec


class Recorder(nn.Module):
    """Gives back what it gets, and keeps it."""

    def __init__(self):
        super().__init__()
        self.seen = None

    def forward(self, x):
        self.seen = x
        return x


def _spec(classes, dtype="uint8", channels=3):
    names = tuple(f"class {k}" for k in range(classes))
    task = "binary" if classes == 2 and channels == 1 else "multiclass"
    return PredictorSpec(names, task, channels, dtype)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", ">u2", ">f4"])
def test_pixels_reach_the_module_normalised(dtype):
    images = np.arange(2 * 4 * 5 * 3).reshape(2, 4, 5, 3).astype(dtype)
    module = Recorder()
    normalisation = Normalisation(mean=(10.0, 20.0, 30.0), std=(2.0, 4.0, 8.0))
    TorchPredictor(module, _spec(3, np.dtype(dtype).name), normalisation).predict(images)
    expected = (images.astype(np.float64) - [10, 20, 30]) / [2, 4, 8]
    assert module.seen.dtype == torch.float32
    assert module.seen.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_allclose(module.seen.numpy().transpose(0, 2, 3, 1), expected, rtol=1e-6)


@pytest.mark.parametrize("top", [255, 65535])
def test_every_value_of_a_pixel_survives(top):
    dtype = np.uint8 if top == 255 else np.uint16
    images = np.arange(top + 1, dtype=dtype).reshape(1, -1, 256, 1)
    tensor = as_tensor(images, torch.device("cpu"))
    assert tensor.shape == (1, 1, (top + 1) // 256, 256)
    np.testing.assert_array_equal(tensor.numpy().ravel(), np.arange(top + 1))


def test_one_logit_makes_two_planes_that_sum_to_255():
    logits = np.linspace(-8, 8, 201, dtype=np.float32).reshape(1, 1, -1, 1)
    identity = Normalisation(mean=(0.0,), std=(1.0,))
    predictor = TorchPredictor(Recorder(), _spec(2, "float32", 1), identity)
    found = predictor.predict(logits, OUTPUTS)
    foreground = 1 / (1 + np.exp(-logits[..., 0].astype(np.float64)))
    np.testing.assert_array_equal(found["labels"], logits[..., 0] > 0)
    np.testing.assert_allclose(found["probabilities"][:, 1], foreground * 255, atol=0.51)
    assert (found["probabilities"].sum(axis=1, dtype=np.int64) == 255).all()
    largest = np.maximum(foreground, 1 - foreground)
    np.testing.assert_allclose(found["confidence"], largest * 255, atol=0.51)
    entropy = -(foreground * np.log(foreground) + (1 - foreground) * np.log(1 - foreground))
    expected = [[101 / 201, 100 / 201, largest.mean(), entropy.mean()]]
    np.testing.assert_allclose(found["summary"], expected, atol=1e-5)


@pytest.mark.parametrize(("classes", "dtype"), [(256, np.uint8), (257, np.uint16)])
def test_many_classes_get_wider_labels(classes, dtype):
    module = nn.Conv2d(1, classes, 1)
    with torch.no_grad():
        module.weight.zero_()
        module.bias.copy_(torch.arange(classes))
    predictor = TorchPredictor(
        module, _spec(classes, channels=1), Normalisation(mean=(0,), std=(1,))
    )
    labels = predictor.predict(np.zeros((1, 2, 2, 1), np.uint8))["labels"]
    assert labels.dtype == dtype
    assert (labels == classes - 1).all()


def test_the_module_stays_in_its_own_mode():
    module = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(0.5)).train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    predictor = TorchPredictor(module.eval(), _spec(3), Normalisation(mean=(0,) * 3, std=(1,) * 3))
    predictor.predict(np.full((2, 4, 4, 3), 200, np.uint8), OUTPUTS)
    assert not module.training
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name])


def test_arithmetic_of_half_the_bits_gives_float32_results():
    torch.manual_seed(0)
    module = nn.Conv2d(3, 4, 3, padding=1).eval()
    normalisation = Normalisation(mean=(127.0,) * 3, std=(60.0,) * 3)
    images = np.random.default_rng(0).integers(0, 256, (1, 16, 16, 3), np.uint8)
    exact = TorchPredictor(module, _spec(4), normalisation)
    rough = TorchPredictor(module, _spec(4), normalisation, autocast=torch.bfloat16)
    a, b = exact.predict(images, OUTPUTS), rough.predict(images, OUTPUTS)
    assert b["summary"].dtype == np.float32
    assert (a["probabilities"] != b["probabilities"]).any()  # it was used
    assert np.abs(a["probabilities"].astype(int) - b["probabilities"]).max() <= 5
