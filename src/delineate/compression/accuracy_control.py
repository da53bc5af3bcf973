"""NNCF's accuracy control as a proposer of layers that stay float.

It ranks quantisers by what their removal does to a measure and removes them one by one until the
measure is near that of float32 (``quantize_with_accuracy_control``). The measure is ours: on images
of the training split, the share of pixels that get the class float32 gives them. So nothing is
chosen on the split that the gate judges on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import onnx

from delineate.compression.nncf_tool import (
    AnySize,
    first_domain_first,
    import_nncf,
    nncf_input,
    nncf_parameters,
    nncf_scope,
)
from delineate.compression.qdq import float_kept, of_family
from delineate.compression.quantise import Quantisation, quantisable
from delineate.compression.quiet import quiet
from delineate.errors import ModelError
from delineate.types import Predictor

LARGEST_DROP = 0.01  # of the share of pixels with the class of float32
MOST_REMOVED = 32


class _Over(Exception):  # noqa: N818 - no error
    """The time is over."""


def controlled(
    model: onnx.ModelProto,
    images: Sequence[AnySize],
    how: Quantisation,
    *,
    predictor: Callable[[onnx.ModelProto], Predictor],
    compared: Sequence[AnySize],
    limit_s: float,
    clock: Callable[[], float] = time.monotonic,
) -> onnx.ModelProto | None:
    """A graph quantised by NNCF with as few float layers as accuracy control needs.

    Args:
        model: from :func:`~delineate.compression.quantise.prepared`.
        images: for the ranges.
        how: family, and what stays float in any case.
        predictor: runs a graph as it will be run later.
        compared: images of the training split on which classes are compared.
        limit_s: seconds after which it is given up.
        clock: seconds.

    Returns:
        None where the time was over first.

    Raises:
        MissingExtraError: NNCF is not installed.
        ModelError: NNCF fails on this network.
    """
    nncf = import_nncf()
    began = clock()
    float32 = predictor(model)
    truth = {image.tobytes(): _classes(float32, image[None]) for image in compared}

    def agreement(graph: onnx.ModelProto, items: Iterable[Any]) -> tuple[float, list[float]]:
        if clock() - began > limit_s:
            raise _Over
        runs = predictor(_shipped(graph, how))
        found = [
            float(np.mean(_classes(runs, image[None]) == truth[image.tobytes()]))
            for image in items  # as they are, whatever the dataset makes of them for NNCF
        ]
        return float(np.mean(found)), found

    wanted = [name for name in quantisable(model) if name not in how.float_nodes]
    restorer = nncf.quantization.advanced_parameters.AdvancedAccuracyRestorerParameters(
        max_num_iterations=MOST_REMOVED, ranking_subset_size=len(compared), num_ranking_workers=1
    )
    try:
        with quiet():
            made = nncf.quantize_with_accuracy_control(
                first_domain_first(model),
                nncf.Dataset(images, nncf_input),
                nncf.Dataset(compared, nncf_input),
                agreement,
                max_drop=LARGEST_DROP,
                ignored_scope=nncf_scope(nncf, model, wanted),
                advanced_quantization_parameters=nncf_parameters(nncf, how.family),
                advanced_accuracy_restorer_parameters=restorer,
                subset_size=len(images),
            )
    except _Over:
        return None
    except Exception as error:  # nncf.errors and what ONNX Runtime raises inside it
        raise ModelError(f"NNCF's accuracy control fails on this network ({error})") from error
    return _shipped(made, how)


def _shipped(graph: onnx.ModelProto, how: Quantisation) -> onnx.ModelProto:
    """A copy as it lies in a bundle: what NNCF holds goes on being changed by it."""
    copy = onnx.ModelProto()
    copy.CopyFrom(graph)
    found = of_family(copy, how.family)
    return float_kept(found) if how.family == "x86" else found


def _classes(predictor: Predictor, images: np.ndarray) -> np.ndarray:
    labels: np.ndarray = predictor.predict(images)["labels"][0]
    return labels
