"""What a run was asked for, which a resume keeps to, and what may change on the way."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from delineate.config import Duration, Plan, checked, flattened, load_yaml, with_changes
from delineate.errors import CheckpointError, SettingsError
from delineate.models.build import resolved
from delineate.training.teaching import Teaching
from delineate.workflows.find import FIND

NOTE = "run.json"
TRAINING = "a training"
# What a checkpoint does not depend on: a run that met a full memory or a loss that is no number
# goes on with other values. A resume that changes none of them ends with identical weights.
CHANGEABLE = frozenset(
    {
        "micro_batch",
        "precision",
        "patience",
        "checkpoint_s",
        "choose_postprocessing",
        "optimiser.learning_rate",
        "optimiser.gradient_clip",
        "tiling.tile_px",
        "tiling.overlap_px",
        "tiling.batch",
    }
)
# Fields that came after the first runs: with these values they change nothing, nor the hash
ADDED = {"normalisation": "dataset"}


@dataclass(frozen=True)
class Asked:
    """What a run was begun with, beside its dataset and its duration.

    Attributes:
        kind: ``a training``, ``a learning curve`` or ``a cross-validation in 5 folds``.
        plan: before a search for learning rate and batch size.
        name: of the bundle.
        canary: labelled validation images may go into the bundle.
        find: learning rate and batch size are searched for before the first step.
    """

    kind: str
    plan: Plan
    name: str
    canary: bool
    find: bool = False

    def to_dict(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "plan": self.plan.model_dump(mode="json"),
            "name": self.name,
            "canary": self.canary,
            "find": self.find,
        }


@dataclass(frozen=True)
class Resumed:
    """How a run goes on.

    Attributes:
        asked: what it keeps to, with what was changed now.
        plan: that it is trained by from here on.
        changes: of the plan, by dotted path; made now.
    """

    asked: Asked
    plan: Plan
    changes: dict[str, Any]


def read_note(run: Path) -> dict[str, Any]:
    """The content of ``RUN/run.json``; empty where there is none, or none that can be read."""
    try:
        found = json.loads((run / NOTE).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # killed before it was written, or damaged by a person
        return {}
    return found if isinstance(found, dict) else {}


def resume(
    out: Path,
    plan: Plan | None,
    changes: Mapping[str, Any],
    *,
    kind: str,
    name: str | None,
    canary: bool,
    find: bool,
) -> Resumed:
    """See that the run in ``out`` can go on with what it is asked for now.

    Args:
        out: the run's folder.
        plan, changes: as given now; the run's own plan where none is.
        kind: of the run, as in :class:`Asked`.
        name: of the bundle, or None for the one that it was begun with.
        canary: images may go into the bundle; where they might not before, they may not now.
        find: learning rate and batch size are searched for; a run that was begun so goes on so
            whether it is said again or not.

    Raises:
        SettingsError: there is no run, it is of another kind, what it was begun with was other
            than :data:`CHANGEABLE`, or it was begun without the search that is asked for now.
    """
    if not (out / "plan.yaml").exists():
        raise SettingsError("holds no run to resume", where=out, mend="Leave --resume out.")
    saved, note = load_yaml(out / "plan.yaml", Plan), read_note(out)
    asked = _asked(note, out, find) or Asked(kind, saved, name or "", canary, find)
    if asked.kind != kind:
        raise SettingsError(
            f"holds {asked.kind}, not {kind}",
            where=out,
            mend=f"Resume it as it was begun: {note.get('command') or 'without that option'}",
        )
    if name is not None and asked.name not in ("", name):
        raise SettingsError(
            f"the bundle of this run is named {asked.name}, not {name}",
            where=out,
            mend="Leave --name out, and rename the bundle when it is there.",
        )
    if find and not asked.find:
        raise SettingsError(
            "was begun without a search for learning rate and batch size",
            where=out,
            mend="Leave --find out, or train anew in another folder.",
        )
    wanted = with_true_encoder(with_changes(plan or asked.plan, changes, "the plan"))
    changed = _changed(asked.plan, wanted, out)
    if asked.find and not (out / FIND).exists():
        saved = asked.plan  # a search that was cut off begins again from the same plan
    # named now, it counts even where it is what was asked for before a search found another;
    # with --find it is the first command said again, and what was found counts
    now, values = flattened(saved.model_dump()), flattened(wanted.model_dump())
    named = set() if find else CHANGEABLE.intersection(changes)
    changed |= {field: values[field] for field in named if now.get(field) != values[field]}
    return Resumed(
        Asked(kind, wanted, asked.name, canary and asked.canary, asked.find),
        with_changes(saved, changed, out / "plan.yaml"),
        changed,
    )


def _asked(note: Mapping[str, Any], out: Path, find: bool) -> Asked | None:
    """What the note says; older ones know nothing of a search, so ``find`` is taken."""
    if "asked" not in note:
        return None
    found = note["asked"]
    plan = checked(Plan, found["plan"], out / NOTE)
    search = found.get("find", find)
    return Asked(found["kind"], plan, found["name"], found["canary"], search)


def _changed(before: Plan, wanted: Plan, out: Path) -> dict[str, Any]:
    """The fields of ``wanted`` that are new.

    Raises:
        SettingsError: one of them cannot change.
    """
    old, new = flattened(before.model_dump()), flattened(wanted.model_dump())
    changed = {name: value for name, value in new.items() if old.get(name) != value}
    fixed = sorted(changed.keys() - CHANGEABLE)
    if fixed:
        told = "; ".join(f"{name} was {old.get(name)} and is {new[name]}" for name in fixed)
        raise SettingsError(
            f"was started with another plan: {told}",
            where=out,
            mend="Leave these options out, or train anew in another folder.",
        )
    return changed


def refuse_other_dataset(out: Path, fingerprint: str) -> None:
    """Raise when the run in ``out`` was begun on other files.

    Raises:
        CheckpointError: that is so.
    """
    note = read_note(out)
    before = note.get("dataset_sha256", fingerprint)  # without a note the checkpoint's word counts
    if before != fingerprint:
        raise CheckpointError(
            f"was trained on {note.get('dataset')}, whose files were others: their hash was "
            f"{before[:12]} and is {fingerprint[:12]}",
            where=out,
            mend="Put the files back as they were, or train anew in another folder.",
        )


def with_true_encoder(plan: Plan) -> Plan:
    """The plan with the name of the encoder that is really built."""
    return plan.model_copy(update={"model": resolved(plan.model)})


def refuse_other_steps(out: Path, kind: str, duration: Duration) -> None:
    """Raise when several trainings, which are compared, would have different numbers of steps.

    Raises:
        SettingsError: that is so.
    """
    before = read_note(out).get("duration", {}).get("steps", duration.steps)
    if kind != TRAINING and before != duration.steps:
        told = "a budget of time" if before is None else f"--steps {before}"
        raise SettingsError(
            f"was begun with {told}, which all of its trainings share",
            where=out,
            mend=f"Go on with {told}, or begin anew in another folder.",
        )


def identity_of(plan: Plan, dataset_sha256: str, teaching: Teaching | None = None) -> str:
    """The hash by which a checkpoint is known: of dataset, teacher and what cannot change."""
    settings = flattened(plan.model_dump(mode="json"))
    fixed = {
        name: value
        for name, value in settings.items()
        if name not in CHANGEABLE and (name, value) not in ADDED.items()
    }
    own = hashlib.sha256(f"{json.dumps(fixed, sort_keys=True)}\n{dataset_sha256}".encode())
    if teaching is None:
        return own.hexdigest()
    mark = f"{own.hexdigest()} {teaching.sha256}{teaching.unlabelled_sha256}"
    return hashlib.sha256(mark.encode()).hexdigest()
