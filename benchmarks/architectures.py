"""Claim: the table in docs/how-to/architectures.md says what each architecture costs.

Each with its default encoder and decoder, 3 channels, 11 classes: parameters, multiply-adds for
one image of 512 x 512 px (counted on PyTorch's meta device), and the median latency of the
exported network in ONNX Runtime on all cores. The network alone: normalisation, softmax and argmax
around it cost the same for all of them. Latencies are taken in rounds over all architectures, so
that a busy minute falls on each alike.
"""

from __future__ import annotations

import statistics
import time

import numpy as np
import onnxruntime
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.record import write
from delineate.config import ModelSettings
from delineate.export import export_network
from delineate.models import build
from delineate.models.build import ARCHITECTURES

CHANNELS, CLASSES, SIDE_PX = 3, 11, 512
WARM, ROUNDS = 2, 9


def network(architecture: str) -> torch.nn.Module:
    settings = ModelSettings.model_validate({"architecture": architecture})
    return build(settings, channels=CHANNELS, classes=CLASSES, task="multiclass").eval()


def cost(architecture: str) -> dict[str, float]:
    """Parameters in millions and multiply-adds in thousands of millions."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
        model = network(architecture)
        model(torch.zeros(1, CHANNELS, SIDE_PX, SIDE_PX))
    parameters = sum(p.numel() for p in model.parameters())
    return {
        f"params_m_{architecture}": round(parameters / 1e6, 2),
        f"gmacs_{architecture}": round(counter.get_total_flops() / 2e9, 2),
    }


def session(architecture: str) -> onnxruntime.InferenceSession:
    graph = export_network(network(architecture), CHANNELS)
    return onnxruntime.InferenceSession(
        graph.SerializeToString(), providers=["CPUExecutionProvider"]
    )


def latencies() -> dict[str, float]:
    """Median milliseconds for one image."""
    images = np.random.default_rng(0).standard_normal((1, CHANNELS, SIDE_PX, SIDE_PX), np.float32)
    sessions = {name: session(name) for name in ARCHITECTURES}
    times: dict[str, list[float]] = {name: [] for name in ARCHITECTURES}
    for number in range(WARM + ROUNDS):
        for name, engine in sessions.items():
            began = time.perf_counter()
            engine.run(None, {"x": images})
            if number >= WARM:
                times[name].append(1000 * (time.perf_counter() - began))
    return {f"p50_ms_{name}": round(statistics.median(t), 1) for name, t in times.items()}


def main() -> None:
    figures: dict[str, float] = {}
    for name in ARCHITECTURES:
        figures |= cost(name)
    figures |= latencies()
    write(
        "architectures",
        "the table in docs/how-to/architectures.md says what each architecture costs",
        figures,
        {"architectures": "each other, in turn in the same process"},
    )


if __name__ == "__main__":
    main()
