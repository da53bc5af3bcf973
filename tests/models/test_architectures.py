"""The contract of every architecture: sizes, channels, training on one image, deep supervision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from delineate.models import multiple_of
from delineate.models.build import ARCHITECTURES, DEEPLY_SUPERVISED
from delineate.models.padded import Padded

Network = Callable[..., torch.nn.Module]

MULTIPLES = {"deeplabv3": 8, "deeplabv3+": 16, "deeplabv3-resnet101": 8, "pan": 16, "pspnet": 8}

every_architecture = pytest.mark.parametrize("architecture", ARCHITECTURES)
every_deep = pytest.mark.parametrize("architecture", DEEPLY_SUPERVISED)


def without_gradient(model: torch.nn.Module) -> list[str]:
    return [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]


@every_architecture
def test_every_size_gives_logits_of_that_size(network: Network, architecture: str) -> None:
    model = network(architecture).eval()
    assert multiple_of(model) == MULTIPLES.get(architecture, 32)
    with torch.no_grad():
        for shape in ((1, 3, 1, 1), (2, 3, 33, 47), (2, 3, 97, 64), (2, 3, 32, 64)):
            logits = model(torch.randn(shape))
            assert logits.shape == (shape[0], 4, *shape[2:])
            assert torch.isfinite(logits).all()


@every_architecture
def test_padding_replicates_the_last_row_and_column(network: Network, architecture: str) -> None:
    model = network(architecture).eval()
    multiple = multiple_of(model)
    image = torch.randn(1, 3, 45, 33)
    below, right = -45 % multiple, -33 % multiple
    wide = torch.cat([image, image[..., -1:].expand(-1, -1, -1, right)], dim=3)
    padded = torch.cat([wide, wide[:, :, -1:].expand(-1, -1, below, -1)], dim=2)
    with torch.no_grad():
        assert torch.equal(model(image), model(padded)[:, :, :45, :33])


@every_architecture
@pytest.mark.parametrize("channels", [1, 16])
def test_every_channel_count_and_the_binary_task(
    network: Network, architecture: str, channels: int
) -> None:
    model = network(architecture, channels=channels, classes=2, task="binary").eval()
    with torch.no_grad():
        assert model(torch.randn(1, channels, 20, 40)).shape == (1, 1, 20, 40)


@every_architecture
def test_a_batch_of_one_trains_and_every_parameter_gets_a_gradient(
    network: Network, architecture: str
) -> None:
    model = network(architecture).train()
    model(torch.randn(2, 3, 64, 96)).square().mean().backward()
    assert without_gradient(model) == []
    for size in ((64, 64), (16, 16), (1, 1)):
        logits = model(torch.randn(1, 3, *size))
        logits.mean().backward()
        assert logits.shape == (1, 4, *size)


# Height and width of what an image of 64 x 96 gives behind the logits of full size
COARSER = {
    "unet": [(32, 48), (16, 24), (8, 12)],
    "unet++": [(32, 48)] * 3,
    "attention-unet": [(32, 48), (16, 24), (8, 12)],
    "manet": [(32, 48), (16, 24), (8, 12)],
    "deeplabv3-resnet101": [(8, 12)],
    "fast-scnn": [(8, 12), (2, 3)],
    "ddrnet-23-slim": [(8, 12)],
}


@every_deep
def test_deep_supervision_gives_coarser_logits_while_it_trains(
    network: Network, architecture: str
) -> None:
    model = network(architecture, deep_supervision=True)
    images = torch.randn(2, 3, 64, 96)
    every = model.train()(images)
    assert isinstance(every, list)
    assert [tuple(logits.shape) for logits in every] == [
        (2, 4, *size) for size in [(64, 96), *COARSER[architecture]]
    ]
    total: Any = sum(logits.square().mean() for logits in every)
    total.backward()
    assert without_gradient(model) == []
    with torch.no_grad():
        assert isinstance(model.eval()(images), Tensor)


@every_deep
def test_deep_supervision_leaves_the_logits_of_full_size_alone(
    network: Network, architecture: str
) -> None:
    deep = network(architecture, deep_supervision=True)
    plain = network(architecture)
    # The wrapper of deep supervision is one "network." more
    stored = {key.replace("network.", ""): value for key, value in deep.state_dict().items()}
    plain.load_state_dict({k: stored[k.replace("network.", "")] for k in plain.state_dict()})
    images = torch.randn(2, 3, 64, 96)
    for model in (deep, plain):  # dropout draws in training, so nothing may be dropped
        for module in model.train().modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
    torch.testing.assert_close(deep(images)[0], plain(images))
    with torch.no_grad():
        torch.testing.assert_close(deep.eval()(images), plain.eval()(images))


class Grids(torch.nn.Module):
    """Gives the positions of the rows: those of full size, and every fourth."""

    def forward(self, images: Tensor) -> list[Tensor]:
        return [images, images[:, :, ::4, ::4]]


@pytest.mark.parametrize(("size", "grid"), [((64, 64), (16, 16)), ((33, 47), (9, 12))])
def test_coarser_logits_are_cropped_to_the_image(
    size: tuple[int, int], grid: tuple[int, int]
) -> None:
    images = torch.arange(size[0]).float()[None, None, :, None].expand(1, 1, *size)
    full, coarse = Padded(Grids(), 32)(images)
    assert torch.equal(full, images)
    assert coarse.shape[2:] == grid
    assert torch.equal(coarse[0, 0, :, 0], images[0, 0, ::4, 0])


def test_downscaled_logits_are_enlarged_and_the_coarser_ones_left(network: Network) -> None:
    model = network("unet", deep_supervision=True, downscale=2).train()
    assert multiple_of(model) == 64
    every = model(torch.randn(1, 3, 64, 128))
    assert [tuple(x.shape[2:]) for x in every] == [(64, 128), (16, 32), (8, 16), (4, 8)]
