"""NNCF's accuracy control as a proposer of layers that stay float.

It ranks quantisers by what their removal does to a measure and removes them one by one until the
measure is near that of float32 (``quantize_with_accuracy_control``). The measure is ours: on images
of the training split, the share of pixels that get the class float32 gives them. So nothing is
chosen on the split that the gate judges on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx

from delineate.compression.nncf_tool import Control, by_nncf
from delineate.compression.piece import Piece
from delineate.compression.quantise import Quantisation, as_shipped, quantisable
from delineate.types import Predictor

LARGEST_DROP = 0.01  # of the share of pixels with the class of float32
MOST_REMOVED = 32


def controlled(
    model: onnx.ModelProto,
    pieces: Sequence[Piece],
    how: Quantisation,
    *,
    predictor: Callable[[onnx.ModelProto], Predictor],
    compared: int,
    limit_s: float,
) -> onnx.ModelProto | None:
    """A graph quantised by NNCF with as few float layers as accuracy control needs.

    Args:
        model: from :func:`~delineate.compression.quantise.prepared`.
        pieces: of images, for the ranges.
        how: family, and what stays float in any case.
        predictor: runs a graph as it will be run later.
        compared: on how many pieces, from the first, classes are compared.
        limit_s: seconds after which it is given up.

    Returns:
        None where the time was over first.

    Raises:
        MissingExtraError: NNCF is not installed.
        ModelError: NNCF fails on this network.
    """
    float32 = predictor(model)
    truth = [_classes(float32, piece) for piece in pieces[:compared]]

    def agreement(graph: onnx.ModelProto, items: Sequence[int]) -> list[float]:
        runs = predictor(as_shipped(graph, how))
        return [float(np.mean(_classes(runs, pieces[index]) == truth[index])) for index in items]

    made = by_nncf(
        model,
        pieces,
        [name for name in quantisable(model) if name not in how.float_nodes],
        how.family,
        control=Control(len(truth), LARGEST_DROP, MOST_REMOVED),
        measure=agreement,
        limit_s=limit_s,
    )
    return None if made is None else as_shipped(made, how)


def _classes(predictor: Predictor, piece: Piece) -> np.ndarray:
    labels: np.ndarray = piece.predicted(predictor)["labels"][0]
    return labels
