"""A random forest on filter responses, stored as an ONNX tree ensemble.

The features are those of ilastik's pixel classification (Berg et al. 2019,
doi:10.1038/s41592-019-0582-9): at several scales the smoothed image, the magnitude of its gradient
and the eigenvalues of its Hessian. The forest is scikit-learn's; ONNX Runtime runs it, so that
predicting needs no scikit-learn and nothing is unpickled.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import onnxruntime as ort
from jaxtyping import Float32, UInt8

from delineate.engines.check import check_batch
from delineate.engines.classical.shared import (
    checked_channels,
    class_id,
    finish,
    nothing_to_fit,
    spec_of,
)
from delineate.errors import MissingExtraError
from delineate.types import Image, Images, LabelMap, Output, Prediction, PredictorSpec

SCALES_PX = (1.0, 2.0, 4.0, 8.0)
PER_SCALE = 4  # features of a channel
SAMPLED_PIXELS = 3000  # of an image, evenly over the classes it has
TREES, DEPTH, LEAST_IN_LEAF = 50, 12, 4
STRIDE = 2  # pixels between those that are classified; the rest is interpolated


@dataclass(frozen=True)
class ForestPredictor:
    """Class probabilities of a forest at every second pixel, interpolated between them.

    Attributes:
        spec: what it takes and gives.
        model: the tree ensemble, a serialised ONNX model: features (M, F) to labels and
            probabilities (M, classes that training had).
        columns: the class of each column of its answer.
        threads: inside one call; all cores when left out.
    """

    spec: PredictorSpec
    model: bytes
    columns: tuple[int, ...]
    threads: int | None = None
    _session: Any = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = self.threads or 0
        session = ort.InferenceSession(self.model, options, providers=["CPUExecutionProvider"])
        object.__setattr__(self, "_session", session)

    @property
    def shape(self) -> tuple[int, int]:
        """How many features the model takes, and how many columns its answer has."""
        return self._session.get_inputs()[0].shape[1], self._session.get_outputs()[1].shape[1]

    @classmethod
    def fit(
        cls,
        images: Iterable[tuple[Image, LabelMap]],
        classes: Sequence[str],
        foreground: str,
        *,
        seed: int = 0,
    ) -> ForestPredictor:
        """Fit scikit-learn's forest on sampled pixels.

        Args:
            images: pairs of an image (H, W, C) uint8, C 1 or 3 (RGB), and class ids (H, W); ids
                without a class count nowhere. Gone through once.
            classes: class names by id.
            foreground: the class to find; its name is checked, all classes count alike.
            seed: of sampling and trees.

        Raises:
            MissingExtraError: scikit-learn or skl2onnx is not installed.
            SettingsError: ``foreground`` is no class, or there is no labelled pixel.
            ImageError: an image is not 8 bit or has another number of channels than the first.
        """
        try:
            from skl2onnx import to_onnx
            from sklearn.ensemble import RandomForestClassifier
        except ImportError as error:
            raise MissingExtraError("scikit-learn and skl2onnx", "classical") from error
        class_id(classes, foreground)
        rng = np.random.default_rng(seed)
        rows, labels, channels = [], [], 0
        for image, mask in images:
            channels = checked_channels(image, channels)
            chosen = _sampled(mask, len(classes), rng)
            rows.append(np.stack([plane.reshape(-1)[chosen] for plane in features(image)], axis=1))
            labels.append(mask.reshape(-1)[chosen])
        if not rows or not sum(len(part) for part in rows):
            raise nothing_to_fit()
        table, truth = np.concatenate(rows), np.concatenate(labels).astype(np.int64)
        forest = RandomForestClassifier(
            TREES,
            max_depth=DEPTH,
            min_samples_leaf=LEAST_IN_LEAF,
            class_weight="balanced_subsample",
            n_jobs=-1,
            random_state=seed,
        ).fit(table, truth)
        model = to_onnx(
            forest,
            table[:1],
            options={id(forest): {"zipmap": False, "output_class_labels": False}},
            target_opset={"": 18, "ai.onnx.ml": 3},
        )
        columns = tuple(int(value) for value in forest.classes_)
        return cls(spec_of(classes, channels), model.SerializeToString(), columns)

    def predict(self, images: Images, outputs: Sequence[Output] = ("labels",)) -> Prediction:
        """As :class:`~delineate.types.Predictor`.

        Raises:
            ImageError: the batch does not fit ``spec``.
            SettingsError: an output is unknown, or none is asked for.
        """
        check_batch(images, outputs, self.spec)
        probabilities = np.stack([self._probabilities(image) for image in images])
        return finish(probabilities, self.spec, outputs)

    def _probabilities(self, image: Image) -> Float32[np.ndarray, "k h w"]:
        height, width = image.shape[:2]
        grid = np.stack([plane[::STRIDE, ::STRIDE] for plane in features(image)], axis=2)
        rows = np.ascontiguousarray(grid.reshape(-1, grid.shape[2]))
        found = self._session.run(None, {self._session.get_inputs()[0].name: rows})[1]
        planes = found.reshape(*grid.shape[:2], len(self.columns))
        # the grid's points lie at the first of every two pixels
        y = (np.arange(height, dtype=np.float32) / STRIDE).clip(0, grid.shape[0] - 1)
        x = (np.arange(width, dtype=np.float32) / STRIDE).clip(0, grid.shape[1] - 1)
        across, down = np.meshgrid(x, y)
        result = np.zeros((len(self.spec.classes), height, width), np.float32)
        for column, class_index in enumerate(self.columns):
            plane = np.ascontiguousarray(planes[:, :, column])
            result[class_index] = cv2.remap(
                plane, across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
            )
        return result


def features(image: UInt8[np.ndarray, "h w c"]) -> Iterator[Float32[np.ndarray, "h w"]]:
    """Smoothed value, gradient's magnitude and the Hessian's eigenvalues at each scale.

    One plane after the other, because all of a large image would fill the memory.
    """
    for channel in range(image.shape[2]):
        values = np.ascontiguousarray(image[:, :, channel], np.float32) / 255
        for sigma in SCALES_PX:
            smooth = cv2.GaussianBlur(values, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101)
            yield smooth
            yield from _derived(smooth, sigma)


def _derived(smooth: Float32[np.ndarray, "h w"], sigma: float) -> list[np.ndarray]:
    """Derivatives in units of the scale, so that all scales have a like range."""
    first = [cv2.Sobel(smooth, cv2.CV_32F, *order, scale=sigma / 8) for order in ((1, 0), (0, 1))]
    xx, yy = (
        cv2.Sobel(smooth, cv2.CV_32F, *order, scale=sigma**2 / 4) for order in ((2, 0), (0, 2))
    )
    xy = cv2.Sobel(smooth, cv2.CV_32F, 1, 1, scale=sigma**2 / 4)
    middle, spread = (xx + yy) / 2, np.sqrt(((xx - yy) / 2) ** 2 + xy**2)
    return [cv2.magnitude(*first), middle + spread, middle - spread]


def _sampled(mask: LabelMap, classes: int, rng: np.random.Generator) -> np.ndarray:
    """Indices of pixels, as many of each class that there is."""
    flat = mask.reshape(-1)
    present = [int(value) for value in np.unique(flat) if value < classes]
    if not present:
        return np.zeros(0, np.int64)
    quota = SAMPLED_PIXELS // len(present)
    picks = [rng.permutation(np.flatnonzero(flat == value))[:quota] for value in present]
    return np.concatenate(picks)
