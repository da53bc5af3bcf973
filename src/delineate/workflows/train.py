"""``delineate train``: dataset in, bundle out."""

from __future__ import annotations

import hashlib
import json
import math
import platform
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from delineate.bundle.load import load
from delineate.bundle.manifest import ClassInfo, InputInfo, Manifest
from delineate.config import (
    Duration,
    Plan,
    dump_yaml,
    load_yaml,
    with_changes,
)
from delineate.data.augment import Augmentation, SampleAugmentation, as_augmentation
from delineate.data.dataset import Dataset
from delineate.data.files import write_text
from delineate.errors import OutputError, SettingsError
from delineate.evaluation.evaluate import Evaluation
from delineate.evaluation.report import write_report
from delineate.export import Exported, draft_manifest, export_bundle
from delineate.training.check import read_all
from delineate.training.checkpoint import check_checkpoint, load_checkpoint
from delineate.training.clock import Clock
from delineate.training.fit import Event, Job, fit
from delineate.training.folder import clear, locked, refuse_folder
from delineate.training.stream import Crop, Prepare
from delineate.types import Image, LabelMap
from delineate.workflows.evaluate import labelled, predict_with
from delineate.workflows.first_look import default_plan, look_at, read_alike

BUNDLE_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"


@dataclass(frozen=True)
class TrainSettings:
    """How a training is run, beside its plan.

    Attributes:
        duration: steps, or a budget of time.
        resume: go on with the run in the folder.
        force: replace a run that is there.
        canary: put a few labelled validation images into the bundle.
        name: of the bundle; the run's folder name when left out.
        command: the command line, for the record.
        spent_s: seconds that the command took before this call; they count in the budget.
    """

    duration: Duration
    resume: bool = False
    force: bool = False
    canary: bool = True
    name: str | None = None
    command: str = ""
    spent_s: float = 0.0


@dataclass(frozen=True)
class TrainResult:
    """What a training ended in."""

    run: Path
    bundle: Path
    steps: int
    elapsed_s: float
    exported: Exported

    @property
    def evaluation(self) -> Evaluation:
        return self.exported.evaluation

    def to_dict(self) -> dict[str, Any]:
        return {
            "run": str(self.run),
            "bundle": str(self.bundle),
            "steps": self.steps,
            "elapsed_s": round(self.elapsed_s, 2),
            "export": {
                "agreement": self.exported.agreement,
                "largest_difference_255ths": self.exported.difference,
            },
            "validation": self.evaluation.scores.to_dict(),
        }


def train(
    dataset: Path | str,
    out: Path | str,
    *,
    plan: Plan | None = None,
    changes: Mapping[str, Any] | None = None,
    settings: TrainSettings,
    augmentation: Callable[..., Mapping[str, np.ndarray]] | None = None,
    watch: Callable[[Event], None] | None = None,
) -> TrainResult:
    """Train a network on a dataset and export it.

    Every image and mask is read once before anything is written.

    Args:
        dataset: a canonical dataset with the splits train and val.
        out: the run's folder; it holds plan, log, checkpoints, report and bundle.
        plan: the configuration; :func:`default_plan` when left out, the run's own on a resume.
        changes: single fields of the plan by dotted path, ``{"model.encoder": "resnet34"}``.
        settings: how long, and how.
        augmentation: any ``f(image=, mask=)`` in place of ours.
        watch: told about every step and validation.

    Raises:
        DatasetError: no such dataset, or a split is missing.
        ImageError, MaskError: an image or a mask is wrong.
        SettingsError: the plan does not fit the dataset, or there is nothing to resume.
        CheckpointError: what should be resumed is damaged or of another plan or dataset.
        OutputError: ``out`` exists and neither ``resume`` nor ``force`` is set, holds something
            that is no run, or another process trains in it.
    """
    began = time.monotonic()
    data, out = Dataset.open(Path(dataset)), Path(out)
    if settings.resume:
        plan = _resumed_plan(out, plan, changes)
    else:
        refuse_folder(out, force=settings.force)
    name = _bundle_name(out, settings.name)
    fingerprint = data.fingerprint()
    job = _job(data, out, plan, {} if settings.resume else changes or {}, fingerprint, settings)
    if augmentation is not None:
        own = as_augmentation(
            augmentation,
            crop_px=job.plan.crop_px,
            classes=len(job.classes),
            ignore_index=job.ignore_index,
        )
        job = replace(job, prepare=_prepare(own))
    job.build()  # refuses what cannot be built before anything is written or replaced
    if settings.resume and job.last.exists():
        check_checkpoint(job.last, job.identity)
    cache = read_all(job.train, job.val, job.read, _tell_reading(watch))
    run = _Run(job, data, fingerprint, name, settings)
    with _started(run, began) as clock:
        progress = fit(job, resume=settings.resume, clock=clock, cache=cache, watch=watch)
        exported = _export(run)
        _report(run, exported)
        result = TrainResult(out, run.bundle, progress.step, clock.elapsed_s(), exported)
        write_text(out / "result.json", json.dumps(result.to_dict(), indent=2))
    return result


def _tell_reading(watch: Callable[[Event], None] | None) -> Callable[[float], None] | None:
    if watch is None:
        return None
    event = Event(
        kind="reading",
        step=0,
        fraction=0.0,
        remaining_s=math.nan,
        loss=math.nan,
        images_per_s=0.0,
        val_miou=None,
        best_miou=None,
    )
    return lambda fraction: watch(replace(event, fraction=fraction))


def _resumed_plan(out: Path, plan: Plan | None, changes: Mapping[str, Any] | None) -> Plan:
    if not (out / "plan.yaml").exists():
        raise SettingsError("holds no run to resume", where=out, mend="Leave --resume out.")
    saved = load_yaml(out / "plan.yaml", Plan)
    wanted = with_changes(plan or saved, changes or {}, "the plan")
    if wanted != saved:
        raise SettingsError(
            "was started with another plan", where=out, mend="Leave --plan and plan options out."
        )
    return saved


@dataclass(frozen=True)
class _Run:
    """A job and where it comes from; ``name`` is the bundle's."""

    job: Job
    data: Dataset
    dataset_sha256: str
    name: str
    settings: TrainSettings

    @property
    def bundle(self) -> Path:
        return self.job.run / f"{self.name}.bundle"


@contextmanager
def _started(run: _Run, began: float) -> Iterator[Clock]:
    """The run's folder, locked, without what an earlier run or a kill left, and with a note."""
    job, settings, out = run.job, run.settings, run.job.run
    record = {
        "dataset": str(run.data.path),
        "dataset_sha256": run.dataset_sha256,
        "duration": settings.duration.model_dump(),
        "command": settings.command,
        "machine": f"{platform.machine()} {platform.system()}, Python {platform.python_version()}",
    }
    with locked(out):
        if not settings.resume:  # another process may have made a run while this one read
            refuse_folder(out, force=settings.force)
        clear(out, all_of_it=not settings.resume)
        # first the plan: by it a folder is known as a run, whenever this is killed
        write_text(out / "plan.yaml", dump_yaml(job.plan))
        write_text(out / "run.json", json.dumps(record, indent=2))
        try:
            (out / "checkpoints").mkdir(exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot be made ({error.strerror})", where=out) from error
        yield Clock(out / "clock", settings.spent_s + time.monotonic() - began)


def _bundle_name(out: Path, wanted: str | None) -> str:
    """The name of the bundle, in the characters that a manifest takes."""
    if wanted is None:
        words = re.findall(r"[A-Za-z0-9][A-Za-z0-9._-]*", out.resolve().name)
        return "-".join(words) or "model"
    if re.fullmatch(BUNDLE_NAME, wanted) is None:
        raise SettingsError(
            f"{wanted!r} cannot be a bundle's name",
            where="name",
            mend="Use letters, digits, dots, dashes and underscores, a letter or digit first.",
        )
    return wanted


def _job(
    data: Dataset,
    out: Path,
    plan: Plan | None,
    changes: Mapping[str, Any],
    fingerprint: str,
    settings: TrainSettings,
) -> Job:
    samples = {name: labelled(data, name) for name in ("train", "val")}
    pixels = look_at(samples["train"], data.info)
    plan = with_changes(plan or default_plan(pixels, changes.get("loss.name")), changes, "the plan")
    classes, ignore = data.info.classes, data.info.ignore_index
    if plan.loss.class_weights is not None and len(plan.loss.class_weights) != len(classes):
        raise SettingsError(
            f"{len(plan.loss.class_weights)} class weights for {len(classes)} classes",
            where="loss.class_weights",
        )
    return Job(
        plan=plan,
        duration=settings.duration,
        run=out,
        identity=hashlib.sha256(f"{dump_yaml(plan)}\n{fingerprint}".encode()).hexdigest(),
        classes=classes,
        task="binary" if len(classes) == 2 else "multiclass",
        channels=pixels.channels,
        dtype=pixels.dtype,
        normalisation=pixels.normalisation,
        ignore_index=ignore,
        train=samples["train"],
        val=samples["val"],
        read=partial(read_alike, info=data.info, first=pixels),
        prepare=_prepare(Augmentation(plan.augmentation, plan.crop_px, ignore)),
    )


def _prepare(augment: SampleAugmentation) -> Prepare:
    def prepare(image: Image, mask: LabelMap, rng: np.random.Generator) -> Crop:
        result = augment(image=image, mask=mask, rng=rng)
        return result["image"], result["mask"]

    return prepare


def _export(run: _Run) -> Exported:
    job, data = run.job, run.data
    module = job.build()
    load_checkpoint(job.best if job.best.exists() else job.last, module, None, job.identity)
    draft = draft_manifest(
        name=run.name,
        task=job.task,
        classes=tuple(
            ClassInfo(id=i, name=name, colour=data.colours[i]) for i, name in enumerate(job.classes)
        ),
        ignore_index=job.ignore_index,
        input=InputInfo(
            channels=job.channels,
            dtype=job.dtype,
            multiple_of=job.spec(module).multiple_of,
            pixel_size_um=data.info.pixel_size_um,
            normalisation=job.normalisation,
        ),
        tiling=job.plan.tiling,
        postprocessing=job.plan.postprocessing,
        provenance={
            "dataset_sha256": run.dataset_sha256,
            "training_images": len(job.train),
            "plan": job.plan.model_dump(mode="json"),
            "licence": "that of the training data and of the encoder's weights, if pretrained",
        },
    )
    canary = run.settings.canary
    return export_bundle(
        module, draft, run.bundle, val=job.val, read=job.read, force=True, canary=canary
    )


def _report(run: _Run, exported: Exported) -> None:
    manifest: Manifest = exported.manifest
    write_report(
        exported.evaluation,
        run.job.run / "report.html",
        title=f"{manifest.name} on the validation split",
        colours=manifest.colours,
        read=run.job.read,
        predict=predict_with(load(run.bundle, engine="onnxruntime")),
        provenance={"bundle": str(run.bundle), "dataset": str(run.data.path), "split": "val"},
    )
