from __future__ import annotations

from typing import get_args

import pytest

from delineate.config import Architecture, ModelSettings
from delineate.planning.candidates import (
    FAMILIES,
    LOGITS_STRIDE,
    candidate,
    candidates,
    size_of,
)


def test_every_architecture_has_a_stride() -> None:
    assert set(LOGITS_STRIDE) == set(get_args(Architecture))


def test_names_tell_candidates_apart() -> None:
    found = candidates(360)
    assert len({item.name for item in found}) == len(found) == 2 * len(FAMILIES)
    names = {item.name for item in found}
    assert {"DDRNet-23-slim", "U-Net resnet18 narrow at 1/2", "SegFormer mit-b0"} <= names


def test_the_stride_counts_the_input_scale() -> None:
    settings = ModelSettings(architecture="deeplabv3+", downscale=2)
    assert candidate(settings).stride == 8
    assert candidate(ModelSettings()).stride == 1


def test_small_images_are_not_made_smaller() -> None:
    assert {item.model.downscale for item in candidates(63)} == {1}


@pytest.mark.parametrize("channels", [1, 4])
def test_multiply_adds_go_with_the_area_and_parameters_do_not(channels: int) -> None:
    def size(side: int, downscale: int = 1) -> tuple[int, int]:
        model = ModelSettings.model_validate({"architecture": "fpn", "downscale": downscale})
        found = size_of(
            model, channels=channels, classes=2, task="binary", image_hw=(side, 2 * side)
        )
        return found.parameters, found.multiply_adds

    small, large, halved = size(64), size(128), size(128, 2)
    assert small[0] == large[0] == halved[0]
    assert large[1] == pytest.approx(4 * small[1], rel=0.01)
    assert halved[1] == pytest.approx(small[1], rel=0.01)


def test_multiply_adds_of_one_layer_are_those_counted_by_hand() -> None:
    size = size_of(
        ModelSettings(architecture="unet", encoder="resnet18"),
        channels=3,
        classes=2,
        task="binary",
        image_hw=(64, 64),
    )
    wider = size_of(
        ModelSettings(architecture="unet", encoder="resnet18"),
        channels=4,
        classes=2,
        task="binary",
        image_hw=(64, 64),
    )
    first = 64 * 7 * 7  # weights of the first convolution for one more channel
    assert wider.parameters - size.parameters == first
    assert wider.multiply_adds - size.multiply_adds == first * 32 * 32
