"""segmentation-models-pytorch's published training example, in plain PyTorch.

``examples/binary_segmentation_intro.ipynb`` (FPN, ResNet-34) for two classes and
``examples/camvid_segmentation_multiclass.ipynb`` (FPN, ResNeXt-50 32x4d) for more: Dice loss,
Adam at 2e-4, a cosine over all steps down to 1e-5, the weights of the last step.
``examples/binary_segmentation_buildings.py``, the one for CPUs, has a U-Net on ResNet-34 and
batches of 8: its batch is taken for all (the notebooks' 32 would leave a quarter of the steps),
and its network is the peer ``smp-unet``.

What differs from the notebooks: random weights; delineate's augmentation and crop size; the
cosine runs over the given time; void is left out of the loss, where the notebook learns it as a
class; pixels are divided by 255; no validation, which would only take time from the steps.

Run in a process of its own: ``python -m benchmarks.accuracy.smp DATA WORK SECONDS SEED BEGAN
PEER``.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from benchmarks.accuracy.process import THREADS, python, run
from delineate.data.augment import Augmentation
from delineate.data.dataset import Dataset, Sample, read_pair
from delineate.data.images import read_image
from delineate.planning.look import look_at
from delineate.planning.rules import default_plan

BATCH = 8
LEARNING_RATE, LAST_LEARNING_RATE = 2e-4, 1e-5
MULTIPLE_OF = 32
# of ImageNet, which the notebooks ask a model hub for
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FINISH_S = 2.0  # kept for the end of the last step


class Crops(torch.utils.data.Dataset[tuple[Tensor, Tensor]]):
    """Augmented crops of the training images, which are held decoded in memory."""

    def __init__(self, data: Dataset, samples: tuple[Sample, ...], seed: int) -> None:
        plan = default_plan(look_at(samples, data.info))
        self._augment = Augmentation(plan.augmentation, plan.crop_px, data.info.ignore_index)
        self._pairs = [read_pair(sample, data.info) for sample in samples]
        self._seed = seed

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, mask = self._pairs[index]
        # the worker's generator, which the loader seeds anew for every epoch
        drawn = int(torch.randint(2**31, ()))
        rng = np.random.default_rng((self._seed, drawn))
        crop = self._augment(image=image, mask=mask, rng=rng)
        pixels = torch.from_numpy(np.ascontiguousarray(crop["image"].transpose(2, 0, 1)))
        return pixels.float() / 255, torch.from_numpy(crop["mask"].astype(np.int64))


class Example(nn.Module):
    """The example's network with its normalisation in front."""

    mean: Tensor
    std: Tensor

    def __init__(self, architecture: str, encoder: str, classes: int) -> None:
        super().__init__()
        self.model = smp.create_model(
            architecture, encoder_name=encoder, encoder_weights=None, in_channels=3, classes=classes
        )
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.model((image - self.mean) / self.std)
        return logits


def network(peer: str, classes: int) -> Example:
    """The network of the example for so many classes."""
    if peer == "smp-unet":
        return Example("Unet", "resnet34", 1 if classes == 2 else classes)
    if classes == 2:
        return Example("FPN", "resnet34", 1)
    return Example("FPN", "resnext50_32x4d", classes)


def train(model: Example, data: Dataset, seed: int, began: float, budget_s: float) -> int:
    """Train until the time is over; gives the steps done."""
    info = data.info
    crops = Crops(data, data.split("train"), seed)
    loader = DataLoader(
        crops, BATCH, shuffle=True, drop_last=True, num_workers=1, persistent_workers=True
    )
    binary = len(info.classes) == 2
    mode = smp.losses.BINARY_MODE if binary else smp.losses.MULTICLASS_MODE
    criterion = smp.losses.DiceLoss(mode, from_logits=True, ignore_index=info.ignore_index)
    optimiser = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    model.train()
    steps = 0
    for images, masks in _forever(loader):
        share = (time.time() - began) / (budget_s - FINISH_S)
        if share >= 1:
            break
        cosine = 0.5 * (1 + math.cos(math.pi * share))
        for group in optimiser.param_groups:
            group["lr"] = LAST_LEARNING_RATE + (LEARNING_RATE - LAST_LEARNING_RATE) * cosine
        loss = criterion(model(images), masks)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        steps += 1
        if steps % 20 == 1:
            print(f"step {steps}: loss {loss.item():.4f}, {share:.0%}", flush=True)
    return steps


def _forever(loader: DataLoader[Any]) -> Iterator[tuple[Tensor, Tensor]]:
    while True:
        yield from loader


@torch.inference_mode()
def predict(model: Example, images: Path, out: Path) -> None:
    """Label maps of whole images, padded to a multiple of 32 as in the notebook."""
    model.eval()
    out.mkdir(parents=True)
    for path in sorted(images.iterdir()):
        image = read_image(path)
        height, width = image.shape[:2]
        pad = [(0, -height % MULTIPLE_OF), (0, -width % MULTIPLE_OF), (0, 0)]
        pixels = torch.from_numpy(np.pad(image, pad).transpose(2, 0, 1)[None]).float() / 255
        logits = model(pixels)[0, :, :height, :width]
        labels = logits.argmax(0) if len(logits) > 1 else logits[0] > 0
        cv2.imwrite(str(out / f"{path.stem}.png"), labels.numpy().astype(np.uint8))


def main() -> None:
    """The process of one unit; what it found is in ``WORK/found.json``."""
    data_path, work, budget_s, seed, began, peer = sys.argv[1:]
    torch.set_num_threads(THREADS)
    torch.manual_seed(int(seed))
    data = Dataset.open(Path(data_path))
    model = network(peer, len(data.info.classes))
    steps = train(model, data, int(seed), float(began), float(budget_s))
    if steps == 0:
        sys.exit(f"{budget_s} s were over before the first step")
    wall_s = time.time() - float(began)
    predict(model, Path(data_path) / "test" / "images", Path(work) / "predictions")
    found = {
        "steps": steps,
        "wall_s": round(wall_s, 1),
        "predict_s": round(time.time() - float(began) - wall_s, 1),
        "settings": {
            "version": smp.__version__,
            "network": f"{type(model.model).__name__}, {model.model.name}",
            "batch": BATCH,
        },
    }
    (Path(work) / "found.json").write_text(json.dumps(found))


def train_and_predict(
    data: Path, work: Path, budget_s: float, seed: int, log: Path, peer: str
) -> dict[str, Any]:
    """Train, then write label maps of the test images to ``work/predictions``."""
    module = [python(), "-m", "benchmarks.accuracy.smp", data, work]
    run([*module, str(budget_s), str(seed), str(time.time()), peer], log)
    found: dict[str, Any] = json.loads((work / "found.json").read_text())
    return found


if __name__ == "__main__":
    main()
