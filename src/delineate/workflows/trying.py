"""``plan --try``: the best candidates are really trained, by successive halving.

Karnin et al. 2013 (Almost optimal exploration in multi-armed bandits): the time is shared evenly by
the rounds, and within a round by its candidates; the better half goes on. Each round trains from
new with a whole schedule, because the score of a schedule that was cut off says little.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from delineate.config import Duration, Plan, checked
from delineate.data.dataset import Dataset
from delineate.data.files import write_text
from delineate.errors import ModelError, OutputError, RefusedError, SettingsError
from delineate.evaluation.scores import none_if_nan
from delineate.planning.choice import (
    Budget,
    Choice,
    Row,
    by_expectation,
    still_to_do,
    takes,
)
from delineate.planning.fingerprint import Fingerprint
from delineate.planning.rules import ruled
from delineate.training.job import Event
from delineate.workflows.resuming import NOTE, read_note, with_true_encoder
from delineate.workflows.train import train
from delineate.workflows.training_setup import TrainSettings

TRIES = "tries.json"
LEAST_S = 60.0  # of a training; a shorter one says nothing


@dataclass(frozen=True)
class Trial:
    """What is to be tried.

    Attributes:
        folder: of the runs.
        tries: how many candidates, 2 or more.
        total: time of the whole; or steps of each training of the last round.
        force: throw away what was begun with something else.
    """

    folder: Path
    tries: int
    total: Duration
    force: bool = False


@dataclass(frozen=True)
class Tried:
    """One training of a candidate.

    Attributes:
        name: of the candidate.
        round: from 1.
        duration: that it had.
        miou: on val, 0 to 1.
        run: its folder.
        resumed: whether it was found done.
        failed: why it has no score, in words; empty where it has one.
    """

    name: str
    round: int
    duration: Duration
    miou: float
    run: Path
    resumed: bool
    failed: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "name": self.name,
            "round": self.round,
            "duration": self.duration.model_dump(mode="json", exclude_none=True),
            "miou": none_if_nan(self.miou),
            "run": str(self.run),
            "failed": self.failed or None,
        }


def rounds(candidates: int) -> tuple[int, ...]:
    """How many candidates each round has: ``(5, 3, 2)``; the last has two."""
    found = []
    while candidates > 1:
        found.append(candidates)
        candidates = math.ceil(candidates / 2)
    return tuple(found)


def shares(total: Duration, candidates: int) -> list[Duration]:
    """What each training of each round gets of the whole.

    Args:
        total: seconds of the whole; or steps, which each training of the last round has, and half
            as many in the round before.
        candidates: in the first round; 2 or more.

    Raises:
        SettingsError: a training would have less than a minute.
    """
    counts = rounds(candidates)
    if total.steps is not None:
        halvings = range(len(counts) - 1, -1, -1)
        return [Duration(steps=max(1, total.steps >> halving)) for halving in halvings]
    budget_s = total.budget_s or 0.0
    each_s = [budget_s / (len(counts) * count) for count in counts]
    if each_s[0] < LEAST_S:
        needed_s = LEAST_S * len(counts) * counts[0]
        raise SettingsError(
            f"{candidates} candidates would have {each_s[0]:.0f} s each",
            where="--budget",
            mend=f"Give {math.ceil(needed_s / 60)}m or more, or try fewer.",
        )
    return [Duration(budget_s=value) for value in each_s]


def after_trying(
    choice: Choice,
    rows: Sequence[Row],
    data: Dataset,
    print_: Fingerprint,
    budget: Budget,
    trial: Trial,
    *,
    tell: Callable[[str], None],
    watch: Callable[[Event], None] | None = None,
) -> tuple[Choice, tuple[Tried, ...]]:
    """Really train the best candidates, and choose the one that reaches the most.

    Args:
        choice: without a training.
        rows: candidates that were timed.
        data: with train and val.
        print_: of the dataset; gives the plan of each.
        budget: that has to be met.
        trial: how many, where and for how long.
        tell, watch: as for :func:`try_out`.

    Raises:
        OutputError: something else was begun in the folder.
        RefusedError: none of them could be trained.
    """
    best = agreed(rows, trial, data.fingerprint())
    if len(best) < 2:
        why = "Only one candidate fits, so there was nothing to try."
        return Choice(choice.row, (*choice.why, why)), ()
    won, tried = try_out(
        best,
        data,
        lambda row: ruled(print_, row.contender.candidate.model).plan,
        trial.folder,
        trial.total,
        tell=tell,
        watch=watch,
    )
    last = max(one.round for one in tried)
    reached = ", ".join(f"{one.name} {one.miou:.3f}" for one in tried if one.round == last)
    told = [
        takes(won, budget),
        *still_to_do(won),
        f"Of {len(best)} candidates that were trained on this dataset it reached the most on val "
        f"(last round: {reached}).",
    ]
    if choice.row is not None and choice.row is not won:
        told.append(f"Without a training {choice.row.name} would have been chosen.")
    return Choice(won, tuple(told)), tried


def agreed(rows: Sequence[Row], trial: Trial, dataset_sha256: str) -> list[Row]:
    """Whom to try: the most promising that fit, or those of an earlier call that was cut off.

    Latencies differ from call to call, and with them what fits; what was begun is finished.

    Args:
        rows: all candidates that were timed.
        trial: how many, and where; a note of what was begun is kept there.
        dataset_sha256: of the dataset.

    Raises:
        OutputError: something else was begun in the folder.
    """
    folder, note = trial.folder, trial.folder / TRIES
    asked = {
        "dataset_sha256": dataset_sha256,
        "total": trial.total.model_dump(mode="json"),
        "tries": trial.tries,
    }
    if note.exists():
        names = _begun(note, asked)
        known: dict[str, Row] = {}
        for row in sorted(rows, key=lambda row: len(row.reasons) > 0):  # what fits goes before
            known.setdefault(row.contender.candidate.name, row)
        if names is not None and all(name in known for name in names):
            return [known[name] for name in names]
        if not trial.force:
            raise OutputError(
                "holds candidates tried on another dataset, for another time, or that were not "
                "timed now",
                where=folder,
                mend="Name another --out, or begin anew with --force.",
            )
        shutil.rmtree(folder)
    chosen = by_expectation(rows, trial.tries)
    if len(chosen) > 1:
        folder.mkdir(parents=True, exist_ok=True)
        candidates = [row.contender.candidate.name for row in chosen]
        write_text(note, json.dumps({"asked": asked, "candidates": candidates}, indent=2))
    return chosen


def _begun(note: Path, asked: Mapping[str, object]) -> list[str] | None:
    """The candidates of a call that asked for the same."""
    try:
        document = json.loads(note.read_text(encoding="utf-8"))
        return list(document["candidates"]) if document["asked"] == asked else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def try_out(
    rows: Sequence[Row],
    data: Dataset,
    plan_of: Callable[[Row], Plan],
    folder: Path,
    total: Duration,
    *,
    tell: Callable[[str], None],
    watch: Callable[[Event], None] | None = None,
) -> tuple[Row, tuple[Tried, ...]]:
    """Train candidates and give the one that reaches the most on val.

    A training that was done in an earlier call is not done again; one that was cut off goes on.
    One that is refused, for want of memory or because its loss is no number, is the last.

    Args:
        rows: candidates, 2 or more.
        data: with train and val.
        plan_of: the plan of a candidate's training.
        folder: of the runs.
        total: for all of them; see :func:`shares`.
        tell: given a line for each training.
        watch: told about each of them.

    Raises:
        RefusedError: none of them could be trained.
        DelineateError: what :func:`delineate.workflows.train.train` raises of dataset and disk.
    """
    durations = shares(total, len(rows))
    left, done = list(rows), []
    for number, duration in enumerate(durations, 1):
        scores: dict[str, float] = {}
        for row in left:
            name = row.contender.candidate.name
            run = folder / f"{number}-{_words(name)}"
            tell(f"round {number} of {len(durations)}: training {name}")
            tried = _train(name, number, data, plan_of(row), run, duration, watch)
            tell(f"{name}: {tried.failed or f'{tried.miou:.4f} mIoU on val'}")
            done.append(tried)
            scores[name] = tried.miou
        left.sort(key=lambda row: -_known(scores[row.contender.candidate.name]))
        left = left[: math.ceil(len(left) / 2)]
    if math.isnan(done[-1].miou) and all(math.isnan(score) for score in scores.values()):
        reasons = "; ".join(f"{one.name}: {one.failed}" for one in done if one.failed)
        raise RefusedError(
            f"none of the candidates of round {number} could be trained ({reasons})",
            where=folder,
            mend="Give more time, or a smaller crop in a plan of your own.",
        )
    return left[0], tuple(done)


def _train(
    name: str,
    number: int,
    data: Dataset,
    plan: Plan,
    run: Path,
    duration: Duration,
    watch: Callable[[Event], None] | None,
) -> Tried:
    result = run / "result.json"
    same = _same(run, data, plan, duration)
    resumed = same and result.exists()
    if not resumed:
        settings = TrainSettings(duration, resume=same, force=not same, canary=False)
        try:
            train(data, run, plan=None if same else plan, settings=settings, watch=watch)
        except (RefusedError, ModelError, SettingsError) as error:
            return Tried(name, number, duration, math.nan, run, resumed, str(error))
    miou = json.loads(result.read_text(encoding="utf-8"))["validation"]["mean_iou"]
    return Tried(name, number, duration, math.nan if miou is None else miou, run, resumed)


def _same(run: Path, data: Dataset, plan: Plan, duration: Duration) -> bool:
    """Whether a run is there that was begun with this dataset, plan and duration."""
    note = read_note(run)
    try:
        begun = checked(Plan, note["asked"]["plan"], run / NOTE)
        then = (note["dataset_sha256"], begun, Duration(**note["duration"]))
    except (KeyError, TypeError, ValueError, SettingsError):
        return False
    return then == (data.fingerprint(), with_true_encoder(plan), duration)


def _known(miou: float) -> float:
    return -1.0 if math.isnan(miou) else miou


def _words(name: str) -> str:
    name = name.lower().replace("+", " plus ")
    return "-".join("".join(c if c.isalnum() else " " for c in name).split())
