"""Claim: our training loop costs at most 5 % over a bare PyTorch loop.

Both train the same network on the same batches with the same loss and precision; the bare loop
has its batches ready in memory and does nothing but forward, loss, backward, step. Ours reads and
augments files, schedules, clips, logs and counts. Runs are interleaved: bare, ours, bare, ours.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.record import shared, write
from delineate.config import Duration, Plan
from delineate.data.augment import Augmentation
from delineate.data.dataset import Dataset, read_pair
from delineate.training.clock import Clock
from delineate.training.fit import Event, Job, fit
from delineate.training.losses import build_loss
from delineate.training.stream import SampleStream
from delineate.workflows.first_look import default_plan, look_at

STEPS = int(sys.argv[1]) if len(sys.argv) > 1 else 24
WARM = 4
ROUNDS = 3


def job(run: Path, steps: int) -> Job:
    data = Dataset.open(shared("data/camvid"))
    train = data.split("train")
    pixels = look_at(train, data.info)
    # no validation inside the timed steps: it is evaluation, which the bare loop does not have
    plan: Plan = default_plan(pixels).model_copy(update={"validations": 1})
    augment = Augmentation(plan.augmentation, plan.crop_px, data.info.ignore_index)

    def prepare(image, mask, rng):  # type: ignore[no-untyped-def]
        result = augment(image=image, mask=mask, rng=rng)
        return result["image"], result["mask"]

    return Job(
        plan=plan,
        duration=Duration(steps=steps),
        run=run,
        identity="benchmark",
        classes=data.info.classes,
        task="multiclass",
        channels=3,
        dtype=pixels.dtype,
        normalisation=pixels.normalisation,
        ignore_index=data.info.ignore_index,
        train=train,
        val=data.split("val")[:1],
        read=partial(read_pair, info=data.info),
        prepare=prepare,
    )


def ours() -> list[float]:
    """Seconds between the ends of consecutive steps."""
    ends: list[float] = []

    def watch(event: Event) -> None:
        if event.kind == "step":
            ends.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder)
        (run / "checkpoints").mkdir()
        fit(job(run, WARM + STEPS), clock=Clock(run / "clock", 0.0), watch=watch)
    return list(np.diff(ends))[WARM - 1 :]


def bare() -> list[float]:
    """The loop that a PyTorch user writes, with its batches ready as tensors."""
    with tempfile.TemporaryDirectory() as folder:
        wanted = job(Path(folder), STEPS)
        plan = wanted.plan
        stream = SampleStream(wanted.train, wanted.read, wanted.prepare, plan.batch_size, plan.seed)
        model = wanted.build().to(memory_format=torch.channels_last).train()
    batches = []
    for step in range(4):
        images, masks = stream.batch(step)
        x = torch.from_numpy(images).permute(0, 3, 1, 2).float()
        mean = torch.tensor(wanted.normalisation.mean).reshape(1, -1, 1, 1)
        std = torch.tensor(wanted.normalisation.std).reshape(1, -1, 1, 1)
        x = ((x - mean) / std).contiguous(memory_format=torch.channels_last)
        batches.append((x, torch.from_numpy(masks.astype(np.int64))))
    criterion = build_loss(plan.loss, classes=len(wanted.classes), task=wanted.task,
                           ignore_index=wanted.ignore_index)  # fmt: skip
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    seconds: list[float] = []
    for step in range(WARM + STEPS):
        began = time.perf_counter()
        x, target = batches[step % len(batches)]
        loss = criterion(model(x), target)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        loss.item()
        seconds.append(time.perf_counter() - began)
    return seconds[WARM:]


def main() -> None:
    times: dict[str, list[float]] = {"bare": [], "ours": []}
    rounds = []
    for _ in range(ROUNDS):
        one = {"bare": bare(), "ours": ours()}
        for name, values in one.items():
            times[name] += values
        rounds.append(statistics.median(one["ours"]) / statistics.median(one["bare"]) - 1)
    medians = {name: statistics.median(values) for name, values in times.items()}
    write(
        "train",
        "a training step costs at most 5 % more than in a bare PyTorch loop",
        {
            "overhead_percent": round(100 * (medians["ours"] / medians["bare"] - 1), 2),
            "overhead_percent_lowest_round": round(100 * min(rounds), 2),
            "overhead_percent_highest_round": round(100 * max(rounds), 2),
            "step_s_delineate": round(medians["ours"], 4),
            "step_s_bare": round(medians["bare"], 4),
            "steps": STEPS * ROUNDS,
        },
        {"bare": f"PyTorch {torch.__version__}, batches ready in memory, no augmentation"},
    )


if __name__ == "__main__":
    main()
