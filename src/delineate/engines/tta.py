"""Test-time augmentation: a predictor that also sees the image mirrored and turned."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, UInt8, UInt16

from delineate.engines.check import check_batch
from delineate.engines.scaling import with_scaling
from delineate.errors import SettingsError
from delineate.types import (
    Images,
    Output,
    Prediction,
    Predictor,
    PredictorSpec,
    Scaling,
)

# (quarter turns counter-clockwise, mirrored left to right afterwards)
_VIEWS: dict[str, tuple[tuple[int, bool], ...]] = {
    "flips": ((0, False), (0, True)),
    "dihedral": tuple((turns, mirrored) for turns in range(4) for mirrored in (False, True)),
}


class TtaPredictor:
    """Averages the probabilities of another predictor over views of the image.

    ``flips`` is the image and its mirror image left to right, twice the work; ``dihedral`` all
    eight ways to mirror it and turn it by 90 degrees, for images without an up and down. The
    8-bit probabilities are summed as whole numbers, so that the result is exact and turns with
    the image.

    Args:
        inner: what is run, once for each view.
        views: ``flips`` or ``dihedral``.

    Raises:
        SettingsError: the views are unknown, or a network of one size that is no square is to
            see turned images.
    """

    def __init__(self, inner: Predictor, views: str) -> None:
        if views not in _VIEWS:
            raise SettingsError(
                f"{views!r} is no test-time augmentation",
                where="--tta",
                mend=f"Choose from {', '.join(_VIEWS)}.",
            )
        size = inner.spec.fixed_hw
        if views == "dihedral" and size is not None and size[0] != size[1]:
            raise SettingsError(
                f"the network takes images of {size[1]} x {size[0]} px (width x height) only, and "
                "turned ones do not fit",
                where="--tta",
                mend="Use --tta flips.",
            )
        self._inner = inner
        self._views = _VIEWS[views]

    @property
    def spec(self) -> PredictorSpec:
        return self._inner.spec

    def predict(self, images: Images, outputs: Sequence[Output] = ("labels",)) -> Prediction:
        check_batch(images, outputs, self.spec)
        sums = sum(
            (self._view(images, *view).astype(np.uint16) for view in self._views[1:]),
            self._view(images, *self._views[0]).astype(np.uint16),
        )
        count = np.uint16(len(self._views))
        labels = sums.argmax(axis=1).astype(np.uint8 if sums.shape[1] <= 256 else np.uint16)
        result = Prediction()
        if "labels" in outputs:
            result["labels"] = labels
        if "confidence" in outputs:
            result["confidence"] = ((sums.max(axis=1) + count // 2) // count).astype(np.uint8)
        if "probabilities" in outputs:
            result["probabilities"] = ((sums + count // 2) // count).astype(np.uint8)
        if "summary" in outputs:
            result["summary"] = _summary(sums, labels)
        return result

    def scaled(self, scaling: Scaling) -> TtaPredictor:
        """As :meth:`delineate.types.PerImagePredictor.scaled`; views change neither."""
        view = copy.copy(self)
        view._inner = with_scaling(self._inner, scaling)
        return view

    def _view(self, images: Images, turns: int, mirrored: bool) -> UInt8[np.ndarray, "_ k _ _"]:
        """Probabilities of one view, turned back."""
        seen = np.rot90(images, turns, axes=(1, 2))
        if mirrored:
            seen = seen[:, :, ::-1]
        seen = np.ascontiguousarray(seen)
        found = self._inner.predict(seen, ("probabilities",))["probabilities"]
        if mirrored:
            found = found[..., ::-1]
        back: np.ndarray = np.rot90(found, -turns, axes=(2, 3))
        return back


def _summary(sums: UInt16[np.ndarray, "n k h w"], labels: np.ndarray) -> Float32[np.ndarray, "n _"]:
    """Class shares, mean confidence and mean entropy, as the graph computes them."""
    classes = sums.shape[1]
    rows = []
    for one, found in zip(sums, labels, strict=True):
        probabilities = one.astype(np.float32)
        probabilities /= np.maximum(probabilities.sum(axis=0), 1)  # they are rounded to 8 bits
        logs = np.log(np.maximum(probabilities, 1e-12))
        entropy = -(probabilities * logs).sum(axis=0).mean(dtype=np.float64)
        shares = np.bincount(found.ravel(), minlength=classes) / found.size
        confidence = probabilities.max(axis=0).mean(dtype=np.float64)
        rows.append(np.array([*shares, confidence, entropy], np.float32))
    return np.stack(rows)
