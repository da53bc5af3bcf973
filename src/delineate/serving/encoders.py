"""Prediction -> response body, one encoder for each media type."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from delineate.data.masks import encode_mask
from delineate.data.rle import Region, label_map_to_coco
from delineate.serving.model import ServedModel
from delineate.types import LabelMap, Output, Prediction

_ROWS = 256  # of pixels counted at once: bincount widens each id to eight bytes


TimingMs = Callable[[], Mapping[str, float]]
"""Milliseconds of each stage until now."""


@dataclass(frozen=True)
class Encoder:
    """One kind of answer.

    Attributes:
        media_type: its type.
        outputs: what it needs of the predictor.
        encode: (prediction of one image, model, what gives the times so far) -> body.
    """

    media_type: str
    outputs: tuple[Output, ...]
    encode: Callable[[Prediction, ServedModel, TimingMs], bytes]


def encode_png(prediction: Prediction, model: ServedModel, _: TimingMs) -> bytes:
    """The label map as an indexed PNG in the colours of the classes."""
    return encode_mask(prediction["labels"][0], model.colours)


def encode_json(prediction: Prediction, model: ServedModel, timing_ms: TimingMs) -> bytes:
    """The answer as :class:`delineate.serving.schema.Answer`, with regions."""
    return _json(prediction, model, timing_ms, with_regions=True)


def encode_json_without_regions(
    prediction: Prediction, model: ServedModel, timing_ms: TimingMs
) -> bytes:
    """The answer as :class:`delineate.serving.schema.Answer`, ``regions`` being null."""
    return _json(prediction, model, timing_ms, with_regions=False)


PNG = Encoder("image/png", ("labels",), encode_png)
JSON = Encoder("application/json", ("labels", "summary"), encode_json)
JSON_WITHOUT_REGIONS = Encoder(
    "application/json", ("labels", "summary"), encode_json_without_regions
)


def _json(
    prediction: Prediction,
    model: ServedModel,
    timing_ms: TimingMs,
    *,
    with_regions: bool,
) -> bytes:
    labels = prediction["labels"][0]
    spec = model.predictor.spec
    regions: list[Region] | None = None
    if with_regions:
        regions = label_map_to_coco(labels, spec.classes)
        areas_px = {region["class_id"]: region["area_px"] for region in regions}
    else:
        areas_px = dict(enumerate(_areas_px(labels, len(spec.classes))))
    height, width = labels.shape
    column = spec.summary_names.index("mean_confidence")
    document: dict[str, Any] = {
        "model": model.name,
        "version": model.version,
        "width": width,
        "height": height,
        "classes": [
            {"id": index, "name": name, "share": round(areas_px.get(index, 0) / labels.size, 6)}
            for index, name in enumerate(spec.classes)
        ],
        "mean_confidence": round(float(prediction["summary"][0, column]), 6),
        "regions": regions,
        "timing_ms": {stage: round(ms, 3) for stage, ms in timing_ms().items()},
    }
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def _areas_px(labels: LabelMap, classes: int) -> list[int]:
    areas = np.zeros(classes, np.int64)
    for top in range(0, len(labels), _ROWS):
        areas += np.bincount(labels[top : top + _ROWS].reshape(-1), minlength=classes)
    return [int(area) for area in areas]
