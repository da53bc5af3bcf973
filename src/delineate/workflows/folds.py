"""``delineate train --folds K``: cross-validation, and its networks as one ensemble.

As nnU-Net does it (Isensee et al. 2021, doi:10.1038/s41592-020-01008-z): the images are divided
into K folds; K networks are trained, each on all folds but one, and scored on that one. So every
image is scored by a network that has not seen it, and the K networks together make the model that
is shipped.
"""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from delineate.config import Plan
from delineate.data.dataset import Dataset, Sample
from delineate.data.files import write_text
from delineate.errors import SettingsError
from delineate.evaluation.confusion import Confusion
from delineate.evaluation.details import Details
from delineate.evaluation.evaluate import Evaluation
from delineate.evaluation.intervals import ImageCounts, bootstrap
from delineate.evaluation.scores import Scores, compute_scores
from delineate.export import Exported
from delineate.release import HeldOut
from delineate.training.fit import EXPORT_S
from delineate.training.job import Event
from delineate.workflows.ensemble import export_ensemble
from delineate.workflows.folds_page import write_folds_page
from delineate.workflows.parts import Done, Part, refuse_short, train_parts
from delineate.workflows.subsets import class_presence, divide, pooled
from delineate.workflows.training_setup import Prepared, TrainSettings, prepare, started

FOLDS = "folds.json"
_KEPT = 6  # of the worst and of the best images


@dataclass(frozen=True)
class FoldsResult:
    """What a cross-validation found.

    Attributes:
        run: its folder.
        bundle: the ensemble's.
        evaluation: of every image by the network that has not seen it.
        done: the trainings, by fold.
        elapsed_s: seconds of the whole.
        exported: the ensemble's.
    """

    run: Path
    bundle: Path
    evaluation: Evaluation
    done: tuple[Done, ...]
    elapsed_s: float
    exported: Exported

    @property
    def scores(self) -> Scores:
        return self.evaluation.scores

    def to_dict(self) -> dict[str, Any]:
        return {
            "run": str(self.run),
            "bundle": str(self.bundle),
            "elapsed_s": round(self.elapsed_s, 2),
            "export": {
                "agreement": self.exported.agreement,
                "largest_difference_255ths": self.exported.difference,
            },
            "validation": self.scores.to_dict(),
            "intervals": _intervals(self.evaluation),
            "confusion": self.evaluation.confusion.counts.tolist(),
            "spread": spread([each.evaluation.scores for each in self.done]),
            "folds": [_fold_to_dict(each) for each in self.done],
        }


def _intervals(evaluation: Evaluation) -> Any:
    found = evaluation.details.intervals
    return None if found is None else found.to_dict()


def _fold_to_dict(done: Done) -> dict[str, Any]:
    val = done.part.data.split("val")
    groups = sorted({sample.group for sample in val if sample.group is not None})
    return {
        "run": done.part.folder,
        "bundle": f"{done.part.folder}/{done.bundle.name}",
        "images": len(val),
        "groups": groups,
        "names": [sample.name for sample in val],
        "steps": done.steps,
        "elapsed_s": round(done.elapsed_s, 2),
        "validation": done.evaluation.scores.to_dict(),
    }


def spread(scores: Sequence[Scores]) -> dict[str, Any]:
    """How the folds differ: mean, standard deviation, least and largest of mean IoU and Dice.

    Undefined scores are left out; a figure of which nothing is left is None. The standard
    deviation is that of a sample (divided by K - 1).
    """
    return {
        "mean_iou": _figures([each.mean_iou for each in scores]),
        "mean_dice": _figures([each.mean_dice for each in scores]),
    }


def _figures(values: list[float]) -> dict[str, float | None]:
    kept = [value for value in values if not math.isnan(value)]
    return {
        "mean": statistics.fmean(kept) if kept else None,
        "std": statistics.stdev(kept) if len(kept) > 1 else None,
        "min": min(kept, default=None),
        "max": max(kept, default=None),
    }


def train_folds(
    dataset: Path | str,
    out: Path | str,
    *,
    folds: int,
    plan: Plan | None = None,
    changes: Mapping[str, Any] | None = None,
    settings: TrainSettings,
    watch: Callable[[Event], None] | None = None,
) -> FoldsResult:
    """Cross-validate on train and val together, and export the networks as one ensemble.

    A budget is that of the whole; a number of steps is that of each fold. The bundle's scores are
    the cross-validated ones: the ensemble has seen every image, so its own would flatter.

    Args:
        dataset: a canonical dataset with train and val, or never split; test is left alone.
        out: folder of the whole; it holds ``fold-0`` and so on, the bundle, ``folds.json`` and
            ``report.html``.
        folds: how many, 2 or more.
        plan: the configuration of every fold; the usual one when left out.
        changes: single fields of the plan by dotted path.
        settings: how long, and how. With ``resume`` finished folds are kept, the others go on.
        watch: told about every fold, with the progress of the whole.

    Raises:
        DatasetError: no such dataset, or fewer groups (or images) than folds.
        SettingsError: ``folds`` is below 2, the plan does not fit, or the budget is over.
        DelineateError: what :func:`delineate.workflows.train.train` raises.
    """
    began = time.monotonic()
    if folds < 2:
        raise SettingsError(
            f"{folds} cannot be cross-validated", where="folds", mend="Use 2 or more; 5 is usual."
        )
    reserve_s = folds * EXPORT_S
    refuse_short(settings, parts=folds, reserve_s=reserve_s)
    data = pooled(Dataset.open(Path(dataset)))
    kind = f"a cross-validation in {folds} folds"
    prepared = prepare(data, Path(out), plan, changes, settings, kind=kind)
    parts = _parts(prepared, folds)
    with started(prepared, began) as clock:
        done = tuple(train_parts(parts, prepared, clock, reserve_s=reserve_s, watch=watch))
        evaluation = together([each.evaluation for each in done])
        held_out = HeldOut(evaluation, np.concatenate([each.summaries for each in done]))
        exported = export_ensemble(prepared, done, held_out, _notes(done))
        result = FoldsResult(
            prepared.job.run, prepared.bundle, evaluation, done, clock.elapsed_s(), exported
        )
        write_text(prepared.job.run / FOLDS, json.dumps(result.to_dict(), indent=2))
        write_folds_page(
            prepared.job.run / "report.html",
            title=f"{prepared.name}, {folds} folds",
            evaluation=evaluation,
            done=done,
            colours=data.colours,
        )
    return result


def _notes(done: Sequence[Done]) -> dict[str, Any]:
    return {
        "scores": f"cross-validated over {len(done)} folds: every image was scored by the one "
        "network that had not seen it; the ensemble itself has seen them all",
        "members": [each.part.folder for each in done],
        "calibration": "each member has its own temperature, fitted on the images it had not seen",
    }


def _parts(prepared: Prepared, folds: int) -> list[Part]:
    job, data = prepared.job, prepared.data
    samples = (*job.train, *job.val)
    found = divide(
        samples,
        folds,
        seed=job.plan.seed,
        presence=class_presence(samples, len(job.classes)),
        root=data.path,
    )
    return [
        Part(
            folder=f"fold-{k}",
            title=f"fold {k + 1} of {folds}",
            data=_without(data, samples, val),
            # each of its own would not be that of the ensemble, whose scores are those of the folds
            plan=job.plan.model_copy(update={"choose_postprocessing": False}),
        )
        for k, val in enumerate(found)
    ]


def _without(data: Dataset, samples: Sequence[Sample], val: tuple[Sample, ...]) -> Dataset:
    held_out = set(val)
    train = tuple(sample for sample in samples if sample not in held_out)
    return Dataset(data.path, data.info, {"train": train, "val": val})


def together(evaluations: Sequence[Evaluation]) -> Evaluation:
    """One evaluation of the images of several: their counts added up, not their scores averaged.

    Intervals are drawn anew from the counts of all images; other details are left out.

    Args:
        evaluations: one or more, of the same classes, on different images.
    """
    total = Confusion(evaluations[0].confusion.classes, evaluations[0].confusion.ignore_index)
    for each in evaluations:
        total.merge(each.confusion)
    rows = sorted(
        (row for each in evaluations for row in (*each.worst, *each.best)),
        key=lambda row: (row.mean_iou, row.sample.name),
    )
    half = min(_KEPT, math.ceil(len(rows) / 2))
    images = _all_images([each.details.images for each in evaluations])
    return Evaluation(
        confusion=total,
        scores=compute_scores(total),
        worst=tuple(rows[:half]),
        best=tuple(reversed(rows[half:][-_KEPT:])),
        n_images=sum(each.n_images for each in evaluations),
        n_unscored=sum(each.n_unscored for each in evaluations),
        seconds=sum(each.seconds for each in evaluations),
        predict_seconds=sum(each.predict_seconds for each in evaluations),
        wait_seconds=sum(each.wait_seconds for each in evaluations),
        details=Details(intervals=None if images is None else bootstrap(images), images=images),
    )


def _all_images(parts: Sequence[ImageCounts | None]) -> ImageCounts | None:
    counted = [part for part in parts if part is not None]
    if len(counted) < len(parts):
        return None
    first = counted[0]
    return ImageCounts(
        first.classes,
        first.ignore_index,
        tuple(name for part in counted for name in part.names),
        tuple(group for part in counted for group in part.groups),
        np.concatenate([part.counts for part in counted]),
    )
