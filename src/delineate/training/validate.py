"""A validation inside a training: the weights as they are, each image by the usual way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn

from delineate.engines.pytorch import TorchPredictor
from delineate.evaluation.confusion import Confusion
from delineate.evaluation.evaluate import Evaluation, evaluate
from delineate.evaluation.scores import compute_scores
from delineate.tiling.segment import segment
from delineate.training.job import Job
from delineate.training.world import World
from delineate.types import Image, LabelMap


def label_images(
    job: Job, module: nn.Module, autocast: torch.dtype | None
) -> Callable[[Image], LabelMap]:
    """A function from an image of any size to its class ids; ``module`` must be in eval mode."""
    predictor = TorchPredictor(module, job.spec(module), job.normalisation, autocast=autocast)

    def predict(image: Image) -> LabelMap:
        labels: LabelMap = segment(
            predictor, image, tiling=job.plan.tiling, postprocessing=job.plan.postprocessing
        )["labels"][0]
        return labels

    return predict


def validate(job: Job, predict: Callable[[Image], LabelMap], world: World) -> Evaluation:
    """Score on ``val``; each process takes its part, and every one gets the scores of all.

    The worst and best images of the result are those among this process's part.
    """
    # a process with nothing to do scores an image once more, and its counts are left out
    own = job.val[world.rank :: world.size] or job.val[:1]
    found = evaluate(own, job.read, predict, classes=job.classes, ignore_index=job.ignore_index)
    if world.size == 1:
        return found
    total = Confusion(job.classes, job.ignore_index)
    idle = world.rank >= len(job.val)
    total.counts = world.total_counts(found.confusion.counts * (0 if idle else 1))
    return replace(found, confusion=total, scores=compute_scores(total), n_images=len(job.val))
