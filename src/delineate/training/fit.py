"""The training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch
from jaxtyping import UInt
from lightning_fabric import Fabric
from torch import Tensor, nn

from delineate.config import Duration, Normalisation, Plan
from delineate.data.dataset import Sample
from delineate.engines.pytorch import TorchPredictor, as_tensor
from delineate.errors import RefusedError, SettingsError
from delineate.evaluation.evaluate import Evaluation, Read, evaluate
from delineate.models.build import build, multiple_of
from delineate.tiling.segment import segment
from delineate.training.cache import SampleCache
from delineate.training.checkpoint import Progress, load_checkpoint, save_checkpoint
from delineate.training.clock import Clock
from delineate.training.log import RunLog
from delineate.training.losses import build_loss
from delineate.training.schedule import StepCount, TimeBudget, learning_rate_factor
from delineate.training.stream import Prepare, SampleStream
from delineate.types import Images, PixelType, PredictorSpec, Task

VALIDATION_SHARE = 0.1  # of a time budget, at most, goes into validations before the last
EXPORT_S = 25.0  # kept of a time budget for export and report: a U-Net on two busy cores


@dataclass(frozen=True)
class Job:
    """One training: what is fitted to what, and where it is written.

    Attributes:
        run: folder of the run; ``checkpoints/`` and the logs go there.
        identity: hash of plan and dataset, so that a checkpoint is never resumed with others.
    """

    plan: Plan
    duration: Duration
    run: Path
    identity: str
    classes: tuple[str, ...]
    task: Task
    channels: int
    dtype: PixelType
    normalisation: Normalisation
    ignore_index: int | None
    train: Sequence[Sample]
    val: Sequence[Sample]
    read: Read
    prepare: Prepare

    @property
    def last(self) -> Path:
        return self.run / "checkpoints" / "last.safetensors"

    @property
    def best(self) -> Path:
        return self.run / "checkpoints" / "best.safetensors"

    def spec(self, module: nn.Module) -> PredictorSpec:
        return PredictorSpec(
            classes=self.classes,
            task=self.task,
            channels=self.channels,
            dtype=self.dtype,
            multiple_of=multiple_of(module),
        )

    def build(self) -> nn.Module:
        """The network of the plan, with the plan's random weights."""
        torch.manual_seed(self.plan.seed)
        return build(
            self.plan.model, channels=self.channels, classes=len(self.classes), task=self.task
        )


@dataclass(frozen=True)
class Event:
    """What a training tells while it runs.

    Attributes:
        kind: ``reading`` while all samples are read once, if that takes long; ``stopped`` when
            patience has run out.
        fraction: of the training that is done, or of the reading, 0 to 1.
        remaining_s: seconds to the end, estimated.
        val_miou: of the newest validation, or None.
    """

    kind: Literal["reading", "step", "validation", "stopped"]
    step: int
    fraction: float
    remaining_s: float
    loss: float
    images_per_s: float
    val_miou: float | None
    best_miou: float | None


def fit(
    job: Job,
    *,
    resume: bool = False,
    clock: Clock,
    cache: SampleCache | None = None,
    watch: Callable[[Event], None] | None = None,
) -> Progress:
    """Train until the duration is over; the best weights on val are in ``job.best``.

    Killed at any moment and resumed, a training by steps ends on one device with the weights of
    an uninterrupted one.

    Args:
        job: the training.
        resume: go on from ``job.last`` if it is there.
        clock: counts the seconds, the caller's own work included.
        cache: a reader of ``job`` that holds samples already.
        watch: told about every step and validation. What it raises ends the training; before a
            KeyboardInterrupt a checkpoint is written.

    Raises:
        CheckpointError: ``job.last`` is damaged or of another plan or dataset.
        RefusedError: the loss or the gradient is no number any more.
        SettingsError: the time was over before the first step.
    """
    loop = _Loop(job, clock, watch, resume=resume)
    with RunLog(job.run, loop.state.step) as log:
        loop.run(log, SampleCache(job.read) if cache is None else cache)
    return loop.state


def precision(wanted: str) -> str:
    """Fabric's name of a precision; ``auto`` takes bf16 or fp16 where hardware is fast in it."""
    if wanted == "auto":
        if torch.cuda.is_available():
            wanted = "bf16" if torch.cuda.is_bf16_supported() else "fp16"
        else:
            has = torch.cpu.get_capabilities()
            wanted = "bf16" if has.get("avx512_bf16") or has.get("amx_bf16") else "32"
    return {"32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}[wanted]


class _Loop:
    """The state of a running training."""

    def __init__(
        self, job: Job, clock: Clock, watch: Callable[[Event], None] | None, *, resume: bool
    ) -> None:
        self.job, self.clock, self.watch = job, clock, watch
        self.precision = precision(job.plan.precision)
        self.fabric = Fabric(accelerator="auto", devices=1, precision=self.precision)  # type: ignore[arg-type]
        self.module = job.build().to(memory_format=torch.channels_last)
        settings = job.plan.optimiser
        self.adamw = torch.optim.AdamW(
            self.module.parameters(),
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            # four times as fast on a CPU; Fabric can't clip under fp16 with it
            fused=self.precision != "16-mixed",
        )
        self.model, self.optimiser = self.fabric.setup(self.module, self.adamw)
        self.state = Progress()
        if resume and job.last.exists():  # after the setup, which has moved the weights
            self.state = load_checkpoint(job.last, self.module, self.adamw, job.identity)
            if self.state.arithmetic:
                self.fabric.strategy.precision.load_state_dict(self.state.arithmetic)
        self.criterion = build_loss(
            job.plan.loss, classes=len(job.classes), task=job.task, ignore_index=job.ignore_index
        ).to(self.fabric.device)
        self.length: StepCount | TimeBudget
        if job.duration.steps is not None:
            self.length = StepCount(job.duration.steps)
        else:
            budget_s = float(job.duration.budget_s or 0)
            self.length = TimeBudget(budget_s, EXPORT_S + 2 * self.state.validation_s)
        shape = (1, -1, 1, 1)
        mean = torch.tensor(job.normalisation.mean, device=self.fabric.device).reshape(shape)
        std = torch.tensor(job.normalisation.std, device=self.fabric.device).reshape(shape)
        self.scale, self.offset = 1 / std, -mean / std
        self.saved_at_s = 0.0
        self.newest_miou: float | None = None

    def fraction(self) -> float:
        return self.length.progress(self.state.step, self.clock.elapsed_s())

    def run(self, log: RunLog, cache: SampleCache) -> None:
        plan = self.job.plan
        stream = SampleStream(self.job.train, cache, self.job.prepare, plan.batch_size, plan.seed)
        # one thread prepares samples beside the network's; OpenCV's own would fight for its cores
        opencv_threads = cv2.getNumThreads()
        cv2.setNumThreads(1)
        batches = stream.batches(self.state.step)
        self.saved_at_s = self.clock.elapsed_s()
        if isinstance(self.length, StepCount):
            self.length = replace(self.length, first_step=self.state.step, began_s=self.saved_at_s)
        self.model.train()
        try:
            while (fraction := self.fraction()) < 1 and not self._stale():
                began = time.perf_counter()
                images, masks = next(batches)
                factor = learning_rate_factor(fraction, plan.optimiser.warmup)
                for group in self.optimiser.param_groups:
                    group["lr"] = plan.optimiser.learning_rate * factor
                loss = self._step(images, masks)
                self.state = replace(self.state, step=self.state.step + 1)
                rate = len(images) / (time.perf_counter() - began)
                self._note(log, loss, rate, factor)
        finally:
            batches.close()
            cv2.setNumThreads(opencv_threads)
        self._refuse_untrained()
        if self._stale():
            self._tell("stopped", math.nan, 0.0)
        elif self.state.validations < plan.validations:
            self._validate(log, plan.validations)
        self._save()

    def _refuse_untrained(self) -> None:
        if self.state.step == 0:
            elapsed_s = self.clock.elapsed_s()
            raise SettingsError(
                f"{self.job.duration.budget_s:g} s were over before the first step",
                where=self.job.run,
                mend=f"Give a budget of at least {math.ceil(2 * elapsed_s + EXPORT_S)} s.",
            )

    def _step(self, images: Images, masks: UInt[np.ndarray, "n h w"]) -> float:
        # the state of dropout and the like comes from seed and step, so a resume repeats it
        torch.manual_seed(((self.job.plan.seed << 32) + self.state.step) % 2**63)
        device = self.fabric.device
        x = as_tensor(images, device) * self.scale + self.offset
        target = torch.from_numpy(masks.astype(np.int64)).to(device)
        logits: Tensor = self.model(x.contiguous(memory_format=torch.channels_last))
        loss: Tensor = self.criterion(logits, target)
        self.fabric.backward(loss)
        clip = self.job.plan.optimiser.gradient_clip
        norm = self.fabric.clip_gradients(
            self.model, self.optimiser, max_norm=clip, error_if_nonfinite=False
        )
        # before the step, so that what is no number never reaches the weights
        value = self._finite("loss", loss)
        if norm is not None and self.precision != "16-mixed":  # fp16 skips such steps by itself
            self._finite("gradient's norm", norm)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        return value

    def _finite(self, what: str, tensor: Tensor) -> float:
        value = tensor.item()
        if not math.isfinite(value):
            raise RefusedError(
                f"the {what} is {value} at step {self.state.step}",
                where=self.job.run,
                mend="Lower optimiser.learning_rate in the plan, or set precision to '32'. The "
                "last good weights are in checkpoints/.",
            )
        return value

    def _note(self, log: RunLog, loss: float, rate: float, factor: float) -> None:
        """After a step: log it, validate and save when due."""
        step, plan = self.state.step, self.job.plan
        if step % 10 == 0 or step == 1:
            log.write(
                {
                    "step": step,
                    "elapsed_s": round(self.clock.elapsed_s(), 2),
                    "learning_rate": plan.optimiser.learning_rate * factor,
                    "loss": round(loss, 6),
                    "images_per_s": round(rate, 3),
                }
            )
        fraction = self.fraction()
        due = min(int(fraction * plan.validations), plan.validations)
        if due > self.state.validations and fraction < 1 and self._affordable():
            self._validate(log, due)
        elif self.clock.elapsed_s() - self.saved_at_s > plan.checkpoint_s:
            self._save()
        self._tell("step", loss, rate)

    def _affordable(self) -> bool:
        if isinstance(self.length, StepCount):
            return True
        spent = self.state.validated_s + self.state.validation_s
        return spent <= VALIDATION_SHARE * self.clock.elapsed_s()

    def _stale(self) -> bool:
        patience = self.job.plan.patience
        return patience is not None and self.state.stale >= patience

    def _validate(self, log: RunLog, due: int) -> None:
        began = time.perf_counter()
        found = self._evaluate()
        took_s = time.perf_counter() - began
        if isinstance(self.length, TimeBudget):
            # the last validation, and once more on the exported graph
            self.length.reserve_s = EXPORT_S + 2 * took_s
        self.newest_miou = miou = found.scores.mean_iou
        better = miou > self.state.best_score
        self.state = replace(
            self.state,
            validations=due,
            best_score=miou if better else self.state.best_score,  # a NaN is never better
            best_step=self.state.step if better else self.state.best_step,
            stale=0 if better else self.state.stale + 1,
            validation_s=took_s,
            validated_s=self.state.validated_s + took_s,
        )
        if better:
            save_checkpoint(self.job.best, self.module, None, self.state, self.job.identity)
        log.write(
            {
                "step": self.state.step,
                "elapsed_s": round(self.clock.elapsed_s(), 2),
                "val_miou": miou,
                "val_dice": found.scores.mean_dice,
            }
        )
        self._save()  # after the row: a resume drops the rows that follow its checkpoint
        self._tell("validation", math.nan, 0.0)

    def _evaluate(self) -> Evaluation:
        self.model.eval()
        predictor = TorchPredictor(
            self.module,
            self.job.spec(self.module),
            self.job.normalisation,
            autocast=self._autocast(),
        )
        plan = self.job.plan
        try:
            return evaluate(
                self.job.val,
                self.job.read,
                lambda image: segment(
                    predictor, image, tiling=plan.tiling, postprocessing=plan.postprocessing
                )["labels"][0],
                classes=self.job.classes,
                ignore_index=self.job.ignore_index,
            )
        finally:
            self.model.train()

    def _autocast(self) -> torch.dtype | None:
        return {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(self.precision)

    def _save(self) -> None:
        self.saved_at_s = self.clock.elapsed_s()
        arithmetic = self.fabric.strategy.precision.state_dict()
        self.state = replace(self.state, elapsed_s=self.saved_at_s, arithmetic=arithmetic)
        save_checkpoint(self.job.last, self.module, self.adamw, self.state, self.job.identity)

    def _tell(
        self, kind: Literal["step", "validation", "stopped"], loss: float, rate: float
    ) -> None:
        if self.watch is None:
            return
        elapsed_s = self.clock.elapsed_s()
        best = self.state.best_score
        event = Event(
            kind=kind,
            step=self.state.step,
            fraction=min(self.fraction(), 1.0),
            remaining_s=self.length.remaining_s(self.state.step, elapsed_s),
            loss=loss,
            images_per_s=rate,
            val_miou=self.newest_miou,
            best_miou=None if best < 0 else best,
        )
        try:
            self.watch(event)
        except KeyboardInterrupt:
            self._save()
            raise
