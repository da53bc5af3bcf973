"""A piece of an image, of a size that is asked for."""

from __future__ import annotations

import numpy as np
from jaxtyping import Shaped


def top_left(
    image: Shaped[np.ndarray, "_ _ c"],
    largest: tuple[int, int],
    least: tuple[int, int] = (0, 0),
) -> Shaped[np.ndarray, "_ _ c"]:
    """The top left of an image, continued by its own mirror image where it is too small.

    Args:
        image: (H, W, C).
        largest: height and width that are kept, pixels.
        least: height and width that the result has at least.
    """
    cut = image[: largest[0], : largest[1]]
    missing = [(0, max(size - have, 0)) for size, have in zip(least, cut.shape, strict=False)]
    return np.ascontiguousarray(np.pad(cut, (*missing, (0, 0)), mode="symmetric"))
