"""The training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Literal

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy

from delineate.errors import RefusedError, SettingsError
from delineate.evaluation.evaluate import Evaluation
from delineate.training.cache import memory_bytes
from delineate.training.checkpoint import Progress, load_checkpoint, refuse_apart, save_checkpoint
from delineate.training.clock import Clock
from delineate.training.history import Validation, add_warning, rewind_history
from delineate.training.job import Event, Job
from delineate.training.log import Row, RunLog
from delineate.training.memory import crops_at_once, out_of_memory
from delineate.training.schedule import StepCount, TimeBudget, learning_rate_factor
from delineate.training.settled import settled
from delineate.training.step import Stepper, autocast_type, precision
from delineate.training.stream import SampleStream
from delineate.training.validate import label_images, validate
from delineate.training.world import World
from delineate.types import Image, LabelMap

VALIDATION_SHARE = 0.1  # of a time budget, at most, goes into validations before the last
EXPORT_S = 25.0  # kept of a time budget for export and report: a U-Net on two busy cores
_LOGGED_EVERY = 10  # steps
_ALONE = timedelta(minutes=10)  # that a process waits for the others: one may draw a page


def fit(
    job: Job,
    stream: SampleStream,
    *,
    resume: bool = False,
    clock: Clock,
    world: World = World(),  # noqa: B008 - frozen
    watch: Callable[[Event], None] | None = None,
    on_validation: Callable[[Validation], None] | None = None,
    on_row: Callable[[Row], None] | None = None,
) -> Progress:
    """Train until the duration is over; the best weights on val are in ``job.best``.

    Killed at any moment and resumed, a training by steps ends on one device with the weights of
    an uninterrupted one.

    Args:
        job: the training.
        stream: its batches; this process's part of them.
        resume: go on from ``job.last`` if it is there.
        clock: counts the seconds, the caller's own work included.
        world: the processes that train together; only the main one logs, writes and tells.
        watch: told about every step and validation. What it raises ends the training; before a
            KeyboardInterrupt a checkpoint is written.
        on_validation: given every validation and a way to predict with its weights.
        on_row: given every row of ``metrics.csv``.

    Raises:
        CheckpointError: ``job.last`` is damaged or of another plan or dataset.
        RefusedError: the loss or the gradient is no number any more, or a crop exceeds the memory.
        SettingsError: the time was over before the first step.
    """
    loop = _Loop(job, clock, world, resume=resume, watch=watch, on_validation=on_validation)
    if world.is_main:
        rewind_history(job.run, loop.state.step)
    with (
        RunLog(job.run, loop.state.step, on_row) if world.is_main else nullcontext() as log,
        settled(deterministic=job.plan.deterministic),
    ):
        loop.run(log, stream)
    return loop.state


@dataclass(frozen=True)
class _Decision:
    """What the main process decides between two steps, for all."""

    validation: int | None = None  # which one is due
    save: bool = False


def _strategy(world: World) -> str | DDPStrategy:
    if world.size == 1:
        return "auto"
    return DDPStrategy(timeout=_ALONE, gradient_as_bucket_view=True)


class _Loop:
    """The state of a running training."""

    def __init__(
        self,
        job: Job,
        clock: Clock,
        world: World,
        *,
        resume: bool,
        watch: Callable[[Event], None] | None,
        on_validation: Callable[[Validation], None] | None,
    ) -> None:
        self.job, self.clock, self.world = job, clock, world
        self.watch, self.on_validation = watch, on_validation
        name = precision(job.plan.precision)
        self.autocast = autocast_type(name)
        self.fabric = Fabric(
            accelerator="auto",
            devices=world.local_size,
            num_nodes=world.nodes,
            strategy=_strategy(world),
            precision=name,  # type: ignore[arg-type]
        )
        self.fabric.launch()
        part = job.plan.batch_size // world.size
        self.stepper = Stepper(job, self.fabric, world, micro_batch=part, note=self._warn)
        self.module = self.stepper.module
        self.state = Progress()
        if resume and job.last.exists():  # after the setup, which has moved the weights
            self.state = load_checkpoint(
                job.last, self.module, self.stepper.adamw, job.identity, self.stepper.average
            )
            if self.state.arithmetic:
                self.fabric.strategy.precision.load_state_dict(self.state.arithmetic)
        refuse_apart(job.last, self.state, world)
        self.length: StepCount | TimeBudget
        if job.duration.steps is not None:
            self.length = StepCount(job.duration.steps)
        else:
            budget_s = float(job.duration.budget_s or 0)
            self.length = TimeBudget(
                budget_s, EXPORT_S + job.passes_after * self.state.validation_s
            )
        # what was asked for is longer now: there is room for validations again
        done = int(self.fraction() * job.plan.validations)
        done = world.from_main(min(self.state.validations, done))
        self.state = replace(self.state, validations=done)
        self.seconds = {"step": 0.0, "wait": 0.0, "validation": 0.0, "checkpoint": 0.0, "page": 0.0}
        self.seconds |= self.state.seconds
        self.saved_at_s = 0.0
        self.logged_s = self.seconds["step"], self.seconds["wait"]
        self.stepper.micro_batch = self._micro_batch(part)

    def fraction(self) -> float:
        """Of the training that is done, from 0; 1 and more at its end."""
        return self.length.progress(self.state.step, self.clock.elapsed_s())

    def _micro_batch(self, part: int) -> int:
        """Crops at once: what the plan or an earlier part of the run says, or what fits."""
        wanted = self.job.plan.micro_batch or self.state.micro_batch
        if wanted:
            return min(wanted, part)
        device = self.fabric.device
        memory = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else memory_bytes()
        sharing = self.world.local_size if device.type == "cpu" else 1
        crop_px = self.job.plan.crop_px
        once, warning = crops_at_once(
            self.module, self.job.channels, crop_px, part, memory // sharing, self.world
        )
        if warning is not None:
            self._warn(warning)
        return once

    def run(self, log: RunLog | None, stream: SampleStream) -> None:
        plan = self.job.plan
        batches = stream.batches(self.state.step)
        self.saved_at_s = self.clock.elapsed_s()
        if isinstance(self.length, StepCount):
            self.length = replace(self.length, first_step=self.state.step, began_s=self.saved_at_s)
        self.module.train()
        if not self.job.last.exists():
            self._save()  # what goes wrong in the first minute leaves something to go on from
        try:
            while (fraction := self.world.from_main(self.fraction())) < 1 and not self._stale():
                with self._timing("wait"):
                    batch = next(batches)
                factor = learning_rate_factor(fraction, plan.optimiser.warmup)
                rate = plan.optimiser.learning_rate * factor
                began = time.perf_counter()
                with self._timing("step"):
                    loss = self.stepper.step(batch, self.state.step, rate)
                self.state = replace(self.state, step=self.state.step + 1)
                speed = plan.batch_size / (time.perf_counter() - began)
                self._log_step(log, loss, speed, rate)
                decision = self.world.from_main(self._decide())
                if decision.validation is not None:
                    self._validate(log, decision.validation)
                elif decision.save:
                    self._save()
                self._tell("step", loss, speed)
        finally:
            batches.close()
        self._refuse_untrained()
        if self._stale():
            self._tell("stopped")
        elif self.state.validations < plan.validations:
            self._validate(log, plan.validations)
        self._save()

    def _decide(self) -> _Decision:
        """Whether a validation or a checkpoint is due; the main process's word counts."""
        plan, fraction = self.job.plan, self.fraction()
        due = min(int(fraction * plan.validations), plan.validations)
        if fraction < 1 and due > self.state.validations and self._affordable():
            return _Decision(validation=due)
        return _Decision(save=self.clock.elapsed_s() - self.saved_at_s > plan.checkpoint_s)

    def _affordable(self) -> bool:
        if isinstance(self.length, StepCount):
            return True
        spent = self.seconds["validation"] + self.state.validation_s
        return spent <= VALIDATION_SHARE * self.clock.elapsed_s()

    def _stale(self) -> bool:
        patience = self.job.plan.patience
        return patience is not None and self.state.stale >= patience

    def _refuse_untrained(self) -> None:
        if self.state.step == 0:
            elapsed_s = self.clock.elapsed_s()
            raise SettingsError(
                f"{self.job.duration.budget_s:g} s were over before the first step",
                where=self.job.run,
                mend=f"Give a budget of at least {math.ceil(2 * elapsed_s + EXPORT_S)} s.",
            )

    @contextmanager
    def _timing(self, work: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds[work] += time.perf_counter() - began

    def _log_step(self, log: RunLog | None, loss: float, speed: float, rate: float) -> None:
        step = self.state.step
        if log is not None and (step % _LOGGED_EVERY == 0 or step == 1):
            log.write(
                {
                    "step": step,
                    "elapsed_s": round(self.clock.elapsed_s(), 2),
                    "learning_rate": rate,
                    "loss": round(loss, 6),
                    "images_per_s": round(speed, 3),
                    "wait_share": round(self._wait_share(), 4),
                }
            )

    def _wait_share(self) -> float:
        """Share of the time since it was last asked for that steps waited for samples."""
        now_s = self.seconds["step"], self.seconds["wait"]
        step_s, wait_s = now_s[0] - self.logged_s[0], now_s[1] - self.logged_s[1]
        self.logged_s = now_s
        return wait_s / max(step_s + wait_s, 1e-9)

    def _validate(self, log: RunLog | None, due: int) -> None:
        average = self.stepper.average
        self.module.eval()
        try:
            with nullcontext() if average is None else average.applied():
                began = time.perf_counter()
                predict = label_images(self.job, self.module, self.autocast)
                found = self._scored(predict)
                took_s = time.perf_counter() - began
                self._take_in(found, due, took_s)
                if self.world.is_main and self.state.best_step == self.state.step:
                    with self._timing("checkpoint"):
                        path, identity = self.job.best, self.job.identity
                        save_checkpoint(path, self.module, None, self.state, identity)
                if log is not None:
                    self._log_validation(log, found)
                self._show(found, predict)
        finally:
            self.module.train()
        self._save()  # after the row: a resume drops the rows that follow its checkpoint
        self._tell("validation")

    def _scored(self, predict: Callable[[Image], LabelMap]) -> Evaluation:
        try:
            return validate(self.job, predict, self.world)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            tile_px = self.job.plan.tiling.tile_px
            raise RefusedError(
                f"a tile of {tile_px} px does not fit the memory in a validation",
                where=f"step {self.state.step}",
                mend=f"Go on from the last checkpoint with --resume, a --plan in which "
                f"tiling.tile_px is {tile_px // 2}, and otherwise the same options.",
            ) from error

    def _show(self, found: Evaluation, predict: Callable[[Image], LabelMap]) -> None:
        if self.on_validation is None or not self.world.is_main:
            return
        elapsed_s = self.clock.elapsed_s()
        crops = self.state.step * self.job.plan.batch_size
        known_s = sum(self.seconds.values())
        validation = Validation(
            step=self.state.step,
            elapsed_s=elapsed_s,
            fraction=min(self.fraction(), 1.0),
            remaining_s=self.length.remaining_s(self.state.step, elapsed_s),
            evaluation=found,
            seconds=self.seconds | {"other": max(elapsed_s - known_s, 0.0)},
            throughput_images_per_s=crops / (self.seconds["step"] + self.seconds["wait"]),
            predict=predict,
        )
        with self._timing("page"):
            self.on_validation(validation)

    def _take_in(self, found: Evaluation, due: int, took_s: float) -> None:
        self.seconds["validation"] += took_s
        if isinstance(self.length, TimeBudget):
            # the last validation, and once more on the exported graph
            self.length.reserve_s = EXPORT_S + self.job.passes_after * took_s
        miou = found.scores.mean_iou
        better = miou > self.state.best_score  # a NaN is never better
        self.state = replace(
            self.state,
            validations=due,
            best_score=miou if better else self.state.best_score,
            best_step=self.state.step if better else self.state.best_step,
            newest_score=miou,
            stale=0 if better else self.state.stale + 1,
            validation_s=took_s,
        )

    def _log_validation(self, log: RunLog, found: Evaluation) -> None:
        log.write(
            {
                "step": self.state.step,
                "elapsed_s": round(self.clock.elapsed_s(), 2),
                "val_miou": found.scores.mean_iou,
                "val_dice": found.scores.mean_dice,
            }
        )

    def _save(self) -> None:
        self.saved_at_s = self.clock.elapsed_s()
        self.state = replace(
            self.state,
            elapsed_s=self.saved_at_s,
            seconds=dict(self.seconds),
            micro_batch=self.stepper.micro_batch,
            arithmetic=self.fabric.strategy.precision.state_dict(),
        )
        if self.world.is_main:
            with self._timing("checkpoint"):
                save_checkpoint(
                    self.job.last,
                    self.module,
                    self.stepper.adamw,
                    self.state,
                    self.job.identity,
                    self.stepper.average,
                )

    def _warn(self, text: str) -> None:
        if self.world.is_main:
            add_warning(self.job.run, text)
            self._pass_on(Event.note(text))

    def _tell(
        self,
        kind: Literal["step", "validation", "stopped"],
        loss: float = math.nan,
        rate: float = 0.0,
    ) -> None:
        if not self.world.is_main:
            return
        elapsed_s = self.clock.elapsed_s()
        best = self.state.best_score
        self._pass_on(
            Event(
                kind=kind,
                step=self.state.step,
                fraction=min(self.fraction(), 1.0),
                remaining_s=self.length.remaining_s(self.state.step, elapsed_s),
                loss=loss,
                images_per_s=rate,
                val_miou=self.state.newest_score,
                best_miou=None if best < 0 else best,
            )
        )

    def _pass_on(self, event: Event) -> None:
        if self.watch is None:
            return
        try:
            self.watch(event)
        except KeyboardInterrupt:
            self._save()
            raise
