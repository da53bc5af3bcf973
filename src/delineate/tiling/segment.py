"""One image of any size through a predictor: the only way from an image to its label map."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from jaxtyping import UInt32

from delineate.bundle.postprocess import postprocess
from delineate.config import PostprocessingSettings, TilingSettings
from delineate.engines.check import check_outputs
from delineate.engines.scaling import scaled_for
from delineate.tiling.grid import UNIT, blend_weights, tile_starts
from delineate.types import Image, Output, Prediction, Predictor, PredictorSpec

OnTile = Callable[[int, int], None]  # tiles done, tiles in all
Strip = UInt32[np.ndarray, "k h w"]  # UNIT**2 * 255 * probability of finished rows

_NO_POSTPROCESSING = PostprocessingSettings()
_DEFAULT_TILING = TilingSettings()


def segment(
    predictor: Predictor,
    image: Image,
    outputs: Sequence[Output] = ("labels",),
    *,
    tiling: TilingSettings = _DEFAULT_TILING,
    postprocessing: PostprocessingSettings = _NO_POSTPROCESSING,
    on_tile: OnTile | None = None,
) -> Prediction:
    """Segment one image (H, W, C), whole if it fits a tile, else by overlapping blended tiles.

    Post-processing changes ``labels`` and the class shares of ``summary`` alone; ``confidence``
    and ``probabilities`` stay what the network said.

    Returns:
        the outputs asked for, with a batch dimension of one.

    Raises:
        ImageError: the image does not fit the predictor.
        SettingsError: an output is unknown or none is asked for.
    """
    check_outputs(outputs)
    post = postprocessing != _NO_POSTPROCESSING and not {"labels", "summary"}.isdisjoint(outputs)
    wanted = tuple({*outputs, "labels"}) if post else outputs  # the shares follow the labels
    result = _network_outputs(predictor, image, wanted, tiling, on_tile)
    if post:
        labels = postprocess(result["labels"][0], postprocessing)
        result["labels"] = labels[None]
        if "summary" in result:
            classes = len(predictor.spec.classes)
            result["summary"][0, :classes] = class_shares(labels, classes)
        if "labels" not in outputs:
            del result["labels"]
    return result


def _network_outputs(
    predictor: Predictor,
    image: Image,
    outputs: Sequence[Output],
    tiling: TilingSettings,
    on_tile: OnTile | None,
) -> Prediction:
    height, width = image.shape[:2]
    fixed_hw = predictor.spec.fixed_hw
    fits = height <= tiling.tile_px and width <= tiling.tile_px if fixed_hw is None else False
    if fits or (height, width) == fixed_hw:
        result = predictor.predict(image[None], outputs)
        if on_tile is not None:
            on_tile(1, 1)
        return result
    return _stitch(predictor, image, outputs, tiling, on_tile)


def class_shares(labels: np.ndarray, classes: int) -> np.ndarray:
    """Share of each class among the pixels of ``labels``: float32 (K,), sums to 1."""
    counts = np.bincount(labels.reshape(-1), minlength=classes)[:classes]
    return (counts / max(labels.size, 1)).astype(np.float32)


def _stitch(
    predictor: Predictor,
    image: Image,
    outputs: Sequence[Output],
    tiling: TilingSettings,
    on_tile: OnTile | None,
) -> Prediction:
    height, width = image.shape[:2]
    collected = _Collector(predictor.spec, height, width, outputs)
    top = 0
    for strip in finished_strips(predictor, image, tiling, on_tile):
        rows = min(strip.shape[1], height - top)  # a fixed-size network pads small images
        collected.take(top, strip[:, :rows, :width])
        top += rows
    return collected.result()


def finished_strips(
    predictor: Predictor, image: Image, tiling: TilingSettings, on_tile: OnTile | None = None
) -> Iterator[Strip]:
    """Blended probabilities of ``image`` from top to bottom, row by row of tiles.

    Memory is one row of tiles, ``4 * K * tile_px * width`` bytes, whatever the height.

    Yields:
        (K, rows, W) uint32, ``65536 * 255 * probability``, exact sums.
    """
    spec, predictor = predictor.spec, scaled_for(predictor, image)
    height, width = image.shape[:2]
    tile_h, tile_w = spec.fixed_hw or (min(tiling.tile_px, height), min(tiling.tile_px, width))
    below, right = max(0, tile_h - height), max(0, tile_w - width)
    if below or right:
        image = np.pad(image, ((0, below), (0, right), (0, 0)), mode="edge")
        height, width = image.shape[:2]
    y_overlap, x_overlap = min(tiling.overlap_px, tile_h // 2), min(tiling.overlap_px, tile_w // 2)
    ys, xs = tile_starts(height, tile_h, y_overlap), tile_starts(width, tile_w, x_overlap)
    y_weights = blend_weights(ys, tile_h, y_overlap)
    x_weights = blend_weights(xs, tile_w, x_overlap)
    batch = min(tiling.batch, spec.largest_batch or tiling.batch)
    total, done = len(ys) * len(xs), 0
    strip = np.zeros((len(spec.classes), tile_h, width), np.uint32)
    for row, y in enumerate(ys):
        for first in range(0, len(xs), batch):
            columns = xs[first : first + batch]
            tiles = np.stack([image[y : y + tile_h, x : x + tile_w] for x in columns])
            probabilities = predictor.predict(tiles, ("probabilities",))["probabilities"]
            for x, x_weight, tile in zip(columns, x_weights[first:], probabilities, strict=False):
                weight = y_weights[row][:, None] * x_weight[None, :]
                strip[:, :, x : x + tile_w] += tile * weight
            done += len(columns)
            if on_tile is not None:
                on_tile(done, total)
        finished = (ys[row + 1] if row + 1 < len(ys) else height) - y
        yield strip[:, :finished]
        strip = np.concatenate(
            [strip[:, finished:], np.zeros((len(strip), finished, width), np.uint32)], axis=1
        )


class _Collector:
    """Turns finished strips into the outputs that were asked for."""

    def __init__(
        self, spec: PredictorSpec, height: int, width: int, outputs: Sequence[Output]
    ) -> None:
        classes = len(spec.classes)
        self._spec, self._pixels = spec, height * width
        self._result = Prediction()
        if "labels" in outputs:
            dtype = np.uint8 if classes <= 256 else np.uint16
            self._result["labels"] = np.empty((1, height, width), dtype)
        if "confidence" in outputs:
            self._result["confidence"] = np.empty((1, height, width), np.uint8)
        if "probabilities" in outputs:
            self._result["probabilities"] = np.empty((1, classes, height, width), np.uint8)
        self._sums = np.zeros(classes + 2) if "summary" in outputs else None

    def take(self, top: int, strip: Strip) -> None:
        """Take the finished rows ``strip`` (K, rows, W), the first of which is row ``top``."""
        rows = slice(top, top + strip.shape[1])
        unit = np.uint32(UNIT * UNIT)
        labels = strip.argmax(axis=0)
        if "labels" in self._result:
            self._result["labels"][0, rows] = labels
        if "confidence" in self._result:
            self._result["confidence"][0, rows] = (strip.max(axis=0) + unit // 2) // unit
        if "probabilities" in self._result:
            self._result["probabilities"][0, :, rows] = (strip + unit // 2) // unit
        if self._sums is not None:
            self._sums += _summary_sums(strip, labels)

    def result(self) -> Prediction:
        if self._sums is not None:
            self._result["summary"] = (self._sums / self._pixels).astype(np.float32)[None]
        return self._result


def _summary_sums(strip: Strip, labels: np.ndarray) -> np.ndarray:
    """Sums over the pixels of a strip of what a summary averages: float64 (K + 2,)."""
    classes = strip.shape[0]
    probabilities = strip.astype(np.float32) / np.float32(UNIT * UNIT * 255)
    probabilities /= np.maximum(probabilities.sum(axis=0), 1e-6)  # rounding to 8 bit loses a little
    entropy = -(probabilities * np.log(np.maximum(probabilities, 1e-12))).sum(dtype=np.float64)
    counts = np.bincount(labels.reshape(-1), minlength=classes)
    confidence = probabilities.max(axis=0).sum(dtype=np.float64)
    return np.array([*counts, confidence, entropy])
