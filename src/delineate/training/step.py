"""One step of the optimiser: a batch in, better weights out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from delineate.engines.pytorch import Normaliser
from delineate.errors import RefusedError
from delineate.training.dilated_depthwise import spare_dilated_depthwise
from delineate.training.ema import MovingAverage
from delineate.training.job import Job
from delineate.training.losses.build import build_loss
from delineate.training.memory import out_of_memory
from delineate.training.stream import Batch
from delineate.training.sync_batchnorm import alone, synchronise
from delineate.training.teaching import Teacher
from delineate.training.world import World

_NAMED = 5  # images at most in a message


def precision(wanted: str) -> str:
    """Fabric's name of a precision; ``auto`` takes bf16 or fp16 where hardware is fast in it."""
    if wanted == "auto":
        if torch.cuda.is_available():
            wanted = "bf16" if torch.cuda.is_bf16_supported() else "fp16"
        else:
            has = torch.cpu.get_capabilities()
            wanted = "bf16" if has.get("avx512_bf16") or has.get("amx_bf16") else "32"
    return {"32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}[wanted]


class Stepper:
    """A network, its loss and its optimiser.

    Attributes:
        module: the bare network, on its device.
        adamw: its optimiser.
        average: the moving average of the weights, where the plan wants one.
        micro_batch: crops that go through the network at once.

    Args:
        job: what is trained.
        fabric: launched; moves and wraps the network.
        world: the processes that train together; a batch given to :meth:`step` is this one's part.
        micro_batch: at first; halved when memory is full.
        note: told, in words, when the step had to be made smaller.
    """

    def __init__(
        self,
        job: Job,
        fabric: Fabric,
        world: World,
        *,
        micro_batch: int,
        note: Callable[[str], None],
    ) -> None:
        self._job, self._fabric, self._note = job, fabric, note
        self._world = world
        self._fp16 = precision(job.plan.precision) == "16-mixed"
        self.micro_batch = micro_batch
        self.module = job.build().to(memory_format=torch.channels_last)
        if fabric.device.type == "cpu" and precision(job.plan.precision) == "bf16-mixed":
            spare_dilated_depthwise(self.module)
        synchronise(self.module, world)
        settings = job.plan.optimiser
        self.adamw = torch.optim.AdamW(
            self.module.parameters(),
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            # four times as fast on a CPU; Fabric can't clip under fp16 with it
            fused=not self._fp16,
        )
        self._model, self._optimiser = fabric.setup(self.module, self.adamw)
        self.average = MovingAverage(self.module, settings.ema) if settings.ema > 0 else None
        self._criterion = build_loss(
            job.plan.loss,
            classes=len(job.classes),
            task=job.task,
            ignore_index=job.ignore_index,
            total=world.total if world.size > 1 else None,
        ).to(fabric.device)
        self._teacher = None
        if job.teaching is not None:
            self._teacher = Teacher(job.teaching, job.plan.distillation, fabric.device)
        self._normalised = Normaliser(job.normalisation, fabric.device)

    def step(self, batch: Batch, number: int, rate: float) -> float:
        """Take a step and return the loss, the mean over what goes through at once.

        Where memory is full the step is tried again with half as many crops at once; several
        processes, which have to keep in step, refuse instead.

        Args:
            batch: crops of this process.
            number: steps before this one; with the seed, the source of dropout's randomness.
            rate: learning rate.

        Raises:
            RefusedError: loss or gradient is no number, or a single crop does not fit the memory.
        """
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        while True:
            # drawn from seed and step, so that a resume repeats it
            seeds = np.random.SeedSequence((self._job.plan.seed, number, self._world.rank))
            torch.manual_seed(int(seeds.generate_state(1, np.uint64)[0] >> 1))
            try:
                loss = self._gradients(batch, number)
                break
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                self._shrink(number, min(self.micro_batch, len(batch.images)))
        norm = self._fabric.clip_gradients(
            self._model,
            self._optimiser,
            max_norm=self._job.plan.optimiser.gradient_clip,
            error_if_nonfinite=False,
        )
        # before the step, so that what is no number never reaches the weights
        if norm is not None and not self._fp16:  # fp16 skips such steps by itself
            self._refuse_infinite("gradient's norm", float(norm), batch, number)
        self._optimiser.step()
        self._optimiser.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update(number + 1)
        return loss

    def _gradients(self, batch: Batch, number: int) -> float:
        """Add up the gradients of the batch, some crops at a time."""
        count = len(batch.images)
        starts = range(0, count, self.micro_batch)
        total = 0.0
        for start in starts:
            part = batch.part(slice(start, start + self.micro_batch))
            with self._unsynchronised(last=start == starts[-1]):
                loss = self._loss(part) * (len(part.images) / count)
                self._fabric.backward(loss)
            total += loss.item()
        self._refuse_infinite("loss", total, batch, number)
        return total

    def _unsynchronised(self, *, last: bool) -> AbstractContextManager[None]:
        """Processes exchange gradients after the last part only."""
        if last:
            return nullcontext()
        context: AbstractContextManager[None] = self._fabric.no_backward_sync(self._model)
        return context

    def _loss(self, part: Batch) -> Tensor:
        x = self._normalised(part.images, part.scalings)
        target = torch.from_numpy(part.masks.astype(np.int64)).to(self._fabric.device)
        outputs = self._model(x.contiguous(memory_format=torch.channels_last))
        loss: Tensor = self._criterion(outputs, target)
        return loss if self._teacher is None else loss + self._teacher.loss(part, outputs)

    def _shrink(self, number: int, tried: int) -> None:
        self._optimiser.zero_grad(set_to_none=True)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if tried == 1:
            raise RefusedError(
                f"a single crop of {self._job.plan.crop_px} px does not fit the memory",
                where=f"step {number}",
                mend=f"Set crop_px to {self._job.plan.crop_px // 2}, or take a smaller network.",
            )
        if self._world.size > 1:  # the others would wait for ever for what this one leaves out
            raise RefusedError(
                f"{tried} crops at once do not fit the memory of process {self._world.rank}",
                where=f"step {number}",
                mend="Go on from the last checkpoint with --resume, a --plan in which micro_batch "
                f"is {math.ceil(tried / 2)}, and otherwise the same options.",
            )
        self.micro_batch = math.ceil(tried / 2)
        self._note(
            f"Memory was full at step {number}: {self.micro_batch} crops go through the network at "
            f"once from now on, instead of {tried}."
        )

    def _refuse_infinite(self, what: str, value: float, batch: Batch, number: int) -> None:
        if math.isfinite(value):
            return
        # the value is that of all processes together, so each of them comes here
        found = self._world.from_all((self._infinite(batch), batch.names))
        names = [name for infinite, _ in found for name in infinite]
        held = [name for _, all_of_it in found for name in all_of_it]
        raise RefusedError(
            f"the {what} is {value} at step {number}; {_named(names, held)}",
            where=self._job.run,
            mend="Look at these images, or go on from the last good checkpoint with --resume and "
            "a lower --learning-rate, or with precision '32' in a --plan.",
        )

    @torch.no_grad()
    def _infinite(self, batch: Batch) -> list[str]:
        """Names of the images whose pixels, or whose outputs alone, are no numbers."""
        names = [
            name
            for name, image in zip(batch.names, batch.images, strict=True)
            if np.issubdtype(image.dtype, np.floating) and not np.isfinite(image).all()
        ]
        if names:
            return names
        with alone(self.module), self._fabric.autocast():
            for index, name in enumerate(batch.names):
                one = batch.part(slice(index, index + 1))
                x = self._normalised(one.images, one.scalings)
                outputs = self.module(x)  # in training mode: the running statistics may be spoilt
                outputs = outputs if isinstance(outputs, list) else [outputs]
                if not all(output.isfinite().all() for output in outputs):
                    names.append(name)
        return names


def _named(names: Sequence[str], held: Sequence[str]) -> str:
    if names:
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        return f"it comes from {', '.join(names[:_NAMED])}{more}"
    return f"no image alone gives such a value; the batch held {', '.join(dict.fromkeys(held))}"


def autocast_type(name: str) -> torch.dtype | None:
    """The arithmetic inside a network under Fabric's precision ``name``; None for its own."""
    return {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(name)
