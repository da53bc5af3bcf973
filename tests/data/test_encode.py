"""Files of arrays are read again as they were."""

from __future__ import annotations

import numpy as np
import pytest

from delineate.data.encode import encode_image
from delineate.data.images import decode_image
from delineate.errors import OutputError


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".tif", ".webp"])
@pytest.mark.parametrize(
    ("channels", "dtype"),
    [(1, "uint8"), (3, "uint8"), (3, "uint16"), (2, "uint8"), (5, "uint16"), (1, "float32")],
)
def test_any_kind_of_image_comes_back(channels: int, dtype: str, suffix: str) -> None:
    image = np.arange(8 * 6 * channels).reshape(8, 6, channels).astype(dtype)
    assert np.array_equal(decode_image(encode_image(image, suffix), "x"), image)


def test_a_jpeg_is_one() -> None:
    image = np.full((8, 8, 3), (200, 20, 20), np.uint8)
    content = encode_image(image, ".jpg")
    assert content.startswith(b"\xff\xd8")
    assert np.abs(decode_image(content, "x").astype(int) - image).max() < 8


def test_an_image_that_a_format_cannot_hold() -> None:
    with pytest.raises(OutputError, match=r"an image of 70000 x 1 px cannot be written as \.jpg"):
        encode_image(np.zeros((1, 70_000, 1), np.uint8), ".jpg")
