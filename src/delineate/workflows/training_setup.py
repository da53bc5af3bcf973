"""From a dataset and a plan to a job: what ``train`` does before the first step."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from delineate.bundle.manifest import bundle_name
from delineate.config import (
    Duration,
    Plan,
    dump_yaml,
    takes_class_weights,
    with_changes,
)
from delineate.data.augment import Augmentation, SampleAugmentation, as_augmentation
from delineate.data.dataset import Dataset
from delineate.data.files import write_text
from delineate.errors import OutputError, SettingsError
from delineate.planning.look import FirstLook, look_at, read_alike
from delineate.planning.rules import default_plan
from delineate.training.clock import Clock
from delineate.training.environment import environment
from delineate.training.folder import clear, locked, refuse_folder
from delineate.training.job import Job
from delineate.training.launch import refuse_devices
from delineate.workflows.evaluate import labelled
from delineate.workflows.resuming import (
    NOTE,
    TRAINING,
    Asked,
    identity_of,
    read_note,
    refuse_other_dataset,
    refuse_other_steps,
    resume,
    with_true_encoder,
)
from delineate.workflows.teaching import taught

ENCODER_FIELDS = ("model.encoder", "model.encoder_weights", "model.decoder_channels")
UserAugmentation = Callable[..., Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class TrainSettings:
    """How a training is run, beside its plan.

    Attributes:
        duration: steps, or a budget of time.
        resume: go on with the run in the folder.
        force: replace a run that is there.
        canary: put a few labelled validation images into the bundle.
        name: of the bundle; the run's folder name when left out.
        find: search learning rate and batch size before the first step.
        teacher: a bundle from which the network learns beside the labels.
        unlabelled: a folder of images without labels for which the teacher's word is taken.
        devices: processes on each machine, one for each GPU, or parts of the CPU.
        nodes: machines that train together; the others join by :func:`delineate.workflows.join`.
        rendezvous: ``HOST:PORT`` where they meet, HOST being one of them.
        mlflow: address of an MLflow server, or None.
        command: the command line, for the record.
        spent_s: seconds that the command took before this call; they count in the budget.
    """

    duration: Duration
    resume: bool = False
    force: bool = False
    canary: bool = True
    name: str | None = None
    find: bool = False
    teacher: Path | None = None
    unlabelled: Path | None = None
    devices: int = 1
    nodes: int = 1
    rendezvous: str | None = None
    mlflow: str | None = None
    command: str = ""
    spent_s: float = 0.0

    @property
    def processes(self) -> int:
        """How many train together, on all machines."""
        return self.devices * self.nodes


@dataclass(frozen=True)
class Prepared:
    """A job and where it comes from.

    Attributes:
        asked: what the run was begun with.
        changes: what a resume changes in the plan, by dotted path.
    """

    job: Job
    data: Dataset
    dataset_sha256: str
    settings: TrainSettings
    asked: Asked
    changes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Of the bundle."""
        return self.asked.name

    @property
    def bundle(self) -> Path:
        return self.job.run / f"{self.name}.bundle"


def prepare(
    data: Dataset,
    out: Path,
    plan: Plan | None,
    changes: Mapping[str, Any] | None,
    settings: TrainSettings,
    *,
    kind: str = TRAINING,
) -> Prepared:
    """Look at the dataset and settle the plan; nothing is written.

    Raises:
        DatasetError: a split is missing.
        SettingsError: the plan does not fit the dataset, the devices are not there, or there is
            nothing that could be resumed so.
        CheckpointError: what should be resumed was trained on other files.
        OutputError: ``out`` exists and neither ``resume`` nor ``force`` is set, or is no run.
    """
    _refuse_without_teacher(settings)
    if settings.processes != 1 or settings.rendezvous is not None:
        refuse_devices(settings.devices, nodes=settings.nodes, rendezvous=settings.rendezvous)
    name, changes = bundle_name(out, settings.name), changes or {}
    if settings.resume:
        refuse_other_steps(out, kind, settings.duration)
        found = resume(
            out,
            plan,
            changes,
            kind=kind,
            name=settings.name,
            canary=settings.canary,
            find=settings.find,
        )
        fingerprint = data.fingerprint()
        refuse_other_dataset(out, fingerprint)
        job = job_of(data, out, found.plan, {}, fingerprint, settings)
        asked = replace(found.asked, name=found.asked.name or name)
        settings = replace(settings, find=asked.find)
        prepared = Prepared(job, data, fingerprint, settings, asked, found.changes)
    else:
        refuse_folder(out, force=settings.force)
        fingerprint = data.fingerprint()
        job = job_of(data, out, plan, changes, fingerprint, settings)
        asked = Asked(kind, job.plan, name, settings.canary, settings.find)
        prepared = Prepared(job, data, fingerprint, settings, asked)
    _refuse_uneven(job.plan, settings)
    return prepared


def _refuse_without_teacher(settings: TrainSettings) -> None:
    if settings.teacher is None and settings.unlabelled is not None:
        raise SettingsError(
            "images without labels teach nothing without a teacher",
            where=settings.unlabelled,
            mend="Name a teacher as well, or leave them out.",
        )
    if settings.teacher is not None and settings.nodes > 1:
        raise SettingsError(
            "the machines that join a training have no teacher",
            where="nodes",
            mend="Train with a teacher on one machine; several devices may share the work.",
        )


def _refuse_uneven(plan: Plan, settings: TrainSettings) -> None:
    if plan.batch_size % settings.processes:
        below = plan.batch_size // settings.processes * settings.processes
        above = below + settings.processes
        wanted = f"{below} or {above}" if below else f"{above}"
        raise SettingsError(
            f"{plan.batch_size} crops cannot be shared evenly by {settings.processes} devices",
            where="batch_size",
            mend=f"Set batch_size to {wanted}.",
        )


def job_of(
    data: Dataset,
    out: Path,
    plan: Plan | None,
    changes: Mapping[str, Any],
    fingerprint: str,
    settings: TrainSettings,
) -> Job:
    samples = {name: labelled(data, name) for name in ("train", "val")}
    pixels = look_at(samples["train"], data.info)
    plan = _settled_plan(plan, pixels, changes)
    classes, ignore = data.info.classes, data.info.ignore_index
    if plan.loss.class_weights is not None and len(plan.loss.class_weights) != len(classes):
        raise SettingsError(
            f"{len(plan.loss.class_weights)} class weights for {len(classes)} classes",
            where="loss.class_weights",
        )
    job = Job(
        plan=plan,
        duration=settings.duration,
        run=out,
        identity=identity_of(plan, fingerprint),
        classes=classes,
        task="binary" if len(classes) == 2 else "multiclass",
        channels=pixels.channels,
        dtype=pixels.dtype,
        normalisation=pixels.normalisation.model_copy(update={"by": plan.normalisation}),
        ignore_index=ignore,
        train=samples["train"],
        val=samples["val"],
        read=partial(read_alike, info=data.info, first=pixels),
    )
    if settings.teacher is None:
        return job
    return taught(job, settings.teacher, settings.unlabelled, fingerprint)


def _settled_plan(plan: Plan | None, pixels: FirstLook, changes: Mapping[str, Any]) -> Plan:
    """The plan that is trained: the default one where none is given, with its changes."""
    if plan is None:
        # an encoder that is named wants an architecture that has one to choose
        named = any(changes.get(field) is not None for field in ENCODER_FIELDS)
        wanted = "unet" if named else None
        plan = default_plan(pixels, changes.get("model.architecture", wanted))
        if "loss.name" in changes:
            bare = {"loss.class_weights": None, **changes}
            if not takes_class_weights(with_changes(plan, bare, "the plan").loss.name):
                changes = bare  # nor does it take the default's
    return with_true_encoder(with_changes(plan, changes, "the plan"))


def augmentation_of(job: Job, wanted: UserAugmentation | None) -> SampleAugmentation:
    """The plan's augmentation, or a user's callable in its place, whose results are checked."""
    if wanted is None:
        return Augmentation(job.plan.augmentation, job.plan.crop_px, job.ignore_index)
    return as_augmentation(
        wanted,
        crop_px=job.plan.crop_px,
        classes=len(job.classes),
        ignore_index=job.ignore_index,
    )


@contextmanager
def started(prepared: Prepared, began: float) -> Iterator[Clock]:
    """The run's folder, locked, without what an earlier run or a kill left, and with a note.

    Args:
        prepared: the training.
        began: when the command was called, by ``time.monotonic``.
    """
    job, settings, out = prepared.job, prepared.settings, prepared.job.run
    with locked(out):
        if not settings.resume:  # another process may have made a run while this one read
            refuse_folder(out, force=settings.force)
        clear(out, all_of_it=not settings.resume)
        # first the plan: by it a folder is known as a run, whenever this is killed
        write_text(out / "plan.yaml", dump_yaml(job.plan))
        write_text(out / NOTE, json.dumps(_note(prepared), indent=2))
        try:
            (out / "checkpoints").mkdir(exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot be made ({error.strerror})", where=out) from error
        yield Clock(out / "clock", settings.spent_s + time.monotonic() - began)


def _note(prepared: Prepared) -> dict[str, Any]:
    """The content of ``run.json``: the first call, and under ``resumed`` those that went on."""
    job, settings = prepared.job, prepared.settings
    call = {
        "began": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": settings.command,
        "duration": settings.duration.model_dump(),
        "devices": settings.devices,
        "nodes": settings.nodes,
        "rendezvous": settings.rendezvous,
        "machine": f"{platform.machine()} {platform.system()}, Python {platform.python_version()}",
        "environment": environment(),
    }
    before = read_note(job.run) if settings.resume else {}
    if before:
        resumed = [*before.get("resumed", []), {**call, "changes": dict(prepared.changes)}]
        return {**before, "asked": prepared.asked.to_dict(), "resumed": resumed}
    return {
        "dataset": str(prepared.data.path.resolve()),
        "dataset_sha256": prepared.dataset_sha256,
        "training_images": job.labelled_images,
        "validation_images": len(job.val),
        **call,
        "seed": job.plan.seed,
        "deterministic": job.plan.deterministic,
        "asked": prepared.asked.to_dict(),
    }
