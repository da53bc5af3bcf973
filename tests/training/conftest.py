"""Small trainings without files: images come from a function."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from delineate.config import Duration, ModelSettings, Normalisation, Plan
from delineate.data.augment import Augmentation
from delineate.data.dataset import Sample
from delineate.training.clock import Clock
from delineate.training.fit import fit
from delineate.training.job import Job
from delineate.training.stream import SampleStream
from delineate.training.world import World

TINY = ModelSettings(encoder="mobilenet_v2", decoder_channels=(16, 8, 8, 8, 8))
PLAN = Plan(model=TINY, crop_px=32, batch_size=2, precision="32", validations=1)


def make_job(
    run: Path, *, steps: int = 6, plan: dict[str, Any] | None = None, **fields: Any
) -> Job:
    """A job of 5 images of 48 x 40 px for training and 2 for validation."""
    torch.set_num_threads(1)  # more only get into each other's way here
    wanted = Plan.model_validate(PLAN.model_dump() | (plan or {}))
    values: dict[str, Any] = {
        "classes": ("sky", "ground", "car"),
        "channels": 3,
        "dtype": "uint8",
        "ignore_index": None,
    } | fields
    channels, ignore = values["channels"], values["ignore_index"]
    scale = 257 if values["dtype"] == "uint16" else 1

    def read(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
        seed = int(sample.name)
        rows = (np.arange(48) // 8 + seed) % len(values["classes"])
        mask = np.repeat(rows[:, None], 40, axis=1).astype(np.uint8)
        noise = np.random.default_rng(seed).integers(0, 40, (48, 40, channels))
        image = (30 + 60 * mask[:, :, None] + noise) * scale
        if ignore is not None:
            mask[:4] = ignore
        return image.astype(values["dtype"]), mask

    (run / "checkpoints").mkdir(parents=True, exist_ok=True)
    samples = [Sample(str(i), Path(f"{i}.png"), Path(f"{i}.png"), None) for i in range(7)]
    defaults: dict[str, Any] = {
        "duration": Duration(steps=steps),
        "identity": "this plan, this dataset",
        "task": "binary" if len(values["classes"]) == 2 else "multiclass",
        "normalisation": Normalisation(
            mean=(120.0 * scale,) * channels, std=(60.0 * scale,) * channels
        ),
        "train": samples[:5],
        "val": samples[5:],
        "read": read,
    }
    return Job(plan=wanted, run=run, **(defaults | values))


def make_stream(job: Job, world: World = World()) -> SampleStream:  # noqa: B008 - frozen
    """The batches of a job, each crop augmented as its plan says."""
    augment = Augmentation(job.plan.augmentation, job.plan.crop_px, job.ignore_index)

    def make_crop(
        sample: Sample, rng: np.random.Generator, class_id: int | None
    ) -> tuple[np.ndarray, np.ndarray]:
        assert class_id is None
        image, mask = job.read(sample)
        found = augment(image=image, mask=mask, rng=rng)
        return found["image"], found["mask"]

    plan = job.plan
    return SampleStream(
        job.train, make_crop, plan.batch_size, plan.seed, rank=world.rank, world=world.size
    )


@pytest.fixture(scope="session")
def stream() -> Callable[..., SampleStream]:
    return make_stream


@pytest.fixture(scope="session")
def job() -> Callable[..., Job]:
    return make_job


@pytest.fixture(scope="session")
def run_job() -> Callable[..., Any]:
    """Fits a job, with the clock of its folder."""

    def run(job: Job, **options: Any) -> Any:
        batches = options.pop("stream", None) or make_stream(job)
        return fit(job, batches, clock=Clock(job.run / "clock", 0.0), **options)

    return run
