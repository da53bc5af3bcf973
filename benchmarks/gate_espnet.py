"""Claim: the gate admits what holds its scores and is faster, and refuses naive int8.

ESPNet on CamVid is the hard case: dilated convolutions, PReLU and concatenations, trained for long
in float; int8 without care loses points and may be no faster. Every attempt of ``delineate
compress`` is committed with its scores, its speed in interleaved rounds and the gate's reasons.

A U-Net on EfficientNet-B4 at 256 px is the second case: there int8 saves little over bfloat16,
where the processor has that, so the gate has to tell what is really faster from what is hardly so.
It is trained on nuclei for a few minutes, and kept in a folder.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.int8 import Case, trained
from benchmarks.predict import espnet
from benchmarks.record import shared, write
from delineate.config import ModelSettings
from delineate.workflows.compress import Compressed, CompressSettings, compress, row

B4 = Case(
    "b4", ModelSettings(architecture="unet", encoder="efficientnet-b4"), "nuclei-0", budget_s=420.0
)
B4_HW = (256, 256)


def tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def as_plain(found: Compressed) -> dict[str, Any]:
    return {
        "attempts": [row(item) for item in found.attempts],
        "left_out": list(found.left_out),
        "admitted": {name: item.label for name, item in found.admitted.items()},
    }


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


def b4_figures(found: Compressed) -> dict[str, float]:
    """The best int8 beside the fastest float, whatever the gate said."""
    ints = [item for item in found.attempts if item.precision == "int8"]
    best = max(ints, key=lambda item: item.speedup.value if item.speedup else 0.0, default=None)
    if best is None or best.speedup is None:
        return {"b4_int8_admitted": 0.0}
    base = next(item for item in found.attempts if item.label == best.base)
    return {
        "b4_int8_admitted": float("int8" in found.admitted),
        "b4_int8_speedup_vs_best_float": round(best.speedup.value, 3),
        "b4_p50_ms_int8": round(best.timing.quantile(0.5).value, 3),
        "b4_p50_ms_best_float": round(base.timing.quantile(0.5).value, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gate_espnet", description=__doc__)
    work = Path(tempfile.gettempdir()) / "int8-benchmark"
    parser.add_argument("--work", type=Path, default=work, help="folder for dataset and run")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bundle = espnet(Path(folder) / "espnet.bundle")
        found = compress(bundle, shared("data/camvid"), tell=tell)
    data = wanted.work / B4.split
    second = compress(
        trained(B4, data, wanted.work / B4.name),
        data,
        out=wanted.work / "b4.compressed.bundle",
        force=True,
        settings=CompressSettings(image_hw=B4_HW),
        tell=tell,
    )
    write(
        "gate_espnet",
        "the gate finds a variant of ESPNet that holds its thresholds, or refuses int8; and int8 "
        "that is hardly faster than the best float, or slower, is not admitted",
        figures(found) | b4_figures(second),
        {},
        {"espnet": as_plain(found), "unet_efficientnet_b4": as_plain(second)},
    )


if __name__ == "__main__":
    main()
