"""Which layers of a network suffer most from quantisation, measured on the network itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx

from delineate.compression.piece import Piece
from delineate.compression.quantise import (
    WEIGHTED,
    Quantisation,
    quantisable,
    quantised,
)
from delineate.errors import EngineError
from delineate.types import Predictor


@dataclass(frozen=True)
class Sensitivity:
    """What it is worth to leave one layer in float.

    Attributes:
        node: its name.
        gain: by how much less the probabilities differ from those of float32, mean over pixels
            and classes; 0 to 1. Negative where an error was made up for by another.
    """

    node: str
    gain: float


def layers(model: onnx.ModelProto) -> tuple[str, ...]:
    """The nodes of a prepared graph that have weights and may become integers."""
    weighted = {node.name for node in model.graph.node if node.op_type in WEIGHTED}
    return tuple(name for name in quantisable(model) if name in weighted)


def divergence(float32: Predictor, other: Predictor, pieces: Iterable[Piece]) -> float:
    """Mean difference of the probabilities of two predictors, 0 to 1, over pixels and classes."""
    total, count = 0.0, 0
    for piece in pieces:
        pair = [
            piece.predicted(predictor, ("probabilities",))["probabilities"].astype(np.int16)
            for predictor in (float32, other)
        ]
        total += float(np.abs(pair[0] - pair[1]).sum(dtype=np.int64))
        count += pair[0].size
    return total / (255 * max(count, 1))


def rank_layers(
    model: onnx.ModelProto,
    pieces: Sequence[Piece],
    how: Quantisation,
    *,
    predictor: Callable[[onnx.ModelProto], Predictor],
    compared: Sequence[Piece],
    cache: Path,
    limit_s: float,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[Sensitivity, ...]:
    """Leave one layer after another in float, and see what that is worth.

    Layers near the input and near the output come first, as these suffer most often: where the
    time is over before all are measured, the others are left out.

    Args:
        model: from :func:`~delineate.compression.quantise.prepared`.
        pieces: of images, for the ranges.
        how: what stays float in any case is part of it.
        predictor: runs a graph as it will be run later.
        compared: pieces on which probabilities are compared; a few crops do.
        cache: a folder for the ranges, see :func:`~delineate.compression.quantise.quantised`.
        limit_s: seconds after which no further layer is begun.
        clock: seconds.

    Returns:
        the measured layers, that with the largest gain first.
    """
    began = clock()
    float32 = predictor(model)
    whole = divergence(float32, predictor(quantised(model, pieces, how, cache=cache)), compared)
    found: list[Sensitivity] = []
    for node in _from_both_ends([n for n in layers(model) if n not in how.float_nodes]):
        if clock() - began > limit_s:
            break
        without = replace(how, float_nodes=how.float_nodes | {node})
        graph = quantised(model, pieces, without, cache=cache)
        try:
            other = predictor(graph)
        except EngineError:  # then it is no mend, whatever it would be worth
            continue
        found.append(Sensitivity(node, whole - divergence(float32, other, compared)))
    return tuple(sorted(found, key=lambda item: -item.gain))


def _from_both_ends(names: Sequence[str]) -> list[str]:
    """First, last, second, last but one, and so on."""
    half = (len(names) + 1) // 2
    ends = [names[:half], list(reversed(names[half:]))]
    return [end[i] for i in range(half) for end in ends if i < len(end)]
