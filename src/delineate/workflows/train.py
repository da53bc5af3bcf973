"""``delineate train``: dataset in, bundle out."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from delineate.bundle.load import load
from delineate.bundle.manifest import Manifest
from delineate.config import Plan, dump_yaml, with_changes
from delineate.data.dataset import Dataset
from delineate.data.files import write_text
from delineate.evaluation.evaluate import Evaluation
from delineate.evaluation.report import write_report
from delineate.export import Exported, export_bundle
from delineate.training.check import read_all
from delineate.training.checkpoint import Progress, check_checkpoint
from delineate.training.clock import Clock
from delineate.training.find import find
from delineate.training.fit import fit
from delineate.training.job import Event
from delineate.training.stream import SampleStream
from delineate.training.trackers import check_address
from delineate.workflows.crops import Crops
from delineate.workflows.drafting import drafted
from delineate.workflows.evaluate import predict_with
from delineate.workflows.find import FIND, limit_of
from delineate.workflows.following import Following, followed
from delineate.workflows.resuming import identity_of
from delineate.workflows.run_page import VALIDATION_PAGE
from delineate.workflows.several import fit_together
from delineate.workflows.training_setup import (
    Prepared,
    TrainSettings,
    UserAugmentation,
    augmentation_of,
    prepare,
    started,
)


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
    dataset: Dataset | Path | str,
    out: Path | str,
    *,
    plan: Plan | None = None,
    changes: Mapping[str, Any] | None = None,
    settings: TrainSettings,
    augmentation: UserAugmentation | None = None,
    watch: Callable[[Event], None] | None = None,
) -> TrainResult:
    """Train a network on a dataset and export it.

    Every image and mask is read once before anything is written.

    Args:
        dataset: a canonical dataset with the splits train and val, opened or its folder.
        out: the run's folder; it holds plan, log, page, checkpoints and bundle.
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
            that is no run, or another process trains in it; or the disk is full.
        RefusedError: the loss is no number any more, or a crop does not fit the memory.
    """
    began = time.monotonic()
    data = dataset if isinstance(dataset, Dataset) else Dataset.open(Path(dataset))
    prepared = prepare(data, Path(out), plan, changes, settings)
    job = prepared.job
    augment = augmentation_of(job, augmentation)
    job.build()  # refuses what cannot be built before anything is written or replaced
    if settings.resume and job.last.exists():
        check_checkpoint(job.last, job.identity)
    samples = read_all(
        job.train,
        job.val,
        job.read,
        classes=job.classes,
        ignore_index=job.ignore_index,
        keep=settings.processes == 1,  # each of several keeps its own
        watch=_tell_reading(watch),
    )
    crops = Crops.of(job, samples, augment)
    if settings.mlflow is not None:
        check_address(settings.mlflow)
    with started(prepared, began) as clock:
        if settings.find and not (job.run / FIND).exists():
            prepared = _with_found(prepared, crops.stream(job))
        with followed(prepared, watch) as following:
            for name in samples.index.empty:
                following.warn(f"The class {name} has no pixel in train, so it is not learnt.")
            if settings.processes > 1:
                del crops  # nor are its objects held twice
                progress = fit_together(
                    prepared,
                    samples.index,
                    augmentation,
                    clock,
                    watch=following.pass_on,
                    on_row=following.on_row,
                )
            else:
                progress = _fit(prepared, crops, clock, following)
            exported = _export(prepared)
            _report(prepared, exported)
            result = TrainResult(
                job.run, prepared.bundle, progress.step, clock.elapsed_s(), exported
            )
            write_text(job.run / "result.json", json.dumps(result.to_dict(), indent=2))
            following.finish(result.to_dict(), prepared.bundle)
    return result


def _with_found(prepared: Prepared, stream: SampleStream) -> Prepared:
    """The training with the learning rate and the batch size that a search finds."""
    job = prepared.job
    found = find(job, stream, limit_s=limit_of(job.duration))
    processes = prepared.settings.processes
    evenly = max(found.batch_size // processes, 1) * processes
    plan = with_changes(job.plan, {**found.changes, "batch_size": evenly}, "--find")
    write_text(job.run / "plan.yaml", dump_yaml(plan))
    # last, so that a kill before this line searches again
    write_text(job.run / FIND, json.dumps(found.to_dict(), indent=2))
    identity = identity_of(plan, prepared.dataset_sha256, job.teaching)
    job = replace(job, plan=plan, identity=identity)
    return replace(prepared, job=job)


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


def _fit(prepared: Prepared, crops: Crops, clock: Clock, following: Following) -> Progress:
    return fit(
        prepared.job,
        crops.stream(prepared.job),
        resume=prepared.settings.resume,
        clock=clock,
        watch=following.on_event,
        on_validation=following.page.on_validation,
        on_row=following.on_row,
    )


def _export(prepared: Prepared) -> Exported:
    job = prepared.job
    module = job.trained()
    draft = drafted(
        prepared,
        plan=job.plan,
        normalisation=job.normalisation,
        multiple_of=job.spec(module).multiple_of,
        training_images=job.labelled_images,
    )
    return export_bundle(
        module,
        draft,
        prepared.bundle,
        val=job.val,
        read=job.read,
        force=True,
        canary=prepared.asked.canary,
        choose=job.plan.choose_postprocessing,
    )


def _report(prepared: Prepared, exported: Exported) -> None:
    manifest: Manifest = exported.manifest
    write_report(
        exported.evaluation,
        prepared.job.run / VALIDATION_PAGE,
        title=f"{manifest.name} on the validation split",
        colours=manifest.colours,
        read=prepared.job.read,
        predict=predict_with(load(prepared.bundle, engine="onnxruntime")),
        provenance={
            "bundle": str(prepared.bundle),
            "dataset": str(prepared.data.path),
            "split": "val",
        },
    )


__all__ = ["TrainResult", "TrainSettings", "train"]
