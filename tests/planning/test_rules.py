from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from delineate.config import ModelSettings, Normalisation
from delineate.planning.fingerprint import Fingerprint
from delineate.planning.look import FirstLook
from delineate.planning.rules import balancing_weights, default_plan, ruled

LOOK = FirstLook(
    channels=3,
    dtype="uint8",
    normalisation=Normalisation(mean=(0.0,), std=(1.0,)),
    smallest_side_px=100,
    class_shares=(0.25, 0.25, 0.5),
)
LARGE = replace(LOOK, smallest_side_px=320)


@pytest.mark.parametrize(("side", "crop"), [(20, 32), (100, 96), (319, 256), (320, 256)])
def test_crops_are_no_larger_than_the_smallest_image(side: int, crop: int) -> None:
    assert default_plan(replace(LOOK, smallest_side_px=side)).crop_px == crop


@pytest.mark.parametrize(
    ("side", "half", "eighth", "architecture", "downscale"),
    [
        (320, 1.0, 0.75, "ddrnet-23-slim", 1),
        (320, 1.0, 0.74, "unet", 2),
        (320, 0.94, 0.3, "unet", 1),
        (319, 0.95, 1.0, "unet", 2),
        (319, 0.94, 1.0, "unet", 1),
        (127, 1.0, 1.0, "unet", 1),
    ],
)
def test_the_network_goes_by_size_and_by_what_coarse_cells_leave(
    side: int, half: float, eighth: float, architecture: str, downscale: int
) -> None:
    look = replace(LOOK, smallest_side_px=side, half_ceiling=half, eighth_ceiling=eighth)
    found = default_plan(look).model
    assert (found.architecture, found.downscale) == (architecture, downscale)
    narrow = None if architecture != "unet" else (128, 64, 32, 16, 16)
    assert found.decoder_channels == narrow


@pytest.mark.parametrize(("between", "by"), [(0.0, "dataset"), (0.49, "dataset"), (0.5, "image")])
def test_images_that_differ_are_normalised_each_by_itself(between: float, by: str) -> None:
    assert default_plan(replace(LOOK, between_images=between)).normalisation == by


@pytest.mark.parametrize(
    ("architecture", "downscale", "narrow"),
    [("unet", 2, True), ("manet", 2, True), ("fpn", 2, False), ("fast-scnn", 1, False)],
)
def test_an_architecture_that_was_chosen(architecture: str, downscale: int, narrow: bool) -> None:
    found = default_plan(LARGE, architecture).model
    assert (found.architecture, found.downscale) == (architecture, downscale)
    assert (found.decoder_channels is not None) is narrow


def test_deep_supervision_is_for_ddrnet_alone() -> None:
    assert default_plan(LARGE).model.deep_supervision
    assert not default_plan(LARGE, "fast-scnn").model.deep_supervision
    assert not default_plan(LOOK).model.deep_supervision


def test_images_without_an_up_are_turned_and_flipped() -> None:
    upright = default_plan(LOOK).augmentation
    assert (upright.horizontal_flip, upright.vertical_flip, upright.rotation_degrees) == (
        0.5,
        0,
        10,
    )
    free = default_plan(replace(LOOK, upright=False)).augmentation
    assert (free.horizontal_flip, free.vertical_flip, free.rotation_degrees) == (0.5, 0.5, 180)


@pytest.mark.parametrize("upright", [True, False])
def test_left_and_right_are_not_mixed_up(upright: bool) -> None:
    found = default_plan(replace(LOOK, upright=upright, sided=True)).augmentation
    assert (found.horizontal_flip, found.vertical_flip, found.rotation_degrees) == (0, 0, 10)


def test_rare_classes_weigh_more() -> None:
    assert balancing_weights((0.64, 0.32, 0.04)) == (0.7984, 1.1291, 3.1935)
    weights = balancing_weights((0.9, 0.1 - 1e-9, 1e-9))
    assert weights is not None
    assert weights[2] == pytest.approx(8 * weights[0], rel=1e-3)  # the heaviest there is
    never_seen = balancing_weights((0.5, 0.5, 0.0))
    assert never_seen == (1.0, 1.0, 1.0)


@given(st.lists(st.floats(0.01, 1.0), min_size=3, max_size=20))
def test_weights_are_1_in_the_mean_over_pixels(amounts: list[float]) -> None:
    shares = tuple(float(v) for v in np.array(amounts) / sum(amounts))
    weights = balancing_weights(shares)
    assert weights is not None
    assert float(np.dot(weights, shares)) == pytest.approx(1, abs=1e-3)


def test_no_weights_where_they_have_no_place() -> None:
    assert balancing_weights((0.9, 0.1)) is None
    assert balancing_weights((0.0, 0.0, 0.0)) is None


Make = Callable[..., Fingerprint]


def test_the_chosen_network_is_in_the_plan(make_fingerprint: Make) -> None:
    model = ModelSettings(architecture="fpn", encoder="resnet18", downscale=2)
    found = ruled(make_fingerprint(), model)
    assert found.plan.model == model
    assert found.plan.augmentation == default_plan(LARGE).augmentation
    chosen = ModelSettings(architecture="ddrnet-23-slim", encoder="none")
    assert ruled(make_fingerprint(), chosen).plan.model.deep_supervision


def test_a_rare_class_gets_crops_of_its_own(make_fingerprint: Make) -> None:
    common = ruled(make_fingerprint(share=0.02))
    assert common.plan.sampling.balanced == 0
    assert "sampling.balanced" not in common.reasons
    rare = ruled(make_fingerprint(share=0.009))
    assert rare.plan.sampling.balanced == 0.33
    assert rare.reasons["sampling.balanced"] == "thing: less than 1% of the pixels each"


def test_few_images_are_augmented_more(make_fingerprint: Make) -> None:
    many, few = ruled(make_fingerprint(labelled=50)), ruled(make_fingerprint(labelled=49))
    usual, strong = many.plan.augmentation, few.plan.augmentation
    assert (strong.elastic, strong.blur) == (2 * usual.elastic, 2 * usual.blur)
    assert few.reasons["augmentation.noise"] == "49 labelled images: fewer than 50"
    assert "augmentation.noise" not in many.reasons


def test_images_of_one_tile_are_not_tiled(make_fingerprint: Make) -> None:
    found = ruled(make_fingerprint(side_px=1024.0))
    assert found.plan.tiling == default_plan(LARGE).tiling
    assert found.reasons["tiling.tile_px"] == "images of up to 1024 px go through whole"


@pytest.mark.parametrize(("object_px", "overlap_px"), [(40.0, 128), (200.0, 224), (900.0, 256)])
def test_the_overlap_holds_an_object(
    make_fingerprint: Make, object_px: float, overlap_px: int
) -> None:
    found = ruled(make_fingerprint(side_px=5000.0, object_px=object_px))
    assert (found.plan.tiling.tile_px, found.plan.tiling.overlap_px) == (1024, overlap_px)
    limited = "a quarter of a tile is the limit" in found.reasons["tiling"]
    assert limited is (object_px == 900)


def test_what_the_images_look_like_is_given_as_a_reason(make_fingerprint: Make) -> None:
    found = ruled(make_fingerprint(upright=False, sided=True, classes=3))
    assert "no class lies in the upper" in found.reasons["augmentation.vertical_flip"]
    assert "as the left and as the right" in found.reasons["augmentation.horizontal_flip"]
    assert "more than two classes" in found.reasons["loss.class_weights"]
    assert found.plan.loss.class_weights is not None
    assert "3 channels" in found.reasons["normalisation"]
    small = ruled(make_fingerprint(side_px=100.0))
    assert small.plan.crop_px == 96
    assert small.reasons["crop_px"] == "the smallest image has 100 px a side"
