"""Claim: our training loop costs at most 5 % over a bare PyTorch loop.

Both train the same network on the same batches with the same loss and precision; the bare loop
has its batches ready in memory and does nothing but forward, loss, backward, step. Ours reads and
augments files, schedules, clips, logs and counts.

The two take turns every few steps within one process, so that a change of the machine's speed
meets both. Our sample thread is at work in our turns only: in the bare loop's it waits, its queue
full. The first epoch, in which files are decoded, is reported apart from the later ones.
"""

from __future__ import annotations

import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.record import shared, write
from delineate.config import Duration, Plan
from delineate.data.augment import Augmentation
from delineate.data.dataset import Dataset, read_pair
from delineate.training.cache import SampleCache
from delineate.training.clock import Clock
from delineate.training.fit import fit
from delineate.training.job import Event, Job
from delineate.training.losses.build import build_loss
from delineate.training.sampling import crop_maker
from delineate.training.stream import SampleStream
from delineate.workflows.first_look import default_plan, look_at

EPOCHS = int(sys.argv[1]) if len(sys.argv) > 1 else 4
TURN = 4  # steps of one loop before the other's turn


def job(run: Path, steps: int) -> Job:
    data = Dataset.open(shared("data/camvid"))
    train = data.split("train")
    pixels = look_at(train, data.info)
    # no validation inside the timed steps: it is evaluation, which the bare loop does not have
    plan: Plan = default_plan(pixels).model_copy(update={"validations": 1})
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
    )


def batches_of(wanted: Job) -> SampleStream:
    """Decoded once, then from memory; augmented as the plan says."""
    plan = wanted.plan
    augment = Augmentation(plan.augmentation, plan.crop_px, wanted.ignore_index)
    make = crop_maker(SampleCache(wanted.read), augment)
    return SampleStream(wanted.train, make, plan.batch_size, plan.seed)


def bare(wanted: Job, *, fused: bool) -> Callable[[], float]:
    """One step of the loop that a PyTorch user writes; gives its seconds.

    ``fused`` takes the optimiser that ours has; PyTorch's default is slower on a CPU.
    """
    plan = wanted.plan
    stream = batches_of(wanted)
    model = wanted.build().to(memory_format=torch.channels_last).train()
    mean = torch.tensor(wanted.normalisation.mean).reshape(1, -1, 1, 1)
    std = torch.tensor(wanted.normalisation.std).reshape(1, -1, 1, 1)
    batches = []
    for step in range(4):
        batch = stream.batch(step)
        x = (torch.from_numpy(batch.images).permute(0, 3, 1, 2).float() - mean) / std
        x = x.contiguous(memory_format=torch.channels_last)
        batches.append((x, torch.from_numpy(batch.masks.astype(np.int64))))
    criterion = build_loss(plan.loss, classes=len(wanted.classes), task=wanted.task,
                           ignore_index=wanted.ignore_index)  # fmt: skip
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=fused)
    turn = iter(range(10**9))

    def step() -> float:
        began = time.perf_counter()
        x, target = batches[next(turn) % len(batches)]
        loss = criterion(model(x), target)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        loss.item()
        return time.perf_counter() - began

    return step


def measure() -> dict[str, list[float]]:
    """Median seconds of a step in each turn: ours, and each bare loop's just after."""
    times: dict[str, list[float]] = {"ours": [], "bare": [], "bare_fused": []}
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder)
        (run / "checkpoints").mkdir()
        wanted = job(run, steps=1)
        epoch = math.ceil(len(wanted.train) / wanted.plan.batch_size)
        wanted = job(run, steps=EPOCHS * epoch // TURN * TURN)
        bares = {"bare": bare(wanted, fused=False), "bare_fused": bare(wanted, fused=True)}
        for step in bares.values():
            for _ in range(TURN):  # the first are slower
                step()
        seconds: list[float] = []
        began = time.perf_counter()

        def watch(event: Event) -> None:
            nonlocal began
            if event.kind == "step":
                seconds.append(time.perf_counter() - began)
                if len(seconds) == TURN:
                    times["ours"].append(statistics.median(seconds))
                    for name, step in bares.items():
                        times[name].append(statistics.median([step() for _ in range(TURN)]))
                    seconds.clear()
            began = time.perf_counter()

        fit(wanted, batches_of(wanted), clock=Clock(run / "clock", 0.0), watch=watch)
    return times


def main() -> None:
    times = measure()
    first = len(times["ours"]) // EPOCHS

    def overhead(peer: str) -> list[float]:
        pairs = zip(times["ours"], times[peer], strict=True)
        return [100 * (ours / other - 1) for ours, other in pairs]

    low, middle, high = statistics.quantiles(overhead("bare_fused")[first:], n=4)
    write(
        "train",
        "a training step costs at most 5 % more than in a bare PyTorch loop",
        {
            "overhead_percent": round(middle, 2),
            "overhead_percent_lower_quartile": round(low, 2),
            "overhead_percent_upper_quartile": round(high, 2),
            "overhead_percent_first_epoch": round(
                statistics.median(overhead("bare_fused")[:first]), 2
            ),
            "overhead_percent_vs_default_adamw": round(
                statistics.median(overhead("bare")[first:]), 2
            ),
            "step_s_delineate": round(statistics.median(times["ours"][first:]), 4),
            "step_s_bare": round(statistics.median(times["bare_fused"][first:]), 4),
            "step_s_bare_default_adamw": round(statistics.median(times["bare"][first:]), 4),
            "steps": TURN * (len(times["ours"]) - first),
        },
        {
            "bare": f"PyTorch {torch.__version__}, fused AdamW as ours, batches ready in memory, "
            "no augmentation"
        },
    )


if __name__ == "__main__":
    main()
