"""``delineate distill``: a student learns from a teacher, beside the same student alone."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from delineate.bundle.load import load
from delineate.bundle.store import find_bundle
from delineate.config import Duration, Plan
from delineate.data.dataset import Dataset
from delineate.data.files import write_text
from delineate.errors import SettingsError
from delineate.evaluation.evaluate import Evaluation
from delineate.evaluation.learning_curve import Estimate, difference
from delineate.evaluation.scores import none_if_nan
from delineate.release import measure
from delineate.training.job import Event
from delineate.training.teaching import Teaching
from delineate.workflows.distill_page import write_distill_page
from delineate.workflows.parts import Done, Part, refuse_short, train_parts
from delineate.workflows.training_setup import Prepared, TrainSettings, prepare, started

DISTILLED, ALONE = "distilled", "alone"
RESULT = "distill.json"


@dataclass(frozen=True)
class Distilled:
    """What the teacher brought.

    Attributes:
        run: folder of the whole.
        student: the training with the teacher.
        alone: the same without; None where it was left out.
        teaching: who taught, and what.
        teacher: the teacher's own scores on val; None where its classes are others.
        gain: of the teacher, in mean IoU, with the choice of images and the luck of both
            trainings in its interval.
        elapsed_s: seconds of the whole.
    """

    run: Path
    student: Done
    alone: Done | None
    teaching: Teaching
    teacher: Evaluation | None
    gain: Estimate | None
    elapsed_s: float

    @property
    def bundle(self) -> Path:
        """The student's."""
        return self.student.bundle

    @property
    def verdict(self) -> str:
        """Whether the teacher helped, in words."""
        gain = self.gain
        if gain is None:
            return "The student was not trained alone, so what the teacher brought is not known."
        told = f"{100 * gain.value:+.1f} points of mIoU ({100 * gain.low:+.1f} to "
        told += f"{100 * gain.high:+.1f}) against the same student alone in the same time"
        if gain.low > 0:
            return f"The teacher helps: {told}."
        if gain.high < 0:
            return f"The teacher harms: {told}."
        return f"Whether the teacher helps is not sure: {told}."

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        trainings = {DISTILLED: self.student}
        if self.alone is not None:
            trainings[ALONE] = self.alone
        return {
            "run": str(self.run),
            "bundle": str(self.bundle),
            "verdict": self.verdict,
            "gain": None if self.gain is None else self.gain.to_dict(),
            "teacher": {
                **self.teaching.note(),
                "mean_iou": (
                    None if self.teacher is None else none_if_nan(self.teacher.scores.mean_iou)
                ),
            },
            "trainings": {
                name: {
                    "bundle": f"{name}/{done.bundle.name}",
                    "steps": done.steps,
                    "elapsed_s": round(done.elapsed_s, 2),
                    "validation": done.evaluation.scores.to_dict(),
                }
                for name, done in trainings.items()
            },
            "elapsed_s": round(self.elapsed_s, 2),
        }


def distill(
    teacher: Path | str,
    dataset: Path | str,
    out: Path | str,
    *,
    plan: Plan | None = None,
    changes: Mapping[str, Any] | None = None,
    settings: TrainSettings,
    compare: bool = True,
    watch: Callable[[Event], None] | None = None,
) -> Distilled:
    """Train a student with a teacher, and the same student without.

    Teacher and student see the same augmented crops. They may differ in architecture, input scale,
    number and order of classes, which are matched by name.

    Args:
        teacher: a bundle, or a run that holds one.
        dataset: a canonical dataset with train and val.
        out: folder of the whole; it holds ``distilled``, ``alone``, ``distill.json`` and
            ``report.html``.
        plan, changes: the student's; the usual plan when left out.
        settings: how long each of the two is trained, and how. ``unlabelled`` names a folder of
            images that only the teacher has a word on.
        compare: train the student alone as well.
        watch: told about both trainings, with the progress of the whole.

    Raises:
        SettingsError: teacher and dataset share fewer than two classes, or take other images.
        DelineateError: what :func:`delineate.workflows.train.train` raises.
    """
    began = time.monotonic()
    refuse_short(settings, parts=1, reserve_s=0.0)
    parts_count = 2 if compare else 1
    duration = settings.duration
    if duration.budget_s is not None:
        duration = Duration(budget_s=parts_count * duration.budget_s)
    settings = replace(settings, teacher=find_bundle(Path(teacher)), duration=duration)
    data = Dataset.open(Path(dataset))
    prepared = prepare(data, Path(out), plan, changes, settings, kind="a distillation")
    teaching = prepared.job.teaching
    if teaching is None:
        raise SettingsError("there is no teacher", where=prepared.job.run)
    run = prepared.job.run
    with started(prepared, began) as clock:
        found = train_parts(
            _parts(prepared, compare=compare), prepared, clock, reserve_s=0.0, watch=watch
        )
        done = {each.part.folder: each for each in found}
        alone = done.get(ALONE)
        gain = None
        if alone is not None:
            gain = difference(alone.counts, done[DISTILLED].counts)
        result = Distilled(
            run,
            done[DISTILLED],
            alone,
            teaching,
            _scored(prepared, teaching),
            gain,
            clock.elapsed_s(),
        )
        write_text(run / RESULT, json.dumps(result.to_dict(), indent=2))
        write_distill_page(
            run / "report.html",
            title=f"{prepared.name}, taught by {teaching.name}",
            document=result.to_dict(),
        )
    return result


def _parts(prepared: Prepared, *, compare: bool) -> list[Part]:
    plan, data = prepared.job.plan, prepared.data
    parts = [Part(DISTILLED, "training the student with its teacher", data, plan, prepared.name)]
    if compare:
        parts.append(
            Part(ALONE, "training the student alone", data, plan, prepared.name, alone=True)
        )
    return parts


def _scored(prepared: Prepared, teaching: Teaching) -> Evaluation | None:
    """The teacher's own scores on val, where its classes are those of the dataset."""
    bundle = load(teaching.bundle, engine="onnxruntime")
    job = prepared.job
    if bundle.spec.classes != job.classes:
        return None
    # the labels are the dataset's, and so is what is ignored in them
    terms = bundle.manifest.model_copy(update={"ignore_index": job.ignore_index})
    return measure(bundle, terms, job.val, job.read)[0]
