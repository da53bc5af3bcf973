"""Several thresholds on one channel, found anew in each image (multi-Otsu)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from jaxtyping import Int64

from delineate.engines.check import check_batch
from delineate.engines.classical.shared import (
    CHANNELS,
    blurred,
    checked_channels,
    class_id,
    finish,
    nothing_to_fit,
    plane,
    spec_of,
)
from delineate.errors import MissingExtraError
from delineate.types import Image, Images, LabelMap, Output, Prediction, PredictorSpec

BANDS = (2, 3, 4)
BLURS_PX = (0.0, 2.0)


@dataclass(frozen=True)
class MultiOtsuPredictor:
    """Bands of brightness that differ most (Liao et al. 2001), each with a class.

    Attributes:
        spec: what it takes and gives.
        channel: one of :data:`CHANNELS`; images of one channel have only ``grey``.
        blur_px: sigma of the blur before the thresholds, pixels; 0 for none.
        band_classes: id of the class of each band, the darkest first.
    """

    spec: PredictorSpec
    channel: str
    blur_px: float
    band_classes: tuple[int, ...]

    @classmethod
    def fit(
        cls, images: Iterable[tuple[Image, LabelMap]], classes: Sequence[str], foreground: str
    ) -> MultiOtsuPredictor:
        """Take channel, blur and number of bands with the best mean IoU over ``images``.

        Args:
            images: as for :meth:`OtsuPredictor.fit`. Gone through once.
            classes: class names by id.
            foreground: the class to find; its name is checked, all classes count alike.

        Raises:
            MissingExtraError: scikit-image is not installed.
            SettingsError, ImageError: as for :meth:`OtsuPredictor.fit`.
        """
        class_id(classes, foreground)
        counts: dict[tuple[str, float, int], Int64[np.ndarray, "bands classes"]] = {}
        channels = 0
        for image, labels in images:
            channels = checked_channels(image, channels)
            counted = labels < len(classes)
            truth = labels[counted].astype(np.int64)
            names = CHANNELS if channels == 3 else CHANNELS[:1]
            for key in product(names, BLURS_PX, BANDS):
                bands = _bands(image, *key)[counted]
                cells = np.bincount(bands * len(classes) + truth, minlength=key[2] * len(classes))
                table = cells.reshape(key[2], len(classes))
                counts[key] = counts[key] + table if key in counts else table
        if not counts or not sum(int(table.sum()) for table in counts.values()):
            raise nothing_to_fit()
        best = max(counts, key=lambda key: _mean_iou(counts[key]))
        channel, blur_px, _ = best
        band_classes = tuple(int(index) for index in counts[best].argmax(1))
        return cls(spec_of(classes, channels), channel, blur_px, band_classes)

    def predict(self, images: Images, outputs: Sequence[Output] = ("labels",)) -> Prediction:
        """As :class:`~delineate.types.Predictor`; probabilities are 0 or 255.

        Raises:
            ImageError: the batch does not fit ``spec``.
            SettingsError: an output is unknown, or none is asked for.
            MissingExtraError: scikit-image is not installed.
        """
        check_batch(images, outputs, self.spec)
        count = len(self.band_classes)
        bands = np.stack([_bands(image, self.channel, self.blur_px, count) for image in images])
        labels = np.array(self.band_classes)[bands]
        planes = [labels == index for index in range(len(self.spec.classes))]
        return finish(np.stack(planes, 1).astype(np.float32), self.spec, outputs)


def _bands(image: Image, channel: str, blur_px: float, count: int) -> Int64[np.ndarray, "h w"]:
    """The band of each pixel, 0 the darkest; the upper bands are empty in a nearly plain image."""
    try:
        from skimage.filters import threshold_multiotsu
    except ImportError as error:
        raise MissingExtraError("scikit-image", "classical") from error
    grey = plane(blurred(np.ascontiguousarray(image), blur_px), channel)
    histogram = np.bincount(grey.reshape(-1), minlength=256)
    values = np.flatnonzero(histogram)
    if len(values) <= count:
        thresholds = values[:-1]
    else:
        thresholds = threshold_multiotsu(  # type: ignore[no-untyped-call]
            hist=(histogram, np.arange(256)), classes=count
        )
    # a threshold belongs to the darker band, as in Otsu's own
    return np.asarray(np.digitize(grey, thresholds, right=True), np.int64)


def _mean_iou(table: Int64[np.ndarray, "bands classes"]) -> float:
    """When each band has the class that most of it is."""
    found = table.argmax(1)
    values = []
    for index, truth in enumerate(table.sum(0)):
        inside = table[found == index]
        either = int(truth + inside.sum() - inside[:, index].sum())
        if either:
            values.append(int(inside[:, index].sum()) / either)
    return float(np.mean(values)) if values else 0.0
