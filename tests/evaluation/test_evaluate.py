from __future__ import annotations

import gc
import json
import math
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from delineate.data.dataset import Sample
from delineate.errors import DatasetError, ImageError, MaskError, ModelError
from delineate.evaluation.evaluate import Evaluation, ImageScore, evaluate
from delineate.evaluation.scores import compute_scores

CLASSES = ("background", "cell", "debris")
HW = (12, 16)


def make_samples(n: int) -> list[Sample]:
    return [Sample(f"im{i:03}", Path(f"images/im{i:03}.png"), None, None) for i in range(n)]


def read(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    """The image carries the truth in channel 0 and how many rows are predicted wrongly in 1."""
    i = int(sample.name[2:])
    truth = np.random.default_rng(i).integers(0, 3, HW).astype(np.uint8)
    return np.stack([truth, np.full(HW, i % 10, np.uint8)], axis=-1), truth


def predict(image: np.ndarray) -> np.ndarray:
    labels = image[..., 0].copy()
    wrong_rows = int(image[0, 0, 1])
    labels[:wrong_rows] = (labels[:wrong_rows] + 1) % 3
    return labels


def run(samples: list[Sample], **options: object) -> Evaluation:
    settings = {"classes": CLASSES, "ignore_index": 255, **options}
    return evaluate(samples, read, predict, **settings)  # type: ignore[arg-type]


def no_reader_is_left() -> bool:
    return not any(t.name.startswith("delineate-read") for t in threading.enumerate())


def test_counts_all_pixels_of_all_images() -> None:
    result = run(make_samples(20))
    expected = np.zeros((3, 3), np.int64)
    for sample in make_samples(20):
        image, truth = read(sample)
        np.add.at(expected, (truth, predict(image)), 1)
    assert np.array_equal(result.confusion.counts, expected)
    assert result.scores == compute_scores(result.confusion)
    assert (result.n_images, result.n_unscored) == (20, 0)
    assert no_reader_is_left()


def test_worst_and_best_are_named_the_most_extreme_first() -> None:
    result = run(make_samples(40), keep=3)
    wrong_rows = [int(row.sample.name[2:]) % 10 for row in (*result.worst, *result.best)]
    assert wrong_rows == [9, 9, 9, 0, 0, 0]
    assert [row.mean_iou for row in result.best] == [1.0, 1.0, 1.0]
    assert [r.mean_iou for r in result.worst] == sorted(r.mean_iou for r in result.worst)


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(9)), st.integers(0, 6))
def test_the_ranking_does_not_depend_on_the_order(order: list[int], keep: int) -> None:
    samples = make_samples(9)
    plain = run(samples, keep=keep)
    shuffled = run([samples[i] for i in order], keep=keep)
    assert (shuffled.worst, shuffled.best) == (plain.worst, plain.best)
    named = [row.sample.name for row in (*plain.worst, *plain.best)]
    assert len(named) == len(set(named)) == min(9, 2 * keep)
    assert len(plain.worst) - len(plain.best) in (0, 1)


def test_progress_gets_every_image_in_order() -> None:
    seen: list[tuple[int, ImageScore]] = []
    run(make_samples(5), on_progress=lambda done, row: seen.append((done, row)))
    assert [done for done, _ in seen] == [1, 2, 3, 4, 5]
    assert [row.sample.name for _, row in seen] == [s.name for s in make_samples(5)]
    assert seen[0][1].mean_iou == 1.0
    assert seen[1][1].mean_iou < 1.0


def test_an_all_ignored_mask_has_no_score_and_breaks_nothing() -> None:
    def read_some(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
        image, truth = read(sample)
        return image, np.full_like(truth, 255) if sample.name in ("im001", "im003") else truth

    rows: list[ImageScore] = []
    result = evaluate(
        make_samples(4),
        read_some,
        predict,
        classes=CLASSES,
        ignore_index=255,
        on_progress=lambda _, row: rows.append(row),
    )
    assert (result.n_images, result.n_unscored) == (4, 2)
    assert {row.sample.name for row in (*result.worst, *result.best)} == {"im000", "im002"}
    assert math.isnan(rows[1].mean_iou)
    assert rows[1].to_dict() == {
        "name": "im001",
        "image": "images/im001.png",
        "mean_iou": None,
        "pixel_accuracy": None,
    }


def test_only_ignored_masks_give_no_scores() -> None:
    result = evaluate(
        make_samples(2),
        lambda s: (read(s)[0], np.full(HW, 255, np.uint8)),
        predict,
        classes=CLASSES,
        ignore_index=255,
    )
    assert (result.worst, result.best, result.n_unscored) == ((), (), 2)
    assert json.loads(json.dumps(result.to_dict(), allow_nan=False))["scores"]["mean_iou"] is None


def test_to_dict_is_json() -> None:
    result = run(make_samples(5), keep=1)
    document = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert list(document) == [
        "n_images",
        "n_unscored",
        "seconds",
        "predict_seconds",
        "wait_seconds",
        "scores",
        "ignore_index",
        "confusion",
        "worst",
        "best",
    ]
    assert document["worst"][0]["name"] == "im004"
    assert document["worst"][0]["image"] == "images/im004.png"
    assert np.array(document["confusion"]).sum() == 5 * HW[0] * HW[1]
    assert document["scores"]["mean_iou"] == result.scores.mean_iou


def test_no_image_is_an_error() -> None:
    with pytest.raises(DatasetError) as caught:
        run([])
    assert str(caught.value) == ("there is no image to evaluate. Name a split that has images.")
    assert no_reader_is_left()


def test_memory_is_constant_in_the_number_of_images() -> None:
    alive: weakref.WeakSet[_Tracked] = weakref.WeakSet()
    most = 0

    def samples() -> Iterator[Sample]:
        yield from make_samples(300)

    def read_tracked(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
        image, truth = read(sample)
        tracked = image.view(_Tracked)
        alive.add(tracked)
        return tracked, truth

    def predict_and_count(image: np.ndarray) -> np.ndarray:
        nonlocal most
        time.sleep(0.001)  # the reader is the faster one, as it is with a real network
        most = max(most, len(alive))
        return predict(np.asarray(image))

    gc.disable()  # reference counting alone must do
    try:
        result = evaluate(
            samples(), read_tracked, predict_and_count, classes=CLASSES, ignore_index=255
        )
    finally:
        gc.enable()
    assert result.n_images == 300
    assert most <= 4
    assert len(alive) == 0


class _Tracked(np.ndarray):
    """An array that can be in a weak set: identity is its hash."""

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:  # type: ignore[override]
        return self is other


def test_reading_goes_on_while_an_image_is_predicted() -> None:
    second_was_read = threading.Event()

    def read_and_tell(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
        if sample.name == "im001":
            second_was_read.set()
        return read(sample)

    def wait_then_predict(image: np.ndarray) -> np.ndarray:
        assert second_was_read.wait(10)  # would never come if reading waited for the prediction
        return predict(image)

    result = evaluate(
        make_samples(2), read_and_tell, wait_then_predict, classes=CLASSES, ignore_index=None
    )
    assert result.n_images == 2


def test_times_add_up() -> None:
    result = run(make_samples(10))
    assert 0 < result.predict_seconds + result.wait_seconds <= result.seconds
    assert result.outside_share == 1 - result.predict_seconds / result.seconds


class TestErrors:
    def test_a_file_that_cannot_be_read_is_named(self) -> None:
        def read_missing(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
            if sample.name == "im002":
                raise FileNotFoundError(2, "No such file or directory")
            return read(sample)

        with pytest.raises(ImageError) as caught:
            evaluate(make_samples(9), read_missing, predict, classes=CLASSES, ignore_index=None)
        assert str(caught.value) == "im002: cannot be read (No such file or directory)."
        assert no_reader_is_left()

    def test_what_the_reader_says_comes_through(self) -> None:
        def read_bad(_sample: Sample) -> tuple[np.ndarray, np.ndarray]:
            raise MaskError("is truncated", where="masks/im000.png")

        with pytest.raises(MaskError) as caught:
            evaluate(make_samples(9), read_bad, predict, classes=CLASSES, ignore_index=None)
        assert str(caught.value) == "masks/im000.png: is truncated."
        assert caught.value.__notes__ == ["while reading im000"]
        assert no_reader_is_left()

    def test_a_fault_of_the_predictor_names_the_sample(self) -> None:
        def broken(_image: np.ndarray) -> np.ndarray:
            raise RuntimeError("engine fell over")

        with pytest.raises(RuntimeError, match="engine fell over") as caught:
            evaluate(make_samples(9), read, broken, classes=CLASSES, ignore_index=None)
        assert caught.value.__notes__ == ["while predicting im000"]
        assert no_reader_is_left()

    def test_a_fault_of_the_callers_callback_leaves_no_thread(self) -> None:
        def interrupt(_done: int, _row: ImageScore) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run(make_samples(9), on_progress=interrupt)
        assert no_reader_is_left()

    def test_a_prediction_of_another_size(self) -> None:
        with pytest.raises(ModelError) as caught:
            evaluate(
                make_samples(1),
                read,
                lambda image: predict(image)[::2],
                classes=CLASSES,
                ignore_index=None,
            )
        assert str(caught.value) == (
            "im000: the prediction has shape (6, 16) for an image of (12, 16). "
            "It must be (12, 16), one class id for each pixel."
        )

    def test_a_mask_of_another_size(self) -> None:
        with pytest.raises(MaskError) as caught:
            evaluate(
                make_samples(1),
                lambda s: (read(s)[0], read(s)[1][:, 3:]),
                predict,
                classes=CLASSES,
                ignore_index=None,
            )
        assert str(caught.value) == (
            "im000: the mask has shape (12, 13) for an image of (12, 16). "
            "It must be (12, 16), one class id for each pixel."
        )

    def test_an_unknown_id_in_a_mask_names_the_sample(self) -> None:
        with pytest.raises(MaskError) as caught:
            evaluate(
                make_samples(1),
                lambda s: (read(s)[0], np.full(HW, 7, np.uint8)),
                predict,
                classes=CLASSES,
                ignore_index=255,
            )
        assert str(caught.value) == (
            "im000: the mask holds id 7, which is none of the 3 classes (0 to 2); ignore_index is "
            "255. Correct the mask, or set ignore_index: 7 in dataset.yaml."
        )

    def test_an_unknown_class_in_a_prediction_names_the_sample(self) -> None:
        with pytest.raises(ModelError, match=r"^im000: the prediction holds class 2, and"):
            run(make_samples(1), classes=CLASSES[:2])
