"""Claim: the gate admits what holds its scores and is faster, and refuses naive int8.

ESPNet on CamVid is the hard case: dilated convolutions, PReLU and concatenations, trained for long
in float; int8 without care loses points and may be no faster. Every attempt of ``delineate
compress`` is committed with its scores, its speed in interleaved rounds and the gate's reasons.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from benchmarks.predict import espnet
from benchmarks.record import shared, write
from delineate.workflows.compress import Compressed, compress, row


def figures(found: Compressed) -> dict[str, float]:
    """The chosen variant is the fastest admitted one; float32 where nothing was admitted."""
    floats = [item for item in found.attempts if item.precision == "float32"]
    fastest = min(floats, key=lambda item: item.timing.quantile(0.5).value)
    chosen = min(
        [*found.admitted.values(), fastest], key=lambda item: item.timing.quantile(0.5).value
    )
    ms = [item.timing.quantile(0.5).value for item in (fastest, chosen)]
    scores = [item.evaluation for item in (fastest, chosen)]
    assert None not in scores, "float32 and what is admitted have some"
    return {
        "miou_float": round(scores[0].scores.mean_iou, 4),
        "miou_chosen": round(scores[1].scores.mean_iou, 4),
        "speedup_vs_best_float32": round(ms[0] / ms[1], 3),
        "p50_ms_best_float32": round(ms[0], 3),
        "p50_ms_chosen": round(ms[1], 3),
    }


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        bundle = espnet(Path(folder) / "espnet.bundle")
        found = compress(
            bundle,
            shared("data/camvid"),
            tell=lambda line: print(line, file=sys.stderr, flush=True),
        )
    write(
        "gate_espnet",
        "the gate finds a variant of ESPNet that holds its thresholds, or refuses int8",
        figures(found),
        {},
        {"attempts": [row(item) for item in found.attempts], "left_out": list(found.left_out)},
    )


if __name__ == "__main__":
    main()
