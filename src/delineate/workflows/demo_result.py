"""What the demo found."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt, UInt8

from delineate.evaluation.evaluate import Evaluation
from delineate.types import Image, LabelMap
from delineate.workflows.train import TrainResult

# its size is not that of the example, so its axes have other names
LargeImage = tuple[UInt8[np.ndarray, "large_h large_w c"], UInt[np.ndarray, "large_h large_w"]]


@dataclass(frozen=True)
class Demo:
    """What the demo found; the page and the JSON are made from it.

    Attributes:
        dice: Dice of tumour on the held-out test images, for the network and two controls.
        seconds: spent on each stage.
    """

    out: Path
    training: TrainResult
    test: Evaluation
    dice: dict[str, float]
    example: tuple[Image, LabelMap]
    large: LargeImage
    large_dice: float
    large_tiles: int
    answer: dict[str, Any]
    server_timing: str
    seconds: dict[str, float]

    @property
    def page(self) -> Path:
        return self.out / "index.html"

    def to_dict(self) -> dict[str, Any]:
        return {
            "page": str(self.page),
            "bundle": str(self.training.bundle),
            "dice_tumour_held_out": {n: round(v, 4) for n, v in self.dice.items()},
            "mean_iou_held_out": round(self.test.scores.mean_iou, 4),
            "dice_tumour_large": round(self.large_dice, 4),
            "large_tiles": self.large_tiles,
            "server_timing": self.server_timing,
            "seconds": {n: round(v, 1) for n, v in self.seconds.items()},
            "seconds_in_all": round(sum(self.seconds.values()), 1),
        }
