from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from delineate.data.dataset import DatasetInfo, Sample
from delineate.data.exporting.pieces import pieces_of
from delineate.data.exporting.writer import Labelled
from delineate.errors import MaskError

INFO = DatasetInfo(classes=("background", "cell", "debris"), ignore_index=255)
SAMPLE = Sample("a", Path("images/a.png"), Path("masks/a.png"), None, Path("instances/a.png"))


def item(labels: np.ndarray, instances: np.ndarray | None) -> Labelled:
    return Labelled(SAMPLE, "train", labels, instances)


def test_each_object_and_the_rest_of_each_class_are_a_piece() -> None:
    labels = np.array([[0, 1, 1, 1], [255, 255, 2, 1]], np.uint8)
    instances = np.array([[0, 9, 9, 0], [9, 0, 300, 0]], np.uint16)
    pieces = pieces_of(item(labels, instances), INFO, "COCO")
    members = [(p.class_id, p.instance, p.ignored, p.background) for p in pieces.members]
    assert members == [
        (1, 9, False, False),
        (2, 300, False, False),
        (0, 0, False, True),
        (1, 0, False, False),
        (255, 0, True, False),
    ]
    assert pieces.ids.tolist() == [[2, 0, 0, 3], [4, 4, 1, 3]]
    assert (pieces.objects, pieces.objects_over_ignored) == (2, 1)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), side=st.integers(1, 12))
def test_pieces_say_again_what_they_were_made_of(seed: int, side: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.choice(np.array([0, 1, 2, 255], np.uint8), (side, side + 1))
    blocks = rng.integers(0, 4, labels.shape)
    instances = np.where((blocks > 0) & (labels % 255 > 0), labels.astype(int) * 1000 + blocks, 0)
    instances = instances.astype(np.uint16)
    pieces = pieces_of(item(labels, instances), INFO, "COCO")
    classes = np.array([piece.class_id for piece in pieces.members])
    objects = np.array([piece.instance for piece in pieces.members])
    assert np.array_equal(classes[pieces.ids], labels)
    assert np.array_equal(objects[pieces.ids], instances)


def test_an_object_of_two_classes_is_refused() -> None:
    labels = np.array([[1, 2]], np.uint8)
    with pytest.raises(MaskError) as caught:
        pieces_of(item(labels, np.array([[5, 5]], np.uint16)), INFO, "COCO")
    assert str(caught.value) == (
        "instances/a.png: gives object 5 pixels of two classes (cell at row 0, column 0, and "
        "debris), and in COCO an object has one. Correct the object ids, or leave them out with "
        "--no-instances."
    )


def test_an_object_on_the_background_is_refused() -> None:
    labels = np.array([[0, 1]], np.uint8)
    with pytest.raises(MaskError) as caught:
        pieces_of(item(labels, np.array([[5, 0]], np.uint16)), INFO, "GeoJSON")
    assert str(caught.value) == (
        "instances/a.png: puts object 5 on pixels of the class background, which has no objects "
        "in GeoJSON. Correct the object ids, or leave them out with --no-instances."
    )


def test_an_object_on_a_background_that_is_written_is_refused() -> None:
    info = DatasetInfo(classes=("cell", "bg"))
    with pytest.raises(MaskError, match="puts object 5 on pixels of the class bg, which has no"):
        pieces_of(item(np.array([[0, 1]], np.uint8), np.array([[0, 5]], np.uint16)), info, "COCO")


def test_a_background_is_written_where_another_class_is_called_so() -> None:
    info = DatasetInfo(classes=("background", "bg"))
    pieces = pieces_of(item(np.array([[0, 1]], np.uint8), None), info, "COCO")
    assert [piece.background for piece in pieces.members] == [False, False]
