from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from delineate.config import ModelSettings
from delineate.models import build
from delineate.types import Task

Network = Callable[..., torch.nn.Module]

# Decoders that are quick to test
WIDTHS = {
    "unet": (32, 16, 16, 8, 8),
    "unet++": (32, 16, 16, 8, 8),
    "attention-unet": (32, 16, 16, 8, 8),
    "manet": (32, 16, 16, 8, 8),
    "fpn": (16, 64),
    "pspnet": (16,),
    "pan": (16,),
    "upernet": (16,),
    "deeplabv3": (16,),
    "deeplabv3+": (16,),
    "segformer": (16,),
}
ENCODERS = {"deeplabv3-resnet101": "resnet50"}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that wait for each other cost small networks more than they give."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def small_network(
    architecture: str,
    *,
    channels: int = 3,
    classes: int = 4,
    task: Task = "multiclass",
    **fields: Any,
) -> torch.nn.Module:
    settings = ModelSettings.model_validate(
        {
            "architecture": architecture,
            "encoder": ENCODERS.get(architecture, "resnet18"),
            "decoder_channels": WIDTHS.get(architecture),
        }
        | fields
    )
    torch.manual_seed(0)
    return build(settings, channels=channels, classes=classes, task=task)


@pytest.fixture(scope="session")
def network() -> Network:
    """Builds an architecture with a narrow decoder, always from the same seed."""
    return small_network
