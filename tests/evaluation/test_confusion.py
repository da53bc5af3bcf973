from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix

from delineate.errors import MaskError, ModelError, SettingsError
from delineate.evaluation import confusion as module
from delineate.evaluation.confusion import Confusion, confusion_of

NAMES = tuple("abcdefghij")


def random_pair(
    seed: int, k: int, ignore: int | None, dtype: type = np.uint8, size: tuple[int, int] = (23, 31)
) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, k, size).astype(dtype)
    labels = rng.integers(0, k, size).astype(dtype)
    if ignore is not None:
        truth[rng.random(size) < 0.2] = ignore
    return truth, labels


@given(st.integers(0, 2**32), st.integers(2, 10), st.sampled_from([None, 0, 10, 255]))
def test_agrees_with_scikit_learn(seed: int, k: int, ignore: int | None) -> None:
    truth, labels = random_pair(seed, k, ignore)
    counted = np.full(truth.shape, True) if ignore is None else truth != ignore
    expected = np.zeros((k, k), int)
    if counted.any():
        expected = confusion_matrix(truth[counted], labels[counted], labels=range(k))
    assert np.array_equal(confusion_of(truth, labels, NAMES[:k], ignore).counts, expected)


@pytest.mark.parametrize("truth_dtype", [np.uint8, np.uint16, np.uint32])
@pytest.mark.parametrize("labels_dtype", [np.uint8, np.uint16])
def test_every_type_counts_alike(truth_dtype: type, labels_dtype: type) -> None:
    truth, labels = random_pair(1, 5, 255)
    bytes_only = confusion_of(truth, labels, NAMES[:5], 255).counts
    wider = confusion_of(
        truth.astype(truth_dtype), labels.astype(labels_dtype), NAMES[:5], 255
    ).counts
    assert bytes_only.dtype == np.int64
    assert np.array_equal(bytes_only, wider)


def test_more_than_256_classes() -> None:
    names = [f"c{i}" for i in range(700)]
    truth, labels = random_pair(2, 700, 65535, np.uint16)
    counts = confusion_of(truth, labels, names, 65535).counts
    counted = truth != 65535
    expected = np.zeros((700, 700), np.int64)
    np.add.at(expected, (truth[counted], labels[counted]), 1)
    assert np.array_equal(counts, expected)


def test_byte_maps_of_more_than_256_classes_fill_the_corner() -> None:
    names = [f"c{i}" for i in range(300)]
    counts = confusion_of(np.uint8([[255, 3]]), np.uint8([[254, 3]]), names).counts
    assert counts[255, 254] == 1
    assert counts[3, 3] == 1
    assert counts.sum() == 2


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_pixels_beyond_one_chunk_are_counted(dtype: type, monkeypatch: pytest.MonkeyPatch) -> None:
    truth, labels = random_pair(3, 4, 255, dtype)
    whole = confusion_of(truth, labels, NAMES[:4], 255).counts
    monkeypatch.setattr(module, "_CHUNK_PX", 50)
    assert np.array_equal(confusion_of(truth, labels, NAMES[:4], 255).counts, whole)


@given(st.permutations(range(6)))
def test_merging_does_not_depend_on_the_order(order: list[int]) -> None:
    parts = [confusion_of(*random_pair(i, 3, 255), NAMES[:3], 255) for i in range(6)]
    total = Confusion(NAMES[:3], 255)
    for i in order:
        total.merge(parts[i])
    streamed = Confusion(NAMES[:3], 255)
    for i in range(6):
        streamed.update(*random_pair(i, 3, 255))
    assert np.array_equal(total.counts, streamed.counts)


def test_an_ignore_index_inside_the_classes_leaves_its_row_empty() -> None:
    counts = confusion_of(np.uint8([[0, 1, 1]]), np.uint8([[1, 0, 1]]), NAMES[:2], 0).counts
    assert counts.tolist() == [[0, 0], [1, 1]]


def test_an_empty_map_counts_nothing() -> None:
    empty = np.zeros((0, 4), np.uint8)
    assert confusion_of(empty, empty, NAMES[:2]).counts.sum() == 0


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
class TestWrongIds:
    def test_in_the_truth(self, dtype: type) -> None:
        confusion = Confusion(NAMES[:2], 255)
        with pytest.raises(MaskError) as caught:
            confusion.update(
                np.array([[0, 7, 7, 4]], dtype), np.zeros((1, 4), dtype), where="a/b.png"
            )
        assert str(caught.value) == (
            "a/b.png: the mask holds id 4, 7, which is none of the 2 classes (0 to 1); "
            "ignore_index is 255. Correct the mask, or set ignore_index: 4 in dataset.yaml."
        )
        assert confusion.counts.sum() == 0

    def test_in_the_truth_without_an_ignore_index(self, dtype: type) -> None:
        with pytest.raises(MaskError) as caught:
            confusion_of(np.array([[0, 200]], dtype), np.zeros((1, 2), dtype), NAMES[:3])
        assert str(caught.value) == (
            "the mask holds id 200, which is none of the 3 classes (0 to 2); there is no "
            "ignore_index. Correct the mask, or set ignore_index: 200 in dataset.yaml."
        )

    def test_in_the_prediction_even_where_the_truth_is_ignored(self, dtype: type) -> None:
        with pytest.raises(ModelError) as caught:
            confusion_of(np.array([[255, 1]], dtype), np.array([[9, 1]], dtype), NAMES[:2], 255)
        assert str(caught.value) == (
            "the prediction holds class 9, and there are 2 classes (0 to 1). "
            "Evaluate with the classes that the network was trained on."
        )

    def test_many_are_shortened(self, dtype: type) -> None:
        with pytest.raises(ModelError, match="class 2, 3, 4, 5, 6 and 3 more, and"):
            confusion_of(
                np.zeros((1, 10), dtype), np.arange(10, dtype=dtype)[None], NAMES[:2], None
            )


def test_sizes_that_differ() -> None:
    with pytest.raises(MaskError) as caught:
        confusion_of(np.zeros((3, 4), np.uint8), np.zeros((4, 3), np.uint8), NAMES[:2])
    assert str(caught.value) == (
        "the mask has 4 x 3 pixels (width x height) and the prediction 3 x 4. "
        "Both must have the size of the image."
    )


def test_counts_of_other_classes_cannot_be_added() -> None:
    with pytest.raises(SettingsError) as caught:
        Confusion(("a", "b"), 255).merge(Confusion(("a", "c"), None))
    assert str(caught.value) == (
        "counts of classes ['a', 'b'] (ignore_index 255) and of ['a', 'c'] (ignore_index None) "
        "cannot be added. Evaluate both with the same classes."
    )


def test_memory_does_not_grow_with_the_image() -> None:
    truth = np.zeros((2048, 2048), np.uint8)
    confusion = Confusion(NAMES, 255)
    confusion.update(truth, truth)
    tracemalloc.start()
    confusion.update(truth, truth)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < truth.nbytes  # one int64 copy of the image would be eight times that
