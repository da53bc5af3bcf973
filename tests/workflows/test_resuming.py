"""What a resumed run keeps to, and what it may change."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from delineate.config import Duration, Plan, dump_yaml, flattened, with_changes
from delineate.errors import SettingsError
from delineate.workflows.resuming import (
    CHANGEABLE,
    TRAINING,
    Asked,
    Resumed,
    identity_of,
    read_note,
    refuse_other_steps,
    resume,
)

ASKED = Plan(batch_size=4)
FOUND = with_changes(ASKED, {"batch_size": 16, "optimiser.learning_rate": 3e-3}, "--find")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run whose search has found another plan than it was begun with."""
    (tmp_path / "plan.yaml").write_text(dump_yaml(FOUND))
    note = {
        "command": "delineate train data -o first --find",
        "asked": Asked(TRAINING, ASKED, "first", canary=False, find=True).to_dict(),
    }
    (tmp_path / "run.json").write_text(json.dumps(note))
    (tmp_path / "find.json").write_text("{}")
    return tmp_path


def resumed(out: Path, plan: Plan | None = None, **options: Any) -> Resumed:
    usual: dict[str, Any] = {"kind": TRAINING, "name": None, "canary": True, "find": True}
    changes = options.pop("changes", {})
    return resume(out, plan, changes, **(usual | options))


def refused(out: Path, plan: Plan | None = None, **options: Any) -> str:
    with pytest.raises(SettingsError) as caught:
        resumed(out, plan, **options)
    return str(caught.value)


@pytest.mark.parametrize("plan", [None, ASKED])
@pytest.mark.parametrize("changes", [{}, {"batch_size": 4, "optimiser.learning_rate": 1e-3}])
def test_the_command_that_began_a_search_goes_on_with_what_it_found(
    run: Path, plan: Plan | None, changes: dict[str, Any]
) -> None:
    found = resumed(run, plan, changes=changes)
    assert found.plan == FOUND
    assert found.changes == {}
    assert found.asked == Asked(TRAINING, ASKED, "first", canary=False, find=True)


def test_a_search_that_was_cut_off_begins_again(run: Path) -> None:
    (run / "find.json").unlink()
    assert resumed(run).plan == ASKED
    assert resumed(run, find=False).plan == ASKED
    assert resumed(run, find=False).asked.find


def test_a_search_is_not_begun_in_the_middle(tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text(dump_yaml(ASKED))
    asked = Asked(TRAINING, ASKED, "first", canary=False)
    (tmp_path / "run.json").write_text(json.dumps({"asked": asked.to_dict()}))
    assert refused(tmp_path) == (
        f"{tmp_path}: was begun without a search for learning rate and batch size. Leave --find "
        "out, or train anew in another folder."
    )


def test_a_rate_that_is_named_counts_though_it_was_asked_for_before(run: Path) -> None:
    changes = {"optimiser.learning_rate": ASKED.optimiser.learning_rate}
    found = resumed(run, changes=changes, find=False)
    assert found.plan.optimiser.learning_rate == ASKED.optimiser.learning_rate
    assert found.plan.batch_size == FOUND.batch_size
    assert found.changes == changes


@pytest.mark.parametrize(
    ("before", "now", "told"),
    [
        (Duration(steps=9), Duration(steps=10), "--steps 9"),
        (Duration(steps=9), Duration(budget_s=60), "--steps 9"),
        (Duration(budget_s=60), Duration(steps=9), "a budget of time"),
    ],
)
def test_trainings_that_are_compared_keep_to_their_steps(
    tmp_path: Path, before: Duration, now: Duration, told: str
) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"duration": before.model_dump()}))
    with pytest.raises(SettingsError) as caught:
        refuse_other_steps(tmp_path, "a learning curve", now)
    assert str(caught.value) == (
        f"{tmp_path}: was begun with {told}, which all of its trainings share. Go on with {told}, "
        "or begin anew in another folder."
    )
    refuse_other_steps(tmp_path, TRAINING, now)
    refuse_other_steps(tmp_path, "a learning curve", before)


def test_what_may_change(run: Path) -> None:
    changes = {"optimiser.learning_rate": 1e-4, "micro_batch": 2, "precision": "32"}
    found = resumed(run, changes=changes)
    assert found.changes == changes
    assert found.plan == with_changes(FOUND, changes, "")
    assert found.asked.plan == with_changes(ASKED, changes, "")


def test_what_may_not_change(run: Path) -> None:
    changes = {"seed": 3, "crop_px": 64, "optimiser.learning_rate": 1e-4}
    assert refused(run, changes=changes) == (
        f"{run}: was started with another plan: crop_px was 256 and is 64; seed was 0 and is 3. "
        "Leave these options out, or train anew in another folder."
    )


def test_a_run_of_another_kind(run: Path) -> None:
    assert refused(run, kind="a cross-validation in 5 folds") == (
        f"{run}: holds a training, not a cross-validation in 5 folds. Resume it as it was begun: "
        "delineate train data -o first --find"
    )


def test_another_name(run: Path) -> None:
    assert refused(run, name="second") == (
        f"{run}: the bundle of this run is named first, not second. "
        "Leave --name out, and rename the bundle when it is there."
    )
    assert resumed(run, name="first").asked.name == "first"


@pytest.mark.parametrize("text", [None, "", "{", "[1]"])
def test_a_note_that_was_not_written(run: Path, text: str | None) -> None:
    (run / "run.json").unlink()
    if text is not None:
        (run / "run.json").write_text(text)
    assert read_note(run) == {}
    found = resumed(run, name="second", find=False)
    assert found == Resumed(Asked(TRAINING, FOUND, "second", canary=True), FOUND, {})


def test_a_checkpoint_depends_on_the_dataset_and_on_what_cannot_change() -> None:
    usual = identity_of(ASKED, "hash")
    assert identity_of(ASKED, "another") != usual
    assert identity_of(with_changes(ASKED, {"batch_size": 8}, ""), "hash") != usual
    other = {
        "micro_batch": 1,
        "precision": "32",
        "patience": 3,
        "checkpoint_s": 1.0,
        "choose_postprocessing": False,
        "optimiser.learning_rate": 1.0,
        "optimiser.gradient_clip": 9.0,
        "tiling.tile_px": 64,
        "tiling.overlap_px": 8,
        "tiling.batch": 4,
    }
    assert other.keys() == CHANGEABLE
    assert identity_of(with_changes(ASKED, other, ""), "hash") == usual


def test_a_field_that_came_later_leaves_old_checkpoints_as_they_are() -> None:
    plan = Plan()
    settings = flattened(plan.model_dump(mode="json"))
    before = {k: v for k, v in settings.items() if k not in {*CHANGEABLE, "normalisation"}}
    text = f"{json.dumps(before, sort_keys=True)}\nhash"
    assert identity_of(plan, "hash") == hashlib.sha256(text.encode()).hexdigest()
    by_image = plan.model_copy(update={"normalisation": "image"})
    assert identity_of(by_image, "hash") != identity_of(plan, "hash")
