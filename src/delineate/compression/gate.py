"""The gate: a compressed network is admitted where it holds its scores and is really faster.

Scores are compared on the validation split, speed on the engine and the machine that will ship:
the median of paired, interleaved rounds (see :mod:`delineate.engines.timing`). Scores are judged
in points, hundredths of an IoU.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from delineate.config import Positive, Settings
from delineate.engines.timing import Interval
from delineate.evaluation.evaluate import Evaluation

Points = Annotated[float, Field(ge=0.0, le=100.0)]


class GateSettings(Settings):
    """What a compressed network may lose, and what it has to win."""

    miou_points: Points = Field(1.0, description="mean IoU lost has to stay below, points")
    class_points: Points = Field(
        3.0, description="IoU that any class loses has to stay at most, points"
    )
    boundary_points: Points = Field(
        1.5, description="mean boundary IoU lost has to stay below, points"
    )
    speedup: Positive = Field(
        1.2, description="times as fast as the best variant of higher precision, at least"
    )


@dataclass(frozen=True)
class Loss:
    """What a compressed network lost against its float32, in points; negative: gained.

    Attributes:
        miou: of the mean IoU.
        classes: of the IoU of each class, by name; a class without a score in either is left out.
        boundary: of the mean boundary IoU; NaN where it has none.
    """

    miou: float
    classes: dict[str, float]
    boundary: float

    @property
    def worst_class(self) -> tuple[str, float]:
        """Name and loss of the class that lost most; an empty name where none has a score."""
        return max(self.classes.items(), key=lambda item: item[1], default=("", math.nan))


def lost(reference: Evaluation, found: Evaluation) -> Loss:
    """What ``found`` lost against ``reference``, both on the same images.

    A class that is in neither truth nor prediction of the reference has nothing to lose; that a
    compressed network claims it falsely shows in the mean, which it then lowers.
    """
    before, after = reference.scores, found.scores
    classes = {
        name: 100 * (old - new)
        for name, old, new in zip(before.classes, before.iou, after.iou, strict=True)
        if not math.isnan(old) and not math.isnan(new)
    }
    edges = [part.details.boundary for part in (reference, found)]
    means = [math.nan if edge is None else edge.mean_iou for edge in edges]
    return Loss(
        miou=100 * (before.mean_iou - after.mean_iou),
        classes=classes,
        boundary=100 * (means[0] - means[1]),
    )


def score_reasons(loss: Loss, settings: GateSettings) -> tuple[str, ...]:
    """Why scores forbid the admission; nothing where they allow it."""
    reasons = []
    # written so that a NaN is no admission
    if not loss.miou < settings.miou_points:
        reasons.append(
            f"loses {loss.miou:.2f} points of mIoU, and has to stay below {settings.miou_points:g}"
        )
    name, points = loss.worst_class
    if not points <= settings.class_points:
        reasons.append(
            f"loses {points:.2f} points of {name}, and {settings.class_points:g} are allowed"
        )
    if not (math.isnan(loss.boundary) or loss.boundary < settings.boundary_points):
        reasons.append(
            f"loses {loss.boundary:.2f} points of boundary IoU, and has to stay below "
            f"{settings.boundary_points:g}"
        )
    return tuple(reasons)


def speed_reasons(speedup: Interval, base: str, settings: GateSettings) -> tuple[str, ...]:
    """Why speed forbids the admission.

    Args:
        speedup: against the best variant of higher precision, from paired rounds.
        base: what that variant is called.
        settings: the thresholds.
    """
    if speedup.value >= settings.speedup:
        return ()
    return (
        f"is {speedup.value:.2f} times as fast as {base} ({speedup.low:.2f} to "
        f"{speedup.high:.2f}), and {settings.speedup:g} times is asked for",
    )
