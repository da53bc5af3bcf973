"""GrabCut (Rother et al. 2004, doi:10.1145/1186562.1015720), seeded without a person.

The seeds come from a table of colours: pixels that are foreground in more than 90 % of the training
pixels of their colour are sure foreground, those under 10 % sure background, the rest is probable
foreground or background by which is more likely. GrabCut then moves the border to where the image
changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float32

from delineate.engines.check import check_batch
from delineate.engines.classical.colour import ColourPredictor
from delineate.engines.classical.shared import class_id, one_class
from delineate.errors import SettingsError
from delineate.types import Image, Images, LabelMap, Output, Prediction, PredictorSpec

SURE = 0.9
LARGEST_PX = 512  # a side of what is cut; larger images are made smaller for it


@dataclass(frozen=True)
class GrabCutPredictor:
    """A table of colours, and GrabCut around what it is sure of.

    Attributes:
        seeds: gives the probability of each colour.
        iterations: of GrabCut.
        foreground: id of the class that is cut out of the other one.
    """

    seeds: ColourPredictor
    iterations: int
    foreground: int

    @property
    def spec(self) -> PredictorSpec:
        return self.seeds.spec

    @classmethod
    def fit(
        cls,
        images: Iterable[tuple[Image, LabelMap]],
        classes: Sequence[str],
        foreground: str,
        *,
        iterations: int = 2,
    ) -> GrabCutPredictor:
        """Fit the table of colours.

        Args:
            images: as for :meth:`ColourPredictor.fit`, with three channels.
            classes: two class names by id.
            foreground: the class to cut out.
            iterations: of GrabCut.

        Raises:
            SettingsError: there are more than two classes, or one channel, or nothing to fit on.
            ImageError: as for :meth:`ColourPredictor.fit`.
        """
        if len(classes) != 2:
            raise SettingsError(
                f"GrabCut tells two classes apart, not {len(classes)}",
                mend="Join classes with delineate data import --map, or take another method.",
            )
        seeds = ColourPredictor.fit(images, classes, foreground)
        if seeds.spec.channels != 3:
            raise SettingsError("GrabCut needs colour", mend="Take another method for grey images.")
        return cls(seeds, iterations, class_id(classes, foreground))

    def predict(self, images: Images, outputs: Sequence[Output] = ("labels",)) -> Prediction:
        """As :class:`~delineate.types.Predictor`; probabilities are 0 or 255.

        Raises:
            ImageError: the batch does not fit ``spec``.
            SettingsError: an output is unknown, or none is asked for.
        """
        check_batch(images, outputs, self.spec)
        shares = self.seeds.predict(images, ("probabilities",))["probabilities"]
        found = np.stack(
            [
                self._cut(image, planes[self.foreground].astype(np.float32) / 255)
                for image, planes in zip(images, shares, strict=True)
            ]
        )
        return one_class(found, self.foreground, 1 - self.foreground, self.spec, outputs)

    def _cut(self, image: Image, share: Float32[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
        height, width = share.shape
        scale = min(1.0, LARGEST_PX / max(height, width))
        wh = (max(1, round(width * scale)), max(1, round(height * scale)))
        small = cv2.resize(image, wh, interpolation=cv2.INTER_AREA)
        likely = cv2.resize(share, wh, interpolation=cv2.INTER_AREA)
        mask = np.where(likely > 0.5, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
        mask[likely > SURE] = cv2.GC_FGD
        mask[likely < 1 - SURE] = cv2.GC_BGD
        some = [np.isin(mask, kinds).any() for kinds in (_FOREGROUND, _BACKGROUND)]
        if all(some):  # it needs a colour model of each
            models = np.zeros((1, 65)), np.zeros((1, 65))
            cv2.setRNGSeed(1)  # its clusters would differ from call to call
            bgr = np.ascontiguousarray(small[:, :, ::-1])
            cv2.grabCut(bgr, mask, None, *models, self.iterations, cv2.GC_INIT_WITH_MASK)  # type: ignore[call-overload]
        cut = np.isin(mask, _FOREGROUND).astype(np.uint8)
        whole = cv2.resize(cut, (width, height), interpolation=cv2.INTER_NEAREST)
        return np.asarray(whole > 0)


_FOREGROUND = (cv2.GC_FGD, cv2.GC_PR_FGD)
_BACKGROUND = (cv2.GC_BGD, cv2.GC_PR_BGD)
