"""How accurate a candidate is expected to be, before it is trained on the dataset at hand.

The rank comes from trainings of our own (``measured.json``, written by
``benchmarks/candidates.py``), from random weights, which that file names one by one. What they
reached is divided by the ceiling that the network's stride has on that dataset's labels; the
expectation is this share, at the number of crops that the training will see, times the ceiling on
the labels at hand. So a coarse network loses its rank where structures are thin, and a large one
where the training is short.

Past the longest training the share grows on with half its slope over the logarithm of the crops.
Nothing but a rank is claimed: datasets differ in difficulty.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

from delineate.config import ModelSettings, Settings, checked
from delineate.planning.candidates import Candidate
from delineate.planning.fingerprint import Fingerprint
from delineate.words import plural

CROP_PIXELS = 256 * 256  # the unit in which what a training sees is counted
_PAST = 0.5  # of the slope, beyond the longest training
_MOST = 0.97  # of a ceiling


class Trained(Settings):
    """One training of a candidate.

    Attributes:
        model: which network.
        dataset: short name.
        ceiling: of the network's stride on the dataset's labels.
        crops: of 256 x 256 pixels that were seen.
        miou: on images of other groups, 0 to 1.
        steps, commit: for the record.
    """

    model: ModelSettings
    dataset: str
    ceiling: float
    crops: float
    miou: float
    steps: int
    commit: str


@dataclass(frozen=True)
class Expected:
    """A rank in accuracy, and where it comes from.

    Attributes:
        miou: on a dataset of average difficulty with the labels' ceilings at hand.
        share: of the ceiling.
        source: in words.
        follows_time: trainings of several lengths are known, so that it tells more crops from
            fewer.
    """

    miou: float
    share: float
    source: str
    follows_time: bool = False


@cache
def measured() -> tuple[Trained, ...]:
    """Our own trainings."""
    text = files("delineate.planning").joinpath("measured.json").read_text(encoding="utf-8")
    rows: dict[str, dict[str, Any]] = json.loads(text)["trainings"]
    return tuple(checked(Trained, row, f"measured.json: {name}") for name, row in rows.items())


def expected(
    candidate: Candidate,
    crops: float,
    fingerprint: Fingerprint,
    trainings: Sequence[Trained] | None = None,
) -> Expected | None:
    """What a candidate is expected to reach.

    Args:
        candidate: a network.
        crops: of 256 x 256 pixels that its training will see.
        fingerprint: of the dataset.
        trainings: to go by; our own when left out.

    Returns:
        None for a network that was never trained here, at any input scale.
    """
    rows = measured() if trainings is None else trainings
    same = [row for row in rows if _family(row.model) == _family(candidate.model)]
    if not same:
        return None
    shared = _on_all(rows)
    same = [row for row in same if row.dataset in shared] or same
    own = [row for row in same if row.model.downscale == candidate.model.downscale]
    used = own or same
    shares = [
        _at([row for row in used if row.dataset == dataset], crops)
        for dataset in sorted({row.dataset for row in used})
    ]
    share = float(np.mean(shares))
    source = f"{plural(len(used), 'training')} on {plural(len(shares), 'dataset')}"
    if not own:
        source += " at another input scale"
    follows = len({row.crops for row in used}) > 1
    return Expected(share * fingerprint.ceiling(candidate.stride), share, source, follows)


def _on_all(rows: Sequence[Trained]) -> set[str]:
    """The datasets on which every network was trained: only there can all be compared."""
    on: dict[str, set[tuple[object, ...]]] = {}
    for row in rows:
        on.setdefault(row.dataset, set()).add(_family(row.model))
    most = max((len(families) for families in on.values()), default=0)
    return {dataset for dataset, families in on.items() if len(families) == most}


def _family(model: ModelSettings) -> tuple[object, ...]:
    return (model.architecture, model.encoder, model.decoder_channels)


def _at(rows: Sequence[Trained], crops: float) -> float:
    """The share of the ceiling after so many crops, by the logarithm of their number."""
    points = sorted({row.crops for row in rows})
    values = [
        float(np.mean([row.miou / row.ceiling for row in rows if row.crops == point]))
        for point in points
    ]
    place, known = math.log(max(crops, 1.0)), [math.log(point) for point in points]
    value = float(np.interp(place, known, values))
    if len(points) > 1 and place > known[-1]:
        slope = max(0.0, (values[-1] - values[-2]) / (known[-1] - known[-2]))
        value += _PAST * slope * (place - known[-1])
    if len(points) > 1 and place < known[0]:
        slope = max(0.0, (values[1] - values[0]) / (known[1] - known[0]))
        value -= slope * (known[0] - place)
    return min(max(value, 0.0), _MOST)
