"""A training with a teacher: matched classes, and images without labels among the others."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from delineate.data.dataset import Dataset, DatasetInfo, Sample, list_files
from delineate.data.images import read_image
from delineate.errors import DatasetError
from delineate.evaluation.evaluate import Read
from delineate.training.job import Job
from delineate.training.teaching import Teaching
from delineate.types import Image, LabelMap, PredictorSpec
from delineate.workflows.evaluate import as_input
from delineate.workflows.resuming import identity_of

IGNORED = 255  # the id of pixels without a label, where the dataset has none


def taught(job: Job, teacher: Path, unlabelled: Path | None, dataset_sha256: str) -> Job:
    """The same training with a teacher, and with images that only the teacher has a word on.

    Where there are many of those, labelled images come several times in an epoch, so that at
    least half of the crops have labels.

    Raises:
        BundleError: the teacher is no bundle, or damaged.
        SettingsError: the teacher's classes or images are others.
        DatasetError: the folder has no images.
    """
    teaching = Teaching.of(teacher, job.classes, job.channels, job.dtype)
    if unlabelled is not None:
        extra = _samples(unlabelled)
        ignored = IGNORED if job.ignore_index is None else job.ignore_index
        times = max(1, math.ceil(len(extra) / len(job.train)))
        job = replace(
            job,
            train=(*(tuple(job.train) * times), *extra),
            read=_Either(
                job.read, ignored, PredictorSpec(job.classes, job.task, job.channels, job.dtype)
            ),
            ignore_index=ignored,
        )
        files = Dataset(unlabelled, DatasetInfo(classes=job.classes), {"train": extra})
        teaching = replace(teaching, unlabelled_sha256=files.fingerprint())
    identity = identity_of(job.plan, dataset_sha256, teaching)
    return replace(job, teaching=teaching, identity=identity)


def _samples(folder: Path) -> tuple[Sample, ...]:
    files = list_files(folder) if folder.is_dir() else []
    if not files:
        raise DatasetError("holds no images", where=folder)
    return tuple(Sample(path.stem, path, None, None) for path in files)


@dataclass(frozen=True)
class _Either:
    """Reads labelled samples as before, and others with a mask in which all is ignored."""

    read: Read
    ignored: int
    spec: PredictorSpec

    def __call__(self, sample: Sample) -> tuple[Image, LabelMap]:
        if sample.mask is not None:
            return self.read(sample)
        image = as_input(read_image(sample.image), self.spec, sample.image)
        kind = np.uint16 if self.ignored > 255 else np.uint8
        return image, np.full(image.shape[:2], self.ignored, kind)
