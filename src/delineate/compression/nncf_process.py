"""What runs in a process of its own: NNCF on one graph (``python -m`` with the folder of a job).

The folder holds ``job.json``, ``given.onnx``, ``pixels.npz`` and ``scalings.npz``. What is made is
written there as ``made.onnx``; what goes wrong as ``error.txt``. Accuracy control asks for its
measure by one line of JSON, the name of a graph in the folder and the indices of pieces, and reads
one, the list of their values.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import onnx

from delineate.compression.piece import Piece

ABSENT = 3  # exit status: NNCF is not installed
PIXELS, SCALINGS = "pixels.npz", "scalings.npz"


def main(folder: Path) -> int:
    """Do the job of a folder; the exit status."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # NNCF prints
    os.environ["NNCF_CI"] = "1"  # without the messages that it would send home
    # NNCF patches torch where it finds it; ONNX needs none of that, nor the seconds it takes
    sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        import nncf
        import nncf.quantization.advanced_parameters
    except ImportError:
        return ABSENT
    job = json.loads((folder / "job.json").read_text())
    model = _first_domain_first(onnx.load(folder / "given.onnx"))
    with np.load(folder / PIXELS) as pixels, np.load(folder / SCALINGS) as scalings:
        pieces = [Piece(pixels[name], scalings.get(name)) for name in sorted(pixels.files)]
    try:
        made = _done(nncf, model, pieces, job, folder, answers)
    except Exception as error:  # nncf.errors and what ONNX Runtime raises inside it
        (folder / "error.txt").write_text(str(error) or type(error).__name__)
        return 1
    onnx.save(made, folder / "made.onnx")
    return 0


def _done(
    nncf: Any,
    model: onnx.ModelProto,
    pieces: list[Piece],
    job: dict[str, Any],
    folder: Path,
    answers: TextIO,
) -> onnx.ModelProto:
    # what is not wanted is left alone
    others = [node.name for node in model.graph.node if node.name not in set(job["wanted"])]
    scope = nncf.IgnoredScope(names=others, validate=False)
    parameters = _parameters(nncf, processor=job["family"] == "x86")

    def fed(index: int) -> dict[str, np.ndarray]:
        return pieces[index].inputs(model)

    calibrated = nncf.Dataset(range(len(pieces)), fed)
    if job["control"] is None:
        plain: onnx.ModelProto = nncf.quantize(
            model,
            calibrated,
            ignored_scope=scope,
            advanced_parameters=parameters,
            subset_size=len(pieces),
        )
        return plain
    asked = 0

    def measured(graph: onnx.ModelProto, items: Iterable[int]) -> tuple[float, list[float]]:
        nonlocal asked
        asked += 1
        name = f"asked{asked}.onnx"
        onnx.save(graph, folder / name)
        print(json.dumps({"graph": name, "items": list(items)}), file=answers, flush=True)
        values: list[float] = json.loads(sys.stdin.readline())
        return float(np.mean(values)), values

    control = job["control"]
    compared = range(control["compared"])
    restorer = nncf.quantization.advanced_parameters.AdvancedAccuracyRestorerParameters(
        max_num_iterations=control["most_removed"],
        ranking_subset_size=len(compared),
        num_ranking_workers=1,
    )
    found: onnx.ModelProto = nncf.quantize_with_accuracy_control(
        model,
        calibrated,
        nncf.Dataset(compared, fed),
        measured,
        max_drop=control["largest_drop"],
        ignored_scope=scope,
        advanced_quantization_parameters=parameters,
        advanced_accuracy_restorer_parameters=restorer,
        subset_size=len(pieces),
    )
    return found


def _parameters(nncf: Any, *, processor: bool) -> Any:
    """NNCF's settings for a target family; its bias correction is on by default."""
    parameters = nncf.quantization.advanced_parameters
    return parameters.AdvancedQuantizationParameters(
        overflow_fix=parameters.OverflowFix.ENABLE if processor else parameters.OverflowFix.DISABLE,
        activations_quantization_params=parameters.QuantizationParameters(
            mode="asymmetric" if processor else "symmetric", per_channel=False
        ),
    )


def _first_domain_first(model: onnx.ModelProto) -> onnx.ModelProto:
    """The first opset becomes that of plain ONNX, where NNCF looks for it."""
    opsets = sorted(model.opset_import, key=lambda opset: opset.domain not in ("", "ai.onnx"))
    del model.opset_import[:]
    model.opset_import.extend(opsets)
    return model


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
