"""k-means in Lab: colours in clusters, each with the class that it mostly is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float32, Int64, UInt8

from delineate.engines.check import check_batch
from delineate.engines.classical.shared import (
    blurred,
    checked_channels,
    class_id,
    finish,
    nothing_to_fit,
    spec_of,
)
from delineate.types import Image, Images, LabelMap, Output, Prediction, PredictorSpec

CLUSTERS_PER_CLASS = 4
SAMPLED_PIXELS = 4000  # of an image
ITERATIONS, PRECISION, ATTEMPTS = 50, 0.1, 3


@dataclass(frozen=True)
class KMeansPredictor:
    """Each pixel has the classes of the cluster whose centre in Lab is nearest to its colour.

    Attributes:
        spec: what it takes and gives.
        blur_px: sigma of the blur before, pixels; 0 for none.
        centres: (k, C), in Lab for three channels.
        table: share of each class in each cluster, (k, K); rows sum to 1.
    """

    spec: PredictorSpec
    blur_px: float
    centres: Float32[np.ndarray, "k c"]
    table: Float32[np.ndarray, "k classes"]

    @classmethod
    def fit(
        cls,
        images: Iterable[tuple[Image, LabelMap]],
        classes: Sequence[str],
        foreground: str,
        *,
        blur_px: float = 2.0,
        seed: int = 0,
    ) -> KMeansPredictor:
        """Cluster sampled pixels with OpenCV's k-means++ and count the classes of each cluster.

        Args:
            images: pairs of an image (H, W, C) uint8, C 1 or 3 (RGB), and class ids (H, W); ids
                without a class count nowhere. Gone through once.
            classes: class names by id.
            foreground: the class to find; its name is checked, all classes count alike.
            blur_px: sigma of the blur, pixels.
            seed: of sampling and clustering.

        Raises:
            SettingsError: ``foreground`` is no class, or there is no labelled pixel.
            ImageError: an image is not 8 bit or has another number of channels than the first.
        """
        class_id(classes, foreground)
        rng = np.random.default_rng(seed)
        colours, labels, channels = [], [], 0
        for image, mask in images:
            channels = checked_channels(image, channels)
            counted = np.flatnonzero(mask.reshape(-1) < len(classes))
            chosen = rng.permutation(counted)[:SAMPLED_PIXELS]
            colours.append(_lab(blurred(image, blur_px)).reshape(-1, channels)[chosen])
            labels.append(mask.reshape(-1)[chosen].astype(np.int64))
        pixels = np.concatenate(colours) if colours else np.zeros((0, 1), np.float32)
        if not len(pixels):
            raise nothing_to_fit()
        count = min(CLUSTERS_PER_CLASS * len(classes), len(np.unique(pixels, axis=0)))
        cv2.setRNGSeed(seed + 1)
        stop = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, ITERATIONS, PRECISION)
        _, nearest, centres = cv2.kmeans(
            pixels,
            count,
            None,
            stop,
            ATTEMPTS,
            cv2.KMEANS_PP_CENTERS,  # type: ignore[call-overload]
        )
        key = nearest.reshape(-1).astype(np.int64) * len(classes) + np.concatenate(labels)
        table = np.bincount(key, minlength=count * len(classes)).reshape(count, -1)
        shares = (table / np.maximum(table.sum(1, keepdims=True), 1)).astype(np.float32)
        return cls(spec_of(classes, channels), blur_px, np.asarray(centres, np.float32), shares)

    def predict(self, images: Images, outputs: Sequence[Output] = ("labels",)) -> Prediction:
        """As :class:`~delineate.types.Predictor`; probabilities are the shares in training.

        Raises:
            ImageError: the batch does not fit ``spec``.
            SettingsError: an output is unknown, or none is asked for.
        """
        check_batch(images, outputs, self.spec)
        nearest = np.stack([self._nearest(image) for image in images])
        probabilities = np.ascontiguousarray(np.moveaxis(self.table[nearest], -1, 1))
        return finish(probabilities, self.spec, outputs)

    def _nearest(self, image: Image) -> Int64[np.ndarray, "h w"]:
        colours = _lab(blurred(np.ascontiguousarray(image), self.blur_px))
        flat = colours.reshape(-1, colours.shape[2])
        # the largest 2 x.c - |c|^2 is the least |x - c|^2
        closeness = flat @ (2 * self.centres.T) - (self.centres**2).sum(1)
        return np.asarray(closeness.argmax(1).reshape(image.shape[:2]))


def _lab(image: UInt8[np.ndarray, "h w c"]) -> Float32[np.ndarray, "h w c"]:
    """Lab of RGB, L 0 to 100; grey stays as it is."""
    if image.shape[2] == 1:
        return image.astype(np.float32)
    return np.asarray(cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2Lab))
