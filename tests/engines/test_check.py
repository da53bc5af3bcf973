"""What does not fit is refused by every engine in the same words."""

from __future__ import annotations

import numpy as np
import pytest

from delineate.engines.check import check_batch, check_outputs
from delineate.errors import ImageError, SettingsError
from delineate.types import OUTPUTS, PredictorSpec

SPEC = PredictorSpec(("a", "b"), "multiclass", 3, "uint8")
TILES = PredictorSpec(("a", "b"), "multiclass", 3, "uint8", fixed_hw=(6, 8), largest_batch=2)


def test_what_fits_passes():
    check_batch(np.zeros((5, 1, 1, 3), np.uint8), OUTPUTS, SPEC)
    check_batch(np.zeros((2, 6, 8, 3), np.uint8), ("labels",), TILES)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("shape", "dtype", "spec", "message"),
    [
        (
            (6, 8, 3),
            "uint8",
            SPEC,
            "a batch of shape (6, 8, 3) was given. Give (N, H, W, C); image[None] makes a batch "
            "of one image.",
        ),
        (
            (1, 6, 8, 3),
            "uint16",
            SPEC,
            "pixels are uint16, the model takes uint8. Convert the image to uint8 in the value "
            "range the model was trained on.",
        ),
        (
            (1, 6, 8, 4),
            "uint8",
            SPEC,
            "the image has 4 channels, the model takes 3.",
        ),
        (
            (0, 6, 8, 3),
            "uint8",
            SPEC,
            "a batch of shape (0, 6, 8, 3) holds no pixels.",
        ),
        (
            (1, 6, 0, 3),
            "uint8",
            SPEC,
            "a batch of shape (1, 6, 0, 3) holds no pixels.",
        ),
        (
            (1, 8, 6, 3),
            "uint8",
            TILES,
            "the image is 8 x 6 (height x width), the model takes only 6 x 8. "
            "delineate.tiling.segment cuts any image into such tiles.",
        ),
        (
            (3, 6, 8, 3),
            "uint8",
            TILES,
            "a batch of 3 images was given, the model takes 2 at most.",
        ),
    ],
)
def test_a_batch_that_does_not_fit(shape, dtype, spec, message):
    with pytest.raises(ImageError) as caught:
        check_batch(np.zeros(shape, dtype), ("labels",), spec)
    assert str(caught.value) == message


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("outputs", "asked"), [((), "none"), (("labels", "mask", "logits"), "mask, logits")]
)
def test_outputs_that_are_none(outputs, asked):
    with pytest.raises(SettingsError) as caught:
        check_outputs(outputs)
    assert str(caught.value) == (
        f"asked for outputs {asked}. Choose from labels, confidence, probabilities, summary."
    )
