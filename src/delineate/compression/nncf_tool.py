"""NNCF, and how it is asked for what the engines want."""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import Any, TypeAlias

import numpy as np
import onnx
from jaxtyping import Shaped

from delineate.compression.qdq import Family
from delineate.compression.quiet import quiet
from delineate.errors import MissingExtraError

AnySize: TypeAlias = Shaped[np.ndarray, "_ _ c"]  # an image, among others of other sizes


def import_nncf() -> Any:
    """NNCF, without the messages that it would send home.

    Raises:
        MissingExtraError: it is not installed.
    """
    before = os.environ.get("NNCF_CI")
    os.environ["NNCF_CI"] = "1"
    try:
        with quiet():
            import nncf
            import nncf.quantization.advanced_parameters
    except ImportError as error:
        raise MissingExtraError("NNCF", "compress") from error
    finally:
        if before is None:
            del os.environ["NNCF_CI"]
        else:
            os.environ["NNCF_CI"] = before
    return nncf


def nncf_input(image: AnySize) -> dict[str, np.ndarray]:
    """An image as NNCF gives it to a finished graph."""
    return {"image": image[None]}


def nncf_scope(nncf: Any, model: onnx.ModelProto, wanted: Collection[str]) -> Any:
    """What NNCF has to leave alone: everything that is not wanted."""
    others = [node.name for node in model.graph.node if node.name not in wanted]
    return nncf.IgnoredScope(names=others, validate=False)


def nncf_parameters(nncf: Any, family: Family) -> Any:
    """NNCF's settings for a target family; its bias correction is on by default."""
    parameters = nncf.quantization.advanced_parameters
    processor = family == "x86"
    fix = parameters.OverflowFix.ENABLE if processor else parameters.OverflowFix.DISABLE
    mode = "asymmetric" if processor else "symmetric"
    return parameters.AdvancedQuantizationParameters(
        overflow_fix=fix,
        activations_quantization_params=parameters.QuantizationParameters(
            mode=mode, per_channel=False
        ),
    )


def first_domain_first(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose first opset is that of plain ONNX, where NNCF looks for it."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    opsets = sorted(copy.opset_import, key=lambda opset: opset.domain not in ("", "ai.onnx"))
    del copy.opset_import[:]
    copy.opset_import.extend(opsets)
    return copy
