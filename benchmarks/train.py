"""Claim: our training loop costs at most 5 % over a bare PyTorch loop.

Both train the same network on the same batches with the same loss and precision; the bare loop
has its batches ready in memory and does nothing but forward, loss, backward, step. Ours reads and
augments files, schedules, clips, logs and counts.

The bare loops run as their users run them, in processes of their own: one with fused AdamW, as
ours has, one with PyTorch's default. A third runs inside our process, where it shares what we tell
the C library about freed memory, so that it shows the cost of the rest. All take turns every few
steps, so that a change of the machine's speed meets all. Our sample thread is at work in our turns
only: in the others' it waits, its queue full. The first epoch, in which files are decoded, is
reported apart from the later ones.
"""

from __future__ import annotations

import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch

from benchmarks.record import shared, write
from delineate.config import Duration, Plan
from delineate.data.augment import Augmentation
from delineate.data.dataset import Dataset, read_pair
from delineate.planning.look import look_at
from delineate.planning.rules import default_plan
from delineate.training.cache import SampleCache
from delineate.training.clock import Clock
from delineate.training.fit import fit
from delineate.training.job import Event, Job
from delineate.training.losses.build import build_loss
from delineate.training.sampling import crop_maker
from delineate.training.stream import SampleStream

EPOCHS = int(sys.argv[1]) if len(sys.argv) > 1 else 4
TURN = 4  # steps of one loop before the other's turn
OURS, FUSED, DEFAULT, INSIDE = "delineate", "bare", "bare_default_adamw", "bare_inside"


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


def serve_turns(turns: Connection, *, fused: bool) -> None:
    """A bare loop in this process: for every number received, so many steps and their median."""
    with tempfile.TemporaryDirectory() as folder:
        step = bare(job(Path(folder), steps=1), fused=fused)
    while count := turns.recv():
        turns.send(statistics.median([step() for _ in range(count)]))


@contextmanager
def alone(*, fused: bool) -> Iterator[Callable[[], float]]:
    """A bare loop in a process of its own; gives the median seconds of a turn's steps."""
    ours, theirs = get_context("spawn").Pipe()
    process = get_context("spawn").Process(
        target=serve_turns, args=(theirs,), kwargs={"fused": fused}, daemon=True
    )
    process.start()

    def turn() -> float:
        ours.send(TURN)
        return float(ours.recv())

    yield turn
    ours.send(0)
    process.join()


def measure() -> dict[str, list[float]]:
    """Median seconds of a step in each turn: ours, and each bare loop's just after."""
    times: dict[str, list[float]] = {name: [] for name in (OURS, FUSED, DEFAULT, INSIDE)}
    with (
        tempfile.TemporaryDirectory() as folder,
        alone(fused=True) as fused,
        alone(fused=False) as default,
    ):
        run = Path(folder)
        (run / "checkpoints").mkdir()
        wanted = job(run, steps=1)
        epoch = math.ceil(len(wanted.train) / wanted.plan.batch_size)
        wanted = job(run, steps=EPOCHS * epoch // TURN * TURN)
        inside = bare(wanted, fused=True)
        peers = {
            FUSED: fused,
            DEFAULT: default,
            INSIDE: lambda: statistics.median([inside() for _ in range(TURN)]),
        }
        for turn in peers.values():  # the first steps are slower
            turn()
        seconds: list[float] = []
        began = time.perf_counter()

        def watch(event: Event) -> None:
            nonlocal began
            if event.kind == "step":
                seconds.append(time.perf_counter() - began)
                if len(seconds) == TURN:
                    times[OURS].append(statistics.median(seconds))
                    for name, turn in peers.items():
                        times[name].append(turn())
                    seconds.clear()
            began = time.perf_counter()

        fit(wanted, batches_of(wanted), clock=Clock(run / "clock", 0.0), watch=watch)
    return times


def main() -> None:
    times = measure()
    first = len(times[OURS]) // EPOCHS

    def overhead(peer: str) -> list[float]:
        pairs = zip(times[OURS], times[peer], strict=True)
        return [100 * (ours / other - 1) for ours, other in pairs]

    low, middle, high = statistics.quantiles(overhead(FUSED)[first:], n=4)
    write(
        "train",
        "a training step costs at most 5 % more than in a bare PyTorch loop",
        {
            "overhead_percent": round(middle, 2),
            "overhead_percent_lower_quartile": round(low, 2),
            "overhead_percent_upper_quartile": round(high, 2),
            "overhead_percent_first_epoch": round(statistics.median(overhead(FUSED)[:first]), 2),
            "overhead_percent_vs_default_adamw": round(
                statistics.median(overhead(DEFAULT)[first:]), 2
            ),
            "overhead_percent_inside_our_process": round(
                statistics.median(overhead(INSIDE)[first:]), 2
            ),
            **{
                f"step_s_{name}": round(statistics.median(seconds[first:]), 4)
                for name, seconds in times.items()
            },
            "steps": TURN * (len(times[OURS]) - first),
        },
        {
            "bare": f"PyTorch {torch.__version__}, fused AdamW as ours, batches ready in memory, "
            "no augmentation, in a process of its own"
        },
    )


if __name__ == "__main__":
    main()
