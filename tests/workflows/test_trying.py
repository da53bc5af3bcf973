"""Successive halving: who is trained for how long, who goes on, and what is not done twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from delineate.config import Duration, ModelSettings, Plan
from delineate.data.dataset import Dataset
from delineate.errors import DatasetError, OutputError, RefusedError, SettingsError
from delineate.planning.choice import Budget, Row, by_expectation
from delineate.workflows import trying
from delineate.workflows.plan import Planned, PlanSettings, plan
from delineate.workflows.resuming import with_true_encoder
from delineate.workflows.train import TrainSettings
from delineate.workflows.trying import Trial, agreed, rounds, shares, try_out

pytestmark = pytest.mark.usefixtures("export_once", "quick_timing")

FAST = ModelSettings(architecture="fast-scnn")
HALF = ModelSettings(architecture="fast-scnn", downscale=2)
EASY = Budget(10_000.0)
QUICK = PlanSettings(engine="onnxruntime", threads=1, models=(FAST,), limit_s=60.0)


TWO = replace(QUICK, models=(FAST, HALF), tries=3, tried_for=Duration(steps=1))


def test_the_better_half_goes_on() -> None:
    assert rounds(2) == (2,)
    assert rounds(3) == (3, 2)
    assert rounds(5) == (5, 3, 2)
    assert rounds(8) == (8, 4, 2)


@pytest.mark.parametrize("candidates", [2, 3, 4, 7])
def test_the_time_is_used_up_and_no_more(candidates: int) -> None:
    found = shares(Duration(budget_s=7200.0), candidates)
    used = sum(
        (one.budget_s or 0.0) * count for one, count in zip(found, rounds(candidates), strict=True)
    )
    assert used == pytest.approx(7200.0)
    assert [one.budget_s for one in found] == sorted(one.budget_s or 0.0 for one in found)


def test_steps_double_from_round_to_round() -> None:
    assert [one.steps for one in shares(Duration(steps=100), 5)] == [25, 50, 100]


def test_too_little_time() -> None:
    with pytest.raises(SettingsError, match="4 candidates would have 15 s each") as caught:
        shares(Duration(budget_s=120.0), 4)
    assert caught.value.mend == "Give 8m or more, or try fewer."
    assert shares(Duration(budget_s=480.0), 4)[0].budget_s == 60.0


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory, make_dataset: Callable[..., Path]) -> Path:
    return make_dataset(tmp_path_factory.mktemp("data") / "data")


def named(row: Row, name: str) -> Row:
    one = row.contender
    return replace(row, contender=replace(one, candidate=replace(one.candidate, name=name)))


class Trainings:
    """Stands for :func:`train`: notes who is trained, and writes a score by the folder's name."""

    def __init__(self, scores: dict[str, float | None], dies_at: str = "") -> None:
        self.scores, self.dies_at = scores, dies_at
        self.seen: list[tuple[str, bool]] = []

    def __call__(
        self, data: Dataset, run: Path, *, plan: Plan | None, settings: TrainSettings, **_: Any
    ) -> None:
        self.seen.append((run.name, settings.resume))
        run.mkdir(parents=True, exist_ok=True)
        if plan is not None:
            note = {
                "dataset_sha256": data.fingerprint(),
                "asked": {"plan": with_true_encoder(plan).model_dump(mode="json")},
                "duration": settings.duration.model_dump(),
            }
            (run / "run.json").write_text(json.dumps(note))
        if run.name == self.dies_at:
            raise KeyboardInterrupt
        score = self.scores[run.name[2:]]
        (run / "result.json").write_text(json.dumps({"validation": {"mean_iou": score}}))


@pytest.fixture(scope="module")
def planned(dataset: Path, quick_timing: None) -> Planned:
    """Two candidates, really timed; their trainings are stood for."""
    assert quick_timing is None
    trainings = Trainings({"fast-scnn": 0.3, "fast-scnn-at-1-2": 0.4})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trying, "train", trainings)
        return plan(dataset, EASY, out=dataset.parent / "plan.yaml", settings=TWO)


@pytest.fixture(scope="module")
def row(planned: Planned) -> Row:
    return planned.rows[0]


def tried(
    row: Row, dataset: Path, folder: Path, trainings: Trainings, seed: int = 0
) -> tuple[Row, tuple[trying.Tried, ...]]:
    data = Dataset.open(dataset)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trying, "train", trainings)
        return try_out(
            [named(row, name) for name in ("a", "b", "c", "d")],
            data,
            lambda _: _plan(seed),
            folder,
            Duration(steps=8),
            tell=lambda _: None,
        )


def _plan(seed: int) -> Plan:
    return Plan(model=FAST, seed=seed)


def test_the_best_of_each_round_are_trained_for_longer(
    row: Row, dataset: Path, tmp_path: Path
) -> None:
    trainings = Trainings({"a": 0.2, "b": None, "c": 0.5, "d": 0.4})
    won, found = tried(row, dataset, tmp_path, trainings)
    assert won.contender.candidate.name == "c"
    assert [name for name, _ in trainings.seen] == ["1-a", "1-b", "1-c", "1-d", "2-c", "2-d"]
    assert [(one.name, one.round, one.duration.steps) for one in found][-2:] == [
        ("c", 2, 8),
        ("d", 2, 8),
    ]
    assert json.loads(json.dumps([one.to_dict() for one in found]))[1]["miou"] is None


def test_what_was_done_is_not_done_again(row: Row, dataset: Path, tmp_path: Path) -> None:
    scores = {"a": 0.2, "b": 0.1, "c": 0.5, "d": 0.4}
    with pytest.raises(KeyboardInterrupt):
        tried(row, dataset, tmp_path, Trainings(scores, dies_at="1-c"))
    trainings = Trainings(scores)
    won, found = tried(row, dataset, tmp_path, trainings)
    assert trainings.seen == [("1-c", True), ("1-d", False), ("2-c", False), ("2-d", False)]
    assert won.contender.candidate.name == "c"
    assert [one.resumed for one in found] == [True, True, False, False, False, False]


def test_runs_of_another_plan_are_trained_anew(row: Row, dataset: Path, tmp_path: Path) -> None:
    scores = {"a": 0.2, "b": 0.1, "c": 0.5, "d": 0.4}
    tried(row, dataset, tmp_path, Trainings(scores))
    trainings = Trainings(scores)
    tried(row, dataset, tmp_path, trainings, seed=1)
    assert len(trainings.seen) == 6
    assert not any(resumed for _, resumed in trainings.seen)


def test_the_one_that_reaches_the_most_is_chosen(planned: Planned) -> None:
    assert {one.name: one.miou for one in planned.tried} == {
        "Fast-SCNN": 0.3,
        "Fast-SCNN at 1/2": 0.4,
    }
    assert planned.choice.row is not None
    assert planned.choice.row.contender.candidate.model.downscale == 2
    assert "ms are allowed for the network alone" in planned.choice.why[0]
    assert planned.choice.why[1].startswith("Of 2 candidates that were trained on this dataset")
    assert planned.ruled.plan.model.downscale == 2
    page = planned.files["page"].read_text()
    assert "Tried" in page
    assert "1 steps" in page


@pytest.mark.long
def test_two_are_really_trained(dataset: Path, tmp_path: Path) -> None:
    found = plan(dataset, EASY, out=tmp_path / "plan.yaml", settings=TWO)
    assert len(found.tried) == 2
    assert all(0 <= one.miou <= 1 for one in found.tried)
    result = tmp_path / "plan-tries" / "1-fast-scnn" / "result.json"
    assert result.exists()
    before = result.stat().st_mtime_ns
    again = plan(dataset, EASY, out=tmp_path / "plan.yaml", force=True, settings=TWO)
    assert all(one.resumed for one in again.tried)
    assert result.stat().st_mtime_ns == before


def test_what_was_begun_is_finished_whatever_fits_now(row: Row, tmp_path: Path) -> None:
    first, second = named(row, "first"), named(row, "second")
    asked = Trial(tmp_path / "tries", 2, Duration(steps=4))
    assert agreed([first, second], asked, "hash") == [first, second]
    slow = replace(second, reasons=("slower today",))
    third = named(row, "third")
    assert agreed([third, slow, first], asked, "hash") == [first, slow]
    other = replace(asked, total=Duration(steps=5))
    with pytest.raises(OutputError, match="tried on another dataset, for another time"):
        agreed([first, second], other, "hash")
    with pytest.raises(OutputError):
        agreed([first, second], asked, "another hash")
    begun_anew = replace(other, force=True)
    assert agreed([third, slow, first], begun_anew, "hash") == [third, first]
    (tmp_path / "tries" / "tries.json").write_text("{")
    with pytest.raises(OutputError):
        agreed([first, second], other, "hash")


def test_names_that_differ_in_a_sign_have_folders_of_their_own() -> None:
    assert trying._words("U-Net++ resnet34") == "u-net-plus-plus-resnet34"
    assert trying._words("U-Net resnet34 at 1/2") == "u-net-resnet34-at-1-2"


def test_one_that_cannot_be_trained_is_the_last(row: Row, dataset: Path, tmp_path: Path) -> None:
    class Refusing(Trainings):
        def __call__(self, data: Dataset, run: Path, **more: Any) -> None:
            if run.name in ("1-a", "1-d"):
                raise RefusedError("the loss is no number")
            super().__call__(data, run, **more)

    won, found = tried(row, dataset, tmp_path, Refusing({"b": 0.1, "c": 0.3}))
    assert won.contender.candidate.name == "c"
    assert found[0].failed == "the loss is no number."
    assert json.loads(json.dumps(found[0].to_dict()))["failed"] == "the loss is no number."

    class Never(Trainings):
        def __call__(self, *_: Any, **__: Any) -> None:
            raise RefusedError("no memory")

    with pytest.raises(RefusedError, match="none of the candidates of round 2 could be trained"):
        tried(row, dataset, tmp_path / "never", Never({}))


def test_one_that_fits_is_not_trained(dataset: Path, tmp_path: Path) -> None:
    settings = replace(QUICK, tries=2, tried_for=Duration(steps=1))
    found = plan(dataset, EASY, out=tmp_path / "plan.yaml", settings=settings)
    assert found.tried == ()
    assert found.choice.why[-1] == "Only one candidate fits, so there was nothing to try."


@pytest.mark.parametrize(
    ("tries", "duration"), [(1, Duration(steps=1)), (3, None), (0, Duration(steps=1))]
)
def test_trying_needs_a_number_and_a_time(
    dataset: Path, tmp_path: Path, tries: int, duration: Duration | None
) -> None:
    settings = replace(QUICK, tries=tries, tried_for=duration)
    told = "two or more of them, and a time" if tries else "is the time of --try"
    with pytest.raises(SettingsError, match=told):
        plan(dataset, EASY, out=tmp_path / "plan.yaml", settings=settings)
    with pytest.raises(SettingsError, match="need a place"):
        plan(dataset, EASY, settings=replace(QUICK, tries=2, tried_for=Duration(steps=1)))


def test_those_that_fit_by_what_is_expected(row: Row) -> None:
    slow = replace(named(row, "slow"), reasons=("too slow",))
    unknown = replace(named(row, "unknown"), expected=None)
    assert row.expected is not None
    good = replace(named(row, "good"), expected=replace(row.expected, miou=0.9))
    poor = replace(named(row, "poor"), expected=replace(row.expected, miou=0.1))
    found = by_expectation([slow, unknown, poor, good, good], 5)
    assert [one.contender.candidate.name for one in found] == ["good", "poor", "unknown"]
    assert len(by_expectation([poor, good], 1)) == 1


def test_trying_needs_a_val(tmp_path: Path, make_dataset: Callable[..., Path]) -> None:
    path = make_dataset(tmp_path / "data", val=0)
    settings = replace(QUICK, tries=2, tried_for=Duration(steps=1))
    with pytest.raises(DatasetError):
        plan(path, EASY, out=tmp_path / "plan.yaml", settings=settings)
