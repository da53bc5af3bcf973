"""Samples and a way to predict -> an Evaluation. Users and training's validation both call this."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from time import perf_counter
from typing import TypeAlias

import numpy as np
from jaxtyping import UInt, UInt8

from delineate.data.dataset import Sample
from delineate.errors import DatasetError, ImageError, MaskError, ModelError
from delineate.evaluation.comparison import Comparison
from delineate.evaluation.confusion import Confusion
from delineate.evaluation.details import Details, DetailSettings, DetailTally, Predicted
from delineate.evaluation.scores import Json, Scores, compute_scores
from delineate.types import Image, LabelMap

# (H, W, C) image and its (H, W) mask
Read: TypeAlias = Callable[[Sample], tuple[Image, LabelMap]]
# (H, W, C) image -> (H, W) class ids
Predict: TypeAlias = Callable[[Image], LabelMap]

# The same, or with how sure it is
Answer: TypeAlias = Callable[[Image], LabelMap | Predicted]

# What came from outside and whose size is still to be compared with the image's
_Labels: TypeAlias = UInt[np.ndarray, "_ _"]

# Two pairs wait while one is predicted: enough to hide reading, little to hold in memory.
_AHEAD = 2


@dataclass(frozen=True)
class ImageScore:
    """How well one image went.

    Attributes:
        sample: which image.
        mean_iou: over the classes in its truth or prediction, 0 to 1; NaN when its whole mask
            is ignored.
        pixel_accuracy: 0 to 1 or NaN.
    """

    sample: Sample
    mean_iou: float
    pixel_accuracy: float

    @property
    def scored(self) -> bool:
        return not math.isnan(self.mean_iou)

    def to_dict(self) -> Json:
        return {
            "name": self.sample.name,
            "image": str(self.sample.image),
            "mean_iou": self.mean_iou if self.scored else None,
            "pixel_accuracy": self.pixel_accuracy if self.scored else None,
        }


@dataclass(frozen=True)
class Evaluation:
    """What :func:`evaluate` found.

    Attributes:
        confusion: counts over all images.
        scores: of ``confusion``, so that every pixel weighs the same, whatever its image.
        worst, best: images by their own mean IoU, the most extreme first; none is in both.
        n_images: images read and predicted.
        n_unscored: those among them whose whole mask is ignored.
        seconds: wall time of the whole.
        predict_seconds: of which inside ``predict``.
        wait_seconds: of which waiting for the reader, which works while ``predict`` does.
        details: what was measured beyond the confusion matrix.
        comparison: with another model on the same images, where there is one.
    """

    confusion: Confusion
    scores: Scores
    worst: tuple[ImageScore, ...]
    best: tuple[ImageScore, ...]
    n_images: int
    n_unscored: int
    seconds: float
    predict_seconds: float
    wait_seconds: float
    details: Details = field(default_factory=Details)
    comparison: Comparison | None = None

    @property
    def outside_share(self) -> float:
        """Share of the time that was not spent in ``predict``, 0 to 1."""
        return 1.0 - self.predict_seconds / self.seconds if self.seconds > 0 else 0.0

    def to_dict(self) -> Json:
        """For JSON; what is undefined is None, what was not measured is not there."""
        document: Json = {
            "n_images": self.n_images,
            "n_unscored": self.n_unscored,
            "seconds": round(self.seconds, 4),
            "predict_seconds": round(self.predict_seconds, 4),
            "wait_seconds": round(self.wait_seconds, 4),
            "scores": self.scores.to_dict(),
            "ignore_index": self.confusion.ignore_index,
            "confusion": self.confusion.counts.tolist(),
            "worst": [row.to_dict() for row in self.worst],
            "best": [row.to_dict() for row in self.best],
            **self.details.to_dict(),
        }
        if self.comparison is not None:
            document["comparison"] = self.comparison.to_dict()
        return document


def evaluate(
    samples: Iterable[Sample],
    read: Read,
    predict: Answer,
    *,
    classes: Sequence[str],
    ignore_index: int | None,
    keep: int = 6,
    on_progress: Callable[[int, ImageScore], None] | None = None,
    details: DetailSettings | None = None,
) -> Evaluation:
    """Score ``predict`` on ``samples``, one image at a time.

    Memory does not depend on the number of images: one background thread reads a few
    samples ahead, and of a finished image only its score may be kept, and with ``details`` three
    numbers for each class.

    Args:
        samples: what to score; consumed once, so a generator will do.
        read: gives image and mask of a sample. Called in the background thread.
        predict: gives the class ids of an image, with the confidence where calibration is to be
            measured. Called in the caller's thread.
        classes: class names by id.
        ignore_index: the id in masks that counts nowhere, or None.
        keep: how many of the worst and of the best images to name.
        on_progress: called after every image with the number done and its score.
        details: measure boundary IoU, calibration, intervals and instance scores too; None spares
            their time.

    Raises:
        DatasetError: there is no sample.
        ImageError: a file cannot be read. What ``read`` or ``predict`` raises otherwise comes
            through as it is, with a note that names the sample.
        MaskError: a mask does not fit its image or the classes.
        ModelError: a prediction does not fit its image or the classes.
    """
    started = perf_counter()
    total = Confusion(classes, ignore_index)
    tally = None if details is None else DetailTally(details, classes, ignore_index)
    ranking = _Ranking(keep)
    n_images = n_unscored = 0
    predict_seconds = wait_seconds = 0.0
    # Closed here, not by the garbage collector: an error must not leave the thread behind.
    with closing(_read_ahead(samples, read)) as pairs:
        waiting_since = perf_counter()
        for sample, image, truth in pairs:
            begun = perf_counter()
            labels, confidence = _predict_one(predict, sample, image)
            done = perf_counter()
            wait_seconds += begun - waiting_since
            predict_seconds += done - begun
            confusion = _count_one(sample, image, truth, labels, total)
            row = _score_one(sample, confusion)
            if tally is not None:
                tally.update(sample, truth, labels, confidence, confusion)
            n_images += 1
            n_unscored += not row.scored
            ranking.add(row)
            if on_progress is not None:
                on_progress(n_images, row)
            waiting_since = perf_counter()
    if n_images == 0:
        raise DatasetError("there is no image to evaluate", mend="Name a split that has images.")
    worst, best = ranking.result()
    return Evaluation(
        confusion=total,
        scores=compute_scores(total),
        worst=worst,
        best=best,
        n_images=n_images,
        n_unscored=n_unscored,
        seconds=perf_counter() - started,
        predict_seconds=predict_seconds,
        wait_seconds=wait_seconds,
        details=Details() if tally is None else tally.result(),
    )


def _predict_one(
    predict: Answer, sample: Sample, image: Image
) -> tuple[_Labels, UInt8[np.ndarray, "_ _"] | None]:
    try:
        answer = predict(image)
    except Exception as error:
        error.add_note(f"while predicting {sample.name}")
        raise
    if isinstance(answer, Predicted):
        labels, confidence = answer.labels, answer.confidence
    else:
        labels, confidence = answer, None
    if labels.shape != image.shape[:2]:
        raise ModelError(
            f"the prediction has shape {labels.shape} for an image of {image.shape[:2]}",
            where=sample.name,
            mend=f"It must be {image.shape[:2]}, one class id for each pixel.",
        )
    return labels, confidence


def _count_one(
    sample: Sample,
    image: Image,
    truth: _Labels,
    labels: _Labels,
    total: Confusion,
) -> Confusion:
    if truth.shape != image.shape[:2]:
        raise MaskError(
            f"the mask has shape {truth.shape} for an image of {image.shape[:2]}",
            where=sample.name,
            mend=f"It must be {image.shape[:2]}, one class id for each pixel.",
        )
    confusion = Confusion(total.classes, total.ignore_index)
    confusion.update(truth, labels, where=sample.name)
    total.merge(confusion)
    return confusion


def _score_one(sample: Sample, confusion: Confusion) -> ImageScore:
    scores = compute_scores(confusion)
    return ImageScore(sample, scores.mean_iou, scores.pixel_accuracy)


def _read_ahead(samples: Iterable[Sample], read: Read) -> Generator[tuple[Sample, Image, _Labels]]:
    """Yield the pairs in order while one thread reads the next ones."""

    def read_one(sample: Sample) -> tuple[Image, _Labels]:
        try:
            return read(sample)
        except OSError as error:
            raise ImageError(
                f"cannot be read ({error.strerror or error})", where=sample.name
            ) from error
        except Exception as error:
            error.add_note(f"while reading {sample.name}")
            raise

    reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="delineate-read")
    pending: deque[tuple[Sample, Future[tuple[Image, _Labels]]]] = deque()
    try:
        for sample in samples:
            pending.append((sample, reader.submit(read_one, sample)))
            if len(pending) > _AHEAD:
                yield _finish(*pending.popleft())
        while pending:
            yield _finish(*pending.popleft())
    finally:
        reader.shutdown(wait=True, cancel_futures=True)


def _finish(sample: Sample, pair: Future[tuple[Image, _Labels]]) -> tuple[Sample, Image, _Labels]:
    image, truth = pair.result()
    return sample, image, truth


class _Ranking:
    """The ``keep`` worst and best rows of a stream, in an order that does not depend on it."""

    def __init__(self, keep: int) -> None:
        self.keep = keep
        self.worst: list[ImageScore] = []
        self.best: list[ImageScore] = []

    def add(self, row: ImageScore) -> None:
        if not row.scored:
            return
        self.worst = sorted([*self.worst, row], key=_from_worst)[: self.keep]
        self.best = sorted([*self.best, row], key=_from_worst, reverse=True)[: self.keep]

    def result(self) -> tuple[tuple[ImageScore, ...], tuple[ImageScore, ...]]:
        """(worst, best): with few images, half of them each, none twice."""
        kept = {id(row): row for row in (*self.worst, *self.best)}
        rows = sorted(kept.values(), key=_from_worst)
        half = math.ceil(len(rows) / 2)
        return tuple(rows[:half]), tuple(reversed(rows[half:]))


def _from_worst(row: ImageScore) -> tuple[float, str]:
    return row.mean_iou, row.sample.name
