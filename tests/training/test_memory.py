from __future__ import annotations

import pytest
import torch
from torch import nn

from delineate.training.memory import activation_bytes, crops_that_fit, out_of_memory


def network(width: int = 8) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1, bias=False),
        nn.ReLU(),
        nn.Conv2d(width, 2, 1, bias=False),
    )


def test_what_a_crop_keeps_is_counted_once() -> None:
    """Input, the rectified map (which rectifier and next convolution both keep), the loss."""
    pixels = 64 * 64
    kept = pixels * 4 * (3 + 8)
    loss = 6 * pixels * 4 * 2
    assert activation_bytes(network(), 3, 64) == kept + loss


def test_it_grows_with_the_crop_and_copies_nothing() -> None:
    wide = network(64)
    small, large = activation_bytes(wide, 3, 64), activation_bytes(wide, 3, 4096)
    assert large == small * 64**2
    assert all(p.device.type == "cpu" for p in wide.parameters())


def test_crops_that_fit() -> None:
    state = 4 * 4 * sum(p.numel() for p in network().parameters())
    assert crops_that_fit(network(), 1000, int((10_000 + state) / 0.6) + 1) == 10
    assert crops_that_fit(network(), 1000, 100) == 0


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (MemoryError(), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), True),
        (RuntimeError("shapes differ"), False),
        (ValueError("can't allocate memory"), False),
    ],
)
def test_out_of_memory(error: Exception, full: bool) -> None:
    assert out_of_memory(error) is full
