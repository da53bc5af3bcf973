from __future__ import annotations

import numpy as np
import pytest

from delineate.data.dataset import DatasetInfo
from delineate.data.formats.canvas import Canvas
from delineate.errors import MaskError

INFO = DatasetInfo(classes=("background", "car"), ignore_index=255)


def test_later_covers_earlier_and_the_edges_cut_off() -> None:
    canvas = Canvas((2, 3), INFO, "x")
    first, second = canvas.new_instance(), canvas.new_instance()
    canvas.paint(np.ones((2, 2), bool), 1, instance=first, top_left=(-1, -1))
    canvas.paint(np.ones((3, 2), bool), 1, instance=second, top_left=(0, 2))
    canvas.paint(np.ones((1, 1), bool), 255, top_left=(1, 2))
    canvas.paint(np.ones((1, 1), bool), 1, instance=first, top_left=(5, 9))
    found = canvas.labels()
    assert found.classes.tolist() == [[1, 0, 1], [0, 0, 255]]
    assert found.instances is not None
    assert found.instances.tolist() == [[1, 0, 2], [0, 0, 0]]
    assert found.classes.dtype == np.uint8
    assert Canvas((1, 1), INFO, "x").labels().instances is None


def test_pixels_down_the_columns() -> None:
    canvas = Canvas((2, 2), INFO, "x")
    canvas.paint_pixels(np.array([1, 2, 2]), np.array([1, 255, 1]), 0)
    assert canvas.labels().classes.tolist() == [[0, 1], [1, 0]]


def test_what_nothing_covers() -> None:
    assert (
        Canvas((1, 1), DatasetInfo(classes=("a", "b"), ignore_index=9), "x").labels().classes == 9
    )
    canvas = Canvas((1, 2), DatasetInfo(classes=("a", "b")), "x")
    canvas.paint(np.ones((1, 1), bool), 1)
    with pytest.raises(MaskError) as caught:
        canvas.labels()
    assert str(caught.value) == (
        "x: has pixels outside of all objects, and none of the classes a, b is the background. "
        "Put background into --classes, or leave those pixels out of account with "
        "--ignore-index 255."
    )
    canvas.paint(np.ones((1, 1), bool), 0, top_left=(0, 1))
    whole = canvas.labels()
    assert (whole.classes.tolist(), whole.classes.dtype) == ([[1, 0]], np.uint8)


def test_too_many_objects() -> None:
    canvas = Canvas((1, 1), INFO, "x")
    for _ in range(65535):
        canvas.new_instance()
    with pytest.raises(MaskError) as caught:
        canvas.new_instance()
    assert str(caught.value) == (
        "x: has more than 65535 objects, the most that 16 bits can number. Cut the image into "
        "parts, or join objects."
    )
