"""Claim: int8 through the gate is 2.5 times the best float32 engine, 1.5 times PyTorch's best.

A U-Net on ResNet-34 is trained on nuclei and a DeepLabV3+ on CamVid, both here and for minutes.
``delineate compress`` then looks for variants. What it admits in int8 is timed once more in turns
with float32 on each engine and with PyTorch: as it comes (eager), and at its best (channels-last,
bfloat16 where the processor has it, compiled with frozen weights). All take the same raw image to
the same label map. PyTorch's own int8 is not among the peers. Trainings are kept in a folder, so
that the second run goes on where the first was stopped; nothing else may run on the machine.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.accuracy.datasets import load_split, write_dataset
from benchmarks.record import write
from delineate.bundle.load import load
from delineate.config import Duration, ModelSettings, Plan, load_yaml
from delineate.data.dataset import Dataset
from delineate.data.images import read_image
from delineate.data.piece import top_left
from delineate.engines.scaling import image_scaling
from delineate.engines.timing import speedup, time_calls
from delineate.models.build import build
from delineate.training.checkpoint import load_checkpoint
from delineate.types import Image
from delineate.workflows.compress import Compressed, CompressSettings, compress, row
from delineate.workflows.evaluate import EvaluateSettings, evaluate
from delineate.workflows.train import train
from delineate.workflows.training_setup import TrainSettings

QUICK = EvaluateSettings(details=False)
HW = (512, 512)
THREADS = 2
ENGINES = ("onnxruntime", "openvino")


@dataclass(frozen=True)
class Case:
    """A network, what it is trained on, and for how long."""

    name: str
    model: ModelSettings
    split: str
    budget_s: float


CASES = (
    Case("unet", ModelSettings(architecture="unet", encoder="resnet34"), "nuclei-0", 420.0),
    Case("deeplab", ModelSettings(architecture="deeplabv3+", encoder="resnet34"), "camvid", 900.0),
)


def trained(case: Case, data: Path, run: Path) -> Path:
    """The bundle, trained unless it was."""
    write_dataset(load_split(case.split), data)
    if not (run / "result.json").exists():
        going_on = (run / "plan.yaml").exists()
        changes = {f"model.{key}": value for key, value in case.model.model_dump().items()}
        settings = TrainSettings(Duration(budget_s=case.budget_s), resume=going_on)
        train(data, run, changes=None if going_on else changes, settings=settings)
    return Path(json.loads((run / "result.json").read_text())["bundle"])


class Whole(nn.Module):
    """Raw pixels (1, H, W, C) to class ids (1, H, W): the work of the finished graph.

    Where images are normalised each by itself, scale and offset of the one image are given.
    """

    def __init__(self, run: Path, bundle: Path, image: Image) -> None:
        super().__init__()
        manifest = load(bundle).manifest
        plan = load_yaml(run / "plan.yaml", Plan)
        self.network = build(
            plan.model,
            channels=manifest.input.channels,
            classes=len(manifest.classes),
            task=manifest.task,
        ).eval()
        load_checkpoint(run / "checkpoints" / "best.safetensors", self.network, None, None)
        normalisation = manifest.input.normalisation
        if normalisation.by == "image":
            scale, offset = image_scaling(image)
        else:
            scale = 1 / np.array(normalisation.std, np.float32)
            offset = -np.array(normalisation.mean, np.float32) * scale
        self.register_buffer("scale", torch.from_numpy(scale).reshape(1, -1, 1, 1))
        self.register_buffer("offset", torch.from_numpy(offset).reshape(1, -1, 1, 1))
        self.channels_last = False

    def forward(self, image: Tensor) -> Tensor:
        # the permuted image is channels-last already
        x = image.permute(0, 3, 1, 2).float() * self.scale + self.offset
        if not self.channels_last:
            x = x.contiguous()
        logits = self.network(x)
        if logits.shape[1] == 1:
            return (logits[:, 0] > 0).to(torch.uint8)
        return logits.argmax(dim=1).to(torch.uint8)


def by_pytorch(run: Path, bundle: Path, image: Image) -> dict[str, Callable[[], np.ndarray]]:
    """PyTorch in all the ways that are usual on a processor, by name."""
    torch.set_num_threads(THREADS)
    pixels = torch.from_numpy(image[None].copy())
    frozen = {"freezing": True}

    def call(module: Callable[[Tensor], Tensor], precision: torch.dtype | None) -> Any:
        def run_it() -> np.ndarray:
            enabled = precision is not None
            with torch.no_grad(), torch.autocast("cpu", precision, enabled=enabled):
                return np.asarray(module(pixels).numpy())

        return run_it

    def last() -> nn.Module:
        whole = Whole(run, bundle, image)
        whole.channels_last = True
        return whole.to(memory_format=torch.channels_last)

    ways = {
        "eager": call(Whole(run, bundle, image), None),
        "channels-last": call(last(), None),
        "compiled": call(torch.compile(last(), options=frozen), None),
    }
    if torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported():
        ways["bfloat16"] = call(last(), torch.bfloat16)
        ways["compiled bfloat16"] = call(torch.compile(last(), options=frozen), torch.bfloat16)
    return ways


def timed(found: Compressed, run: Path, float_bundle: Path, image: Image) -> dict[str, Any]:
    """Medians in milliseconds and ratios within rounds, of the admitted int8 and all others."""
    assert found.bundle is not None, "int8 was admitted, so a bundle was written"
    batch = image[None]
    calls: dict[str, Callable[[], object]] = {}
    for engine in ENGINES:
        predictor = load(float_bundle, engine=engine, threads=THREADS)
        calls[f"float32 on {engine}"] = lambda predictor=predictor: predictor.predict(batch)
    chosen = load(found.bundle, variant="int8", threads=THREADS)
    calls["int8"] = lambda: chosen.predict(batch)
    reference = load(float_bundle, threads=THREADS).predict(batch)["labels"]
    agreement = {}
    for name, call in by_pytorch(run, float_bundle, image).items():
        agreement[name] = float(np.mean(call() == reference))
        assert agreement[name] > 0.98, f"PyTorch {name} computes something else"
        calls[f"PyTorch {name}"] = call
    timings = time_calls(calls)
    medians = {name: timing.quantile(0.5).value for name, timing in timings.items()}

    def best(prefix: str) -> str:
        return min((name for name in medians if name.startswith(prefix)), key=medians.__getitem__)

    peers = {
        "speedup_vs_best_float32": best("float32"),
        "speedup_vs_pytorch_best": best("PyTorch"),
        "speedup_vs_pytorch_eager": "PyTorch eager",
    }
    ratios = {key: speedup(timings["int8"], timings[name]) for key, name in peers.items()}
    return {
        "p50_ms": {name: round(ms, 2) for name, ms in medians.items()},
        "against": peers,
        "ratios": {
            key: [round(value, 3) for value in (ratio.value, ratio.low, ratio.high)]
            for key, ratio in ratios.items()
        },
        "same_labels_as_float32": {name: round(share, 5) for name, share in agreement.items()},
    }


def measured(case: Case, work: Path) -> tuple[dict[str, float], dict[str, Any]]:
    """Figures and details of a case; without an admitted int8 there are only details."""
    data, run = work / case.split, work / case.name
    bundle = trained(case, data, run)
    found = compress(
        bundle,
        data,
        out=work / f"{case.name}.compressed.bundle",
        force=True,
        settings=CompressSettings(image_hw=HW, threads=THREADS),
        tell=lambda line: print(line, file=sys.stderr, flush=True),
    )
    details: dict[str, Any] = {
        "attempts": [row(item) for item in found.attempts],
        "left_out": list(found.left_out),
        "steps": json.loads((run / "result.json").read_text())["steps"],
    }
    admitted = found.admitted.get("int8")
    if admitted is None or admitted.loss is None:
        return {f"int8_admitted_{case.name}": 0.0}, details
    before, after = (
        evaluate(load(path, variant=variant), data, split="test", settings=QUICK).scores.mean_iou
        for path, variant in ((bundle, "float32"), (found.bundle, "int8"))
    )
    speed = admitted.speedup
    assert speed is not None, "int8 was compared with floats"
    image = read_image(Dataset.open(data).split("val")[0].image)
    details |= timed(found, run, bundle, top_left(image, HW, HW))
    return {
        f"int8_admitted_{case.name}": 1.0,
        f"miou_loss_points_{case.name}": round(admitted.loss.miou, 3),
        f"miou_loss_points_test_{case.name}": round(100 * (before - after), 3),
        f"speedup_vs_best_float_{case.name}": round(speed.value, 3),
        **{f"{key}_{case.name}": ratio[0] for key, ratio in details["ratios"].items()},
    }, details


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.int8", description=__doc__)
    work = Path(tempfile.gettempdir()) / "int8-benchmark"
    parser.add_argument("--work", type=Path, default=work, help="folder for datasets and runs")
    wanted = parser.parse_args()
    figures: dict[str, float] = {}
    details: dict[str, Any] = {}
    for case in CASES:
        numbers, details[case.name] = measured(case, wanted.work)
        figures |= numbers
        print(json.dumps(numbers), flush=True)
    write(
        "int8",
        "int8 that the gate admits loses less than a point of mIoU, is at least 2.5 times as fast "
        "as the best float32 engine, 1.5 times PyTorch at its best and 3.5 times PyTorch eager",
        figures,
        {"PyTorch": f"{torch.__version__}: eager, channels-last, bfloat16, compiled and frozen"},
        details,
    )


if __name__ == "__main__":
    main()
