"""Watershed (Vincent and Soille 1991, doi:10.1109/34.87344) on the gradient of one channel.

Otsu's threshold says what is foreground; the watershed says where its border lies. Markers come
from the threshold's distance transform (what lies deeper than some pixels in foreground or
background is sure), or from flat regions of the image, each of which belongs to what most of it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Int32

from delineate.engines.check import check_batch
from delineate.engines.classical.otsu import OtsuPredictor, above_otsu
from delineate.engines.classical.shared import blurred, one_class, plane
from delineate.errors import MissingExtraError
from delineate.types import Image, Images, LabelMap, Output, Prediction, PredictorSpec

Markers = Literal["distance", "gradient"]
DEPTHS_PX = (1.0, 2.0, 4.0)
FLAT_SHARES = (0.3, 0.5, 0.7)  # of the pixels, those with the least gradient
GRADIENT_BLUR_PX = 1.0


@dataclass(frozen=True)
class WatershedPredictor:
    """A threshold whose borders move to the ridges of the gradient.

    Attributes:
        otsu: the threshold, its channel and side.
        markers: where they come from.
        amount: depth in pixels for ``distance``, share of flat pixels for ``gradient``.
    """

    otsu: OtsuPredictor
    markers: Markers
    amount: float

    @property
    def spec(self) -> PredictorSpec:
        return self.otsu.spec

    @classmethod
    def fit(
        cls, images: Iterable[tuple[Image, LabelMap]], classes: Sequence[str], foreground: str
    ) -> WatershedPredictor:
        """Fit the threshold, then take the markers with the best Dice of ``foreground``.

        Args:
            images: as for :meth:`OtsuPredictor.fit`.
            classes: class names by id.
            foreground: the class to find.

        Raises:
            MissingExtraError: scikit-image is not installed.
            SettingsError, ImageError: as for :meth:`OtsuPredictor.fit`.
        """
        pairs = list(images)
        otsu = OtsuPredictor.fit(pairs, classes, foreground)
        choices: list[tuple[Markers, float]] = [
            *product(("distance",), DEPTHS_PX),  # type: ignore[list-item]
            *product(("gradient",), FLAT_SHARES),  # type: ignore[list-item]
        ]
        tried = [cls(otsu, markers, amount) for markers, amount in choices]
        return max(tried, key=lambda one: one._dice(pairs, len(classes)))

    def _dice(self, pairs: Sequence[tuple[Image, LabelMap]], classes: int) -> float:
        both = either = 0
        for image, labels in pairs:
            counted = labels < classes
            found = self._foreground(image)[counted]
            truth = labels[counted] == self.otsu.foreground
            both += int((found & truth).sum())
            either += int(found.sum()) + int(truth.sum())
        return 2 * both / max(either, 1)

    def predict(self, images: Images, outputs: Sequence[Output] = ("labels",)) -> Prediction:
        """As :class:`~delineate.types.Predictor`; probabilities are 0 or 255.

        Raises:
            ImageError: the batch does not fit ``spec``.
            SettingsError: an output is unknown, or none is asked for.
            MissingExtraError: scikit-image is not installed.
        """
        check_batch(images, outputs, self.spec)
        found = np.stack([self._foreground(image) for image in images])
        return one_class(found, self.otsu.foreground, self.otsu.other, self.spec, outputs)

    def _foreground(self, image: Image) -> Bool[np.ndarray, "h w"]:
        otsu = self.otsu
        above = above_otsu(image, otsu.channel, otsu.blur_px)
        inside = above if otsu.bright else ~above
        if inside.all() or not inside.any():
            return inside
        gradient = _gradient(image, otsu.channel)
        if self.markers == "distance":
            basins = _flooded(gradient, _deep(inside, self.amount))
            return np.asarray(basins == 2)
        flat = np.less_equal(gradient, np.quantile(gradient, self.amount)).view(np.uint8)
        _, markers = cv2.connectedComponents(flat, connectivity=4)
        basins = _flooded(gradient, np.asarray(markers))
        count = int(basins.max()) + 1
        pixels = np.bincount(basins.reshape(-1), minlength=count)
        of_it = np.bincount(basins.reshape(-1), weights=inside.reshape(-1), minlength=count)
        return np.asarray((of_it > 0.5 * pixels)[basins])


def _gradient(image: Image, channel: str) -> Float32[np.ndarray, "h w"]:
    grey = plane(blurred(np.ascontiguousarray(image), GRADIENT_BLUR_PX), channel)
    across = cv2.Sobel(grey, cv2.CV_32F, 1, 0)
    down = cv2.Sobel(grey, cv2.CV_32F, 0, 1)
    return np.asarray(cv2.magnitude(across, down))


def _deep(inside: Bool[np.ndarray, "h w"], depth_px: float) -> Int32[np.ndarray, "h w"]:
    """1 deep in the background, 2 deep in the foreground; all of it where nothing is that deep."""
    markers = np.zeros(inside.shape, np.int32)
    for value, region in ((1, ~inside), (2, inside)):
        distance = cv2.distanceTransform(region.view(np.uint8), cv2.DIST_L2, 3)
        deep = distance > depth_px
        markers[deep if deep.any() else region] = value
    return markers


def _flooded(
    gradient: Float32[np.ndarray, "h w"], markers: Int32[np.ndarray, "h w"]
) -> Int32[np.ndarray, "h w"]:
    try:
        from skimage.segmentation import watershed
    except ImportError as error:
        raise MissingExtraError("scikit-image", "classical") from error
    basins = watershed(gradient, markers)  # type: ignore[no-untyped-call]
    return np.asarray(basins, np.int32)
