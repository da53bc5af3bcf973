"""Whether the task needs a network at all: thresholds, fitted in seconds, scored on val."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from delineate.data.dataset import Sample
from delineate.engines.classical import ColourPredictor, OtsuPredictor
from delineate.evaluation.evaluate import Read, evaluate
from delineate.planning.fingerprint import Fingerprint
from delineate.types import Image, LabelMap, Predictor

FITTED_IMAGES, SCORED_IMAGES = 30, 20
FEW_LABELS = 20  # fewer are better spent on methods with few numbers to fit
SIMPLE_MIOU = 0.85  # reached by thresholds: no network is needed


@dataclass(frozen=True)
class SimpleMethod:
    """A classical method on this dataset.

    Attributes:
        name: for people.
        miou: on images of val, 0 to 1.
        ms: for one image, the median.
    """

    name: str
    miou: float
    ms: float


def simple_methods(
    train: Sequence[Sample],
    val: Sequence[Sample],
    read: Read,
    fingerprint: Fingerprint,
    ignore_index: int | None,
) -> list[SimpleMethod]:
    """Fit thresholds on images of train and score them on images of val, the best first.

    Args:
        train, val: labelled samples; up to 30 and 20 of them are taken, evenly spread.
        read: gives image and mask.
        fingerprint: of the dataset.
        ignore_index: of pixels that count nowhere.

    Returns:
        nothing where images are not 8 bit with one or three channels, or there is no val.
    """
    look, classes = fingerprint.look, tuple(item.name for item in fingerprint.classes)
    if look.dtype != "uint8" or look.channels not in (1, 3) or not val:
        return []
    pairs = [read(sample) for sample in spread(train, FITTED_IMAGES)]
    thing = max(
        range(1, len(classes)) if fingerprint.classes[0].background else range(len(classes)),
        key=lambda index: fingerprint.classes[index].share,
    )
    found: dict[str, Predictor] = {
        "a table of colours": ColourPredictor.fit(pairs, classes, classes[thing])
    }
    if len(classes) == 2:
        found["Otsu's threshold"] = OtsuPredictor.fit(pairs, classes, classes[thing])
    chosen = spread(val, SCORED_IMAGES)
    methods = [
        _scored(name, one, chosen, read, classes, ignore_index) for name, one in found.items()
    ]
    return sorted(methods, key=lambda method: -method.miou)


def spread(samples: Sequence[Sample], most: int) -> list[Sample]:
    """``most`` of the samples at most, evenly spread."""
    count = min(most, len(samples))
    return [samples[int(i)] for i in np.linspace(0, len(samples) - 1, count).round()]


def _scored(
    name: str,
    predictor: Predictor,
    samples: Sequence[Sample],
    read: Read,
    classes: Sequence[str],
    ignore_index: int | None,
) -> SimpleMethod:
    times: list[float] = []

    def predict(image: Image) -> LabelMap:
        began = time.perf_counter()
        labels: LabelMap = predictor.predict(image[None])["labels"][0]
        times.append(1e3 * (time.perf_counter() - began))
        return labels

    scores = evaluate(samples, read, predict, classes=classes, ignore_index=ignore_index).scores
    return SimpleMethod(name, scores.mean_iou, float(np.median(times)))


def advice(methods: Sequence[SimpleMethod], fingerprint: Fingerprint) -> tuple[str, ...]:
    """What to think of before training a network, in words."""
    found = []
    if methods and methods[0].miou >= SIMPLE_MIOU:
        best = methods[0]
        found.append(
            f"The task is simple: {best.name} alone reaches {best.miou:.2f} mIoU on val in "
            f"{best.ms:.0f} ms. A network may not be needed."
        )
    if fingerprint.labelled_images < FEW_LABELS:
        text = f"{fingerprint.labelled_images} labelled images are few for a network"
        if methods:
            text += f": {methods[0].name} reaches {methods[0].miou:.2f} mIoU on val without one"
        found.append(
            text + ". More labels will help most; prompting (points and boxes) makes them faster."
        )
    return tuple(found)
