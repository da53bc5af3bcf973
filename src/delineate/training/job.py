"""One training: what is fitted to what; and what it tells while it runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from delineate.config import Duration, ModelSettings, Normalisation, Plan
from delineate.data.dataset import Sample
from delineate.evaluation.evaluate import Read
from delineate.evaluation.postprocessing import worth_trying
from delineate.models.build import build, multiple_of
from delineate.training.checkpoint import load_checkpoint
from delineate.training.teaching import Teaching
from delineate.types import PixelType, PredictorSpec, Task


@dataclass(frozen=True)
class Job:
    """One training: what is fitted to what, and where it is written.

    Attributes:
        run: folder of the run; ``checkpoints/`` and the logs go there.
        identity: hash of plan and dataset, so that a checkpoint is never resumed with others.
        read: gives image and mask of a sample of ``val``.
        teaching: who teaches the network, beside the labels.
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
    teaching: Teaching | None = None

    @property
    def labelled_images(self) -> int:
        """Different images of train that have labels, however often each comes."""
        return len({sample.image for sample in self.train if sample.mask is not None})

    @property
    def passes_after(self) -> int:
        """Passes over val behind the last step: its own, for post-processing, and for scores."""
        wanted = self.plan.choose_postprocessing and worth_trying(self.classes, self.ignore_index)
        return 3 if wanted else 2

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
            normalised_by_image=self.normalisation.by == "image",
        )

    def build(self) -> nn.Module:
        """The network of the plan, with the plan's random weights."""
        torch.manual_seed(self.plan.seed)
        return self._network(self.plan.model)

    def trained(self) -> nn.Module:
        """The network with the weights of the best validation, or the last ones without any.

        Pretrained weights are not looked for again: the checkpoint has all.

        Raises:
            CheckpointError: there is none, or it is damaged or of another plan or dataset.
        """
        network = self._network(self.plan.model.model_copy(update={"encoder_weights": None}))
        path = self.best if self.best.exists() else self.last
        load_checkpoint(path, network, None, self.identity)
        return network

    def _network(self, settings: ModelSettings) -> nn.Module:
        return build(settings, channels=self.channels, classes=len(self.classes), task=self.task)


@dataclass(frozen=True)
class Event:
    """What a training tells while it runs.

    Attributes:
        kind: ``reading`` while all samples are read once, if that takes long; ``note`` when
            something happened that a person should know (its numbers mean nothing); ``stopped``
            when patience has run out.
        fraction: of the training that is done, or of the reading, 0 to 1.
        remaining_s: seconds to the end, estimated.
        val_miou: of the newest validation, or None.
        text: of a note.
    """

    kind: Literal["reading", "step", "validation", "note", "stopped"]
    step: int
    fraction: float
    remaining_s: float
    loss: float
    images_per_s: float
    val_miou: float | None
    best_miou: float | None
    text: str = ""

    @classmethod
    def note(cls, text: str) -> Event:
        """Something that a person should know."""
        return cls("note", 0, 0.0, math.nan, math.nan, 0.0, None, None, text)
