from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from delineate.compression.gate import GateSettings, Loss, lost, score_reasons, speed_reasons
from delineate.data.dataset import Sample
from delineate.engines.timing import Interval
from delineate.evaluation.details import DetailSettings
from delineate.evaluation.evaluate import Evaluation, evaluate
from delineate.types import Image, LabelMap

CLASSES = ("sky", "road", "sign", "ghost")
HELD = Loss(0.99, {"sky": 3.0, "road": -1.0}, 1.49)


def scored(truth: LabelMap, found: LabelMap) -> Evaluation:
    sample = Sample("one", Path("one.png"), Path("mask.png"), None)
    image: Image = np.zeros((*truth.shape, 3), np.uint8)
    return evaluate(
        [sample],
        lambda _: (image, truth),
        lambda _: found,
        classes=CLASSES,
        ignore_index=None,
        details=DetailSettings(),
    )


def a_street() -> LabelMap:
    labels = np.zeros((100, 200), np.uint8)
    labels[50:] = 1
    labels[20:40, 20:40] = 2
    return labels


def test_points_lost_by_class_and_in_the_mean() -> None:
    truth = a_street()
    found = truth.copy()
    found[20:30, 20:40] = 0  # half of the sign
    loss = lost(scored(truth, truth), scored(truth, found))
    assert loss.classes == pytest.approx(
        {"sky": 100 * (1 - 9600 / 9800), "road": 0.0, "sign": 50.0}
    )  # nobody sees a ghost
    assert loss.miou == pytest.approx(sum(loss.classes.values()) / 3)
    assert loss.worst_class == ("sign", pytest.approx(50.0))
    assert loss.boundary > 5
    back = lost(scored(truth, found), scored(truth, truth))
    assert back.miou == pytest.approx(-loss.miou)


def test_a_class_that_is_claimed_falsely_lowers_the_mean() -> None:
    truth = a_street()
    found = truth.copy()
    found[0, 0] = 3
    loss = lost(scored(truth, truth), scored(truth, found))
    assert "ghost" not in loss.classes
    assert loss.miou > 24  # a fourth of the classes has a score of 0 now
    assert score_reasons(loss, GateSettings())


def test_what_holds_every_threshold_is_admitted() -> None:
    assert score_reasons(HELD, GateSettings()) == ()
    assert speed_reasons(Interval(1.2, 1.1, 1.3), "float32", GateSettings()) == ()


@pytest.mark.parametrize(
    ("loss", "reason"),
    [
        (
            Loss(1.0, {"sky": 0.0}, 0.0),
            "loses 1.00 points of mIoU, and has to stay below 1",
        ),
        (
            Loss(0.0, {"sky": 0.0, "pole": 3.2}, 0.0),
            "loses 3.20 points of pole, and 3 are allowed",
        ),
        (
            Loss(0.0, {"sky": 0.0}, 1.5),
            "loses 1.50 points of boundary IoU, and has to stay below 1.5",
        ),
    ],
)
def test_each_threshold_refuses_by_itself(loss: Loss, reason: str) -> None:
    assert score_reasons(loss, GateSettings()) == (reason,)


def test_what_has_no_score_is_not_admitted() -> None:
    reasons = score_reasons(Loss(math.nan, {}, math.nan), GateSettings())
    assert len(reasons) == 2


def test_thresholds_are_options() -> None:
    loss = Loss(1.5, {"pole": 6.0}, 2.0)
    loose = GateSettings(miou_points=2.0, class_points=6.0, boundary_points=2.5, speedup=1.0)
    assert score_reasons(loss, loose) == ()
    assert speed_reasons(Interval(1.0, 0.9, 1.1), "float32", loose) == ()


def test_a_speed_that_falls_short_is_told_with_its_interval() -> None:
    assert speed_reasons(Interval(1.19, 1.15, 1.24), "OpenVINO bf16", GateSettings()) == (
        "is 1.19 times as fast as OpenVINO bf16 (1.15 to 1.24), and 1.2 times is asked for",
    )
