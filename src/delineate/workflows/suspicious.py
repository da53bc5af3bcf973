"""Labels that a trained model doubts, by cleanlab's segmentation issues."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Int64

from delineate.bundle.load import Bundle, load
from delineate.data.checks.findings import Finding, below
from delineate.data.checks.listing import list_pairs
from delineate.data.dataset import DatasetInfo, Sample, find_splits, read_info, read_pair
from delineate.errors import DatasetError, DelineateError, MissingExtraError
from delineate.tiling.segment import segment
from delineate.workflows.evaluate import as_input

SIDE_PX = 96
"""Images are looked at as squares of this side: whole regions matter, borders do not."""

LEAST_SHARE = 0.05
"""An image is worth a look when this share of its labelled pixels is suspicious."""

_BATCH_BYTES = 1 << 26  # probabilities held at once

Batch = tuple[Int64[np.ndarray, "n s s"], Float32[np.ndarray, "n k s s"], Bool[np.ndarray, "n s s"]]


@dataclass(frozen=True)
class Doubt:
    """What a model thinks of the labels of one image.

    Attributes:
        file: of the mask, below the dataset's folder.
        quality: 0 to 1, low where labels are doubtful: cleanlab's softmin of the probabilities
            that the model gives to the labels (Lad and Mueller, Estimating label quality and
            errors in semantic segmentation data via any model, 2023).
        suspicious: share of the labelled pixels that cleanlab takes for wrong.
    """

    file: str
    quality: float
    suspicious: float


@dataclass(frozen=True)
class Suspicion:
    """What a model thinks of all labels.

    Attributes:
        doubts: one for each image, the worst first.
        suspicious: share of the labelled pixels of all images.
        confused: class labelled, class the model sees instead, and the share of the suspicious
            pixels; the most frequent such pair, None where nothing is suspicious.
        left_out: images that could not be looked at.
    """

    doubts: list[Doubt]
    suspicious: float
    confused: tuple[str, str, float] | None
    left_out: int

    @property
    def findings(self) -> list[Finding]:
        """One for each image with LEAST_SHARE of suspicious pixels."""
        return [
            Finding(
                "suspicious labels",
                doubt.file,
                f"{doubt.suspicious:.1%} of its labelled pixels are suspicious (label quality "
                f"{doubt.quality:.3f})",
                "Look at the mask and correct it; keep it where the model is wrong.",
            )
            for doubt in self.doubts
            if doubt.suspicious >= LEAST_SHARE
        ]

    def to_dict(self) -> dict[str, Any]:
        return {
            "suspicious": round(self.suspicious, 6),
            "confused": None
            if self.confused is None
            else {
                "label": self.confused[0],
                "predicted": self.confused[1],
                "share": round(self.confused[2], 6),
            },
            "left_out": self.left_out,
            "images": [
                {
                    "file": doubt.file,
                    "quality": round(doubt.quality, 6),
                    "suspicious": round(doubt.suspicious, 6),
                }
                for doubt in self.doubts
            ],
        }


def suspicious_labels(
    bundle: Bundle | Path | str,
    dataset: Path | str,
    *,
    engine: str = "auto",
    device: str = "cpu",
    on_progress: Callable[[int, int], None] | None = None,
) -> Suspicion:
    """Ask a model which labels of a dataset are wrong.

    All splits are looked at, in batches of at most 64 MB; cleanlab's thresholds are those of a
    batch. Ignored pixels count nowhere. Pairs that cannot be read are left out, as a check names
    them; their number is told.

    Args:
        bundle: a loaded bundle or its path; it should not have been trained on the images.
        dataset: a canonical dataset with the classes of the bundle, in the same order.
        engine: ``auto``, ``onnxruntime`` or ``openvino``, when ``bundle`` is a path.
        device: ``cpu``, ``cuda`` or ``gpu``, when ``bundle`` is a path.
        on_progress: told how many images of how many are done.

    Raises:
        DatasetError: no dataset, other classes than the bundle's, or no pair could be read.
        MissingExtraError: cleanlab is not installed.
    """
    try:
        import cleanlab.segmentation  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("cleanlab", "clean") from error
    loaded = bundle if isinstance(bundle, Bundle) else load(bundle, engine=engine, device=device)
    path = Path(dataset)
    info = read_info(path)
    _refuse_other_classes(loaded, info, path)
    samples = [
        pair.sample
        for split, folder in find_splits(path).items()
        for pair in list_pairs(path, split, folder, info)[1]
        if pair.sample.mask is not None
    ]
    classes = len(info.classes)
    size = max(1, _BATCH_BYTES // (4 * classes * SIDE_PX**2))
    doubts: list[Doubt] = []
    pixels, confusion = 0, np.zeros((classes, classes), np.int64)
    for batch_samples, batch in _batches(loaded, info, samples, size, on_progress):
        found, counted, confused = _judge(batch)
        pixels += counted
        confusion += confused
        doubts += [
            Doubt(below(path, cast(Path, sample.mask)), quality, share)
            for sample, (quality, share) in zip(batch_samples, found, strict=True)
        ]
    if not doubts:
        raise DatasetError(
            "has no pair that could be looked at",
            where=path,
            mend=f"delineate data check {path} says what is wrong.",
        )
    doubts.sort(key=lambda doubt: (-doubt.suspicious, doubt.quality))
    issues = int(confusion.sum())
    return Suspicion(
        doubts,
        issues / max(pixels, 1),
        _most_confused(confusion, info.classes),
        len(samples) - len(doubts),
    )


def _refuse_other_classes(bundle: Bundle, info: DatasetInfo, path: Path) -> None:
    classes, known = info.classes, bundle.spec.classes
    if known[: len(classes)] != classes:
        raise DatasetError(
            f"its classes are {', '.join(classes)}, those of {bundle.manifest.name} are "
            f"{', '.join(known)}",
            where=path,
            mend="Give a bundle with the same classes in the same order.",
        )


def _batches(
    bundle: Bundle,
    info: DatasetInfo,
    samples: Sequence[Sample],
    size: int,
    on_progress: Callable[[int, int], None] | None,
) -> Iterator[tuple[list[Sample], Batch]]:
    def read() -> Iterator[tuple[Sample, Any]]:
        for number, sample in enumerate(samples, 1):
            # what cannot be read is counted by the caller and named by the check
            with suppress(DelineateError):
                yield sample, _small(bundle, info, sample)
            if on_progress is not None:
                on_progress(number, len(samples))

    source = read()
    while chunk := list(islice(source, size)):
        labels, probabilities, ignored = zip(*(small for _, small in chunk), strict=True)
        batch = (np.stack(labels), np.stack(probabilities), np.stack(ignored))
        yield [sample for sample, _ in chunk], batch


def _small(
    bundle: Bundle, info: DatasetInfo, sample: Sample
) -> tuple[Int64[np.ndarray, "s s"], Float32[np.ndarray, "k s s"], Bool[np.ndarray, "s s"]]:
    """Labels, probabilities and what is ignored, SIDE_PX squared.

    Ignored pixels are given the class that the model sees, which is never suspicious.
    """
    image, mask = read_pair(sample, info)
    picture = as_input(image, bundle.spec, sample.image)
    found = segment(bundle, picture, ("probabilities",), tiling=bundle.manifest.tiling)
    planes = found["probabilities"][0, : len(info.classes)]
    side = (SIDE_PX, SIDE_PX)
    probabilities = np.stack(
        [cv2.resize(plane, side, interpolation=cv2.INTER_AREA) for plane in planes]
    ).astype(np.float32)
    probabilities += np.float32(1e-3)  # all may be zero where the bundle has one class more
    probabilities /= probabilities.sum(axis=0)
    labels = cv2.resize(mask, side, interpolation=cv2.INTER_NEAREST).astype(np.int64)
    ignored = labels == (-1 if info.ignore_index is None else info.ignore_index)
    return np.where(ignored, probabilities.argmax(axis=0), labels), probabilities, ignored


def _judge(
    batch: Batch,
) -> tuple[list[tuple[float, float]], int, Int64[np.ndarray, "k k"]]:
    """(quality, suspicious share) of each image; labelled pixels; suspicious ones by class."""
    from cleanlab.segmentation.filter import find_label_issues
    from cleanlab.segmentation.rank import get_label_quality_scores

    labels, probabilities, ignored = batch
    classes = probabilities.shape[1]
    issues = find_label_issues(labels, probabilities, n_jobs=1, verbose=False) & ~ignored
    scores, _ = get_label_quality_scores(labels, probabilities, n_jobs=1, verbose=False)
    labelled = (~ignored).sum(axis=(1, 2))
    shares = issues.sum(axis=(1, 2)) / np.maximum(labelled, 1)
    seen = probabilities.argmax(axis=1)
    pairs = labels[issues] * classes + seen[issues]
    confusion = np.bincount(pairs, minlength=classes**2).reshape(classes, classes)
    found = [(float(s), float(share)) for s, share in zip(scores, shares, strict=True)]
    return found, int(labelled.sum()), confusion.astype(np.int64)


def _most_confused(
    confusion: Int64[np.ndarray, "k k"], classes: tuple[str, ...]
) -> tuple[str, str, float] | None:
    total = int(confusion.sum())
    if not total:
        return None
    label, seen = (int(i) for i in np.unravel_index(int(confusion.argmax()), confusion.shape))
    return classes[label], classes[seen], int(confusion[label, seen]) / total
