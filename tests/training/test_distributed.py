"""A training in two processes: the numbers of one process, and what a kill leaves of it."""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from delineate.config import Duration, Normalisation, Plan
from delineate.data.dataset import Sample
from delineate.training.clock import Clock
from delineate.training.fit import fit
from delineate.training.job import Event, Job
from delineate.training.launch import Worker, launch
from delineate.training.stream import Batch, SampleStream
from delineate.training.world import World

ROOT = Path(__file__).resolve().parents[2]
STEPS = 8
# Not every network will do: at its random weights MobileNetV2's gradient moves by 3 % when its
# images move by a millionth, this one's by two millionths (both in float64).
PLAN = Plan.model_validate(
    {
        "model": {"encoder": "tu-convnext_atto", "decoder_channels": (16, 8, 8, 8, 8)},
        "optimiser": {"ema": 0.9},
        "crop_px": 64,
        "batch_size": 4,
        "precision": "32",
        "validations": 2,
        "checkpoint_s": 1e-6,  # after every step
    }
)


def _read(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    seed = int(sample.name)
    mask = np.repeat((np.arange(64) // 8 + seed) % 3, 64).reshape(64, 64).astype(np.uint8)
    noise = np.random.default_rng(seed).integers(0, 40, (64, 64, 3))
    image = (30 + 60 * mask[:, :, None] + noise).astype(np.uint8)
    mask[: 5 * seed] = 255  # so that the parts of a batch differ in the pixels that count
    return image, mask


def _job(run: Path, *, steps: int) -> Job:
    (run / "checkpoints").mkdir(parents=True, exist_ok=True)
    samples = [Sample(str(i), Path(f"{i}.png"), Path(f"{i}.png"), None) for i in range(9)]
    return Job(
        plan=PLAN,
        duration=Duration(steps=steps),
        run=run,
        identity="this plan, this dataset",
        classes=("sky", "ground", "car"),
        task="multiclass",
        channels=3,
        dtype="uint8",
        normalisation=Normalisation(mean=(120.0,) * 3, std=(60.0,) * 3),
        ignore_index=255,
        train=samples[:6],
        val=samples[6:],
        read=_read,
    )


def _crop(
    sample: Sample, rng: np.random.Generator, class_id: int | None
) -> tuple[np.ndarray, np.ndarray]:
    assert class_id is None
    image, mask = _read(sample)
    return (image[:, ::-1].copy(), mask) if rng.random() < 0.5 else (image, mask)


class _Deadly(SampleStream):
    """Kills its process before the step 6, by when there are checkpoints."""

    def batches(self, first_step: int) -> Iterator[Batch]:  # type: ignore[override]
        for step, batch in enumerate(super().batches(first_step), first_step):
            if step == 6:
                os.kill(os.getpid(), signal.SIGKILL)
            yield batch


Told = list[tuple[int, float, float | None]]


def _train(run: Path, *, steps: int, world: World, deadly: bool = False) -> Told:
    """Step, loss and newest score of each event; weights of each process are summed up."""
    job = _job(run, steps=steps)
    told: Told = []

    def watch(event: Event) -> None:
        if event.kind in ("step", "validation"):
            told.append((event.step, event.loss, event.val_miou))

    kind = _Deadly if deadly else SampleStream
    stream = kind(job.train, _crop, PLAN.batch_size, PLAN.seed, rank=world.rank, world=world.size)
    clock = Clock(run / "clock", 0.0, keeps=world.is_main)
    fit(job, stream, resume=True, clock=clock, world=world, watch=watch)
    return told


def _trained(worker: Worker, run: Path) -> Told:
    warnings.simplefilter("error")
    _train(run / "one-step", steps=1, world=worker.world)
    return _train(run, steps=STEPS, world=worker.world)


def _killed(worker: Worker, run: Path) -> Told:
    deadly = worker.world.rank == 1 and worker.restarts == 0
    return _train(run, steps=STEPS, world=worker.world, deadly=deadly)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Told]:
    """The run of two processes, and what its main process told."""
    run = tmp_path_factory.mktemp("two")
    told = _launched(_trained, run)
    return run, told


def _launched(entry: Callable[[Worker, Path], Told], run: Path) -> Told:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT))  # the processes import this file by its name
        patch.setattr("delineate.training.launch.available_cores", lambda: 2)
        told: Told | None = launch(entry, (run,), folder=run, devices=2)
    assert told is not None
    return told


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Told]:
    """The same run in this process alone."""
    run = tmp_path_factory.mktemp("one")
    torch.set_num_threads(1)
    _train(run / "one-step", steps=1, world=World())
    return run, _train(run, steps=STEPS, world=World())


def _state(run: Path, prefix: str = "") -> dict[str, torch.Tensor]:
    state = load_file(run / "checkpoints" / "last.safetensors")
    return {name: value for name, value in state.items() if name.startswith(prefix)}


def _vector(state: dict[str, torch.Tensor], field: str = "") -> torch.Tensor:
    found = [value.double().flatten() for name, value in state.items() if name.endswith(field)]
    return torch.cat(found)


def test_the_first_gradient_is_that_of_one_process(
    one: tuple[Path, Told], two: tuple[Path, Told]
) -> None:
    # AdamW's first moment after a step is a tenth of the gradient, clipped
    gradients = [_vector(_state(run / "one-step"), "exp_avg") for run, _ in (one, two)]
    error = (gradients[0] - gradients[1]).norm() / gradients[0].norm()
    assert gradients[0].norm().item() == pytest.approx(0.1, rel=1e-3)  # it is clipped to 1
    assert error.item() < 1e-4
    statistics = [
        {
            name: value
            for name, value in _state(run / "one-step", "model/").items()
            if "running" in name
        }
        for run, _ in (one, two)
    ]
    torch.testing.assert_close(statistics[0], statistics[1], rtol=1e-4, atol=1e-5)


def test_losses_scores_and_weights_stay_those_of_one_process(
    one: tuple[Path, Told], two: tuple[Path, Told]
) -> None:
    (run, told), (other_run, other_told) = one, two
    assert [step for step, *_ in told] == [step for step, *_ in other_told]
    losses = [[loss for _, loss, _ in each] for each in (told, other_told)]
    np.testing.assert_allclose(losses[0][:3], losses[1][:3], rtol=1e-5)
    # Then AdamW lets rounding grow: in one process too, weights moved by 1e-7 of themselves change
    # losses from the fourth on by up to 2e-4 and the weights' way by 1e-3 (in 2 of 4 draws)
    np.testing.assert_allclose(losses[0], losses[1], rtol=2e-3)
    scores = [each[-1][2] for each in (told, other_told)]
    assert scores[0] == pytest.approx(scores[1], abs=0.02)
    start = _vector(
        {f"model/{name}": value for name, value in _job(run, steps=1).build().state_dict().items()}
    )
    moved, other_moved = (_vector(_state(each, "model/")) - start for each in (run, other_run))
    # AdamW turns rounding into whole steps where a gradient is next to nothing
    assert (moved - other_moved).norm() < 0.05 * moved.norm()


def test_a_killed_process_costs_nothing_but_time(two: tuple[Path, Told], tmp_path: Path) -> None:
    told = _launched(_killed, tmp_path)
    run, whole = two
    assert 0 < told[0][0] <= 7  # not from the start
    # the score is of the last validation in this start, so it is missing at first
    assert [(step, loss) for step, loss, _ in told if loss > 0] == [
        (step, loss) for step, loss, _ in whole if loss > 0 and step >= told[0][0]
    ]
    assert told[-1][2] == whole[-1][2]
    found, wanted = _state(tmp_path), _state(run)
    assert found.keys() == wanted.keys()
    assert [name for name in wanted if not found[name].equal(wanted[name])] == []
