"""nnU-Net's trainer with fewer iterations; runs in nnU-Net's own environment.

nnU-Net finds it by ``nnUNet_extTrainer``. The network, the loss, the optimiser, the augmentation
and the sampling are nnU-Net's. 1,000 epochs of 250 iterations become as many as the environment
variables say. Since epochs are few, three habits that cost time in each of them are changed in
nnU-Net's favour: the learning rate falls with every iteration instead of every epoch, no
checkpoint but the final one is written, and the final validation, which no prediction rests on,
is left out.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import (  # type: ignore[import-not-found]
    nnUNetTrainer,
)

FINAL = "checkpoint_final.pth"


class EqualTimeTrainer(nnUNetTrainer):  # type: ignore[misc]
    """As many epochs and iterations as ``EQUAL_TIME_EPOCHS`` and ``_ITERATIONS`` say.

    ``EQUAL_TIME_VALIDATIONS`` is nnU-Net's own share, one for five. What everything took, in
    seconds, goes to the file ``EQUAL_TIME_FOUND``; ``EQUAL_TIME_BEGAN`` is when the process was
    started, seconds since 1970.
    """

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int,
        dataset_json: dict[str, Any],
        device: torch.device = torch.device("cpu"),  # noqa: B008 (nnU-Net's signature)
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs = int(os.environ["EQUAL_TIME_EPOCHS"])
        self.num_iterations_per_epoch = int(os.environ["EQUAL_TIME_ITERATIONS"])
        self.num_val_iterations_per_epoch = int(os.environ["EQUAL_TIME_VALIDATIONS"])
        self.train_s: list[float] = []
        self.val_s: list[float] = []
        self.startup_s = 0.0
        self.last_s = 0.0  # when the newest step or validation ended

    def on_epoch_start(self) -> None:
        super().on_epoch_start()
        self.last_s = time.time()
        self.startup_s = self.startup_s or self.last_s - float(os.environ["EQUAL_TIME_BEGAN"])

    def on_validation_epoch_start(self) -> None:
        super().on_validation_epoch_start()
        self.last_s = time.time()

    def train_step(self, batch: dict[str, Any]) -> Any:
        self.lr_scheduler.step(len(self.train_s) / self.num_iterations_per_epoch)
        found = super().train_step(batch)
        self.train_s.append(self._lap())
        return found

    def validation_step(self, batch: dict[str, Any]) -> Any:
        found = super().validation_step(batch)
        self.val_s.append(self._lap())
        return found

    def _lap(self) -> float:
        """Seconds since the one before, the wait for the batch included."""
        before, self.last_s = self.last_s, time.time()
        return self.last_s - before

    def save_checkpoint(self, filename: str) -> None:
        if Path(filename).name == FINAL:
            super().save_checkpoint(filename)

    def on_train_end(self) -> None:
        super().on_train_end()
        found = {
            "startup_s": self.startup_s,
            "train_s": self.train_s,
            "val_s": self.val_s,
            "wall_s": time.time() - float(os.environ["EQUAL_TIME_BEGAN"]),
            "batch": self.batch_size,
            "patch": list(self.configuration_manager.patch_size),
        }
        Path(os.environ["EQUAL_TIME_FOUND"]).write_text(json.dumps(found))

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """Left out: nothing rests on it, and it is no part of the time."""
