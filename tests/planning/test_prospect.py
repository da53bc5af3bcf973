"""Which contenders get one of the few places for timing at length."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from delineate.config import ModelSettings, Normalisation, Plan
from delineate.planning import prospect
from delineate.planning.choice import Budget, Row
from delineate.planning.contender import NetworkKind
from delineate.planning.fingerprint import Fingerprint
from delineate.planning.prospect import prospects, step_seconds, worth_timing

Make = Callable[..., Row]
ANY = Budget(1000.0)
KIND = NetworkKind(
    3, "uint8", ("a", "b", "c"), "multiclass", Normalisation(mean=(120.0,) * 3, std=(60.0,) * 3)
)
SHORT = Plan(model=ModelSettings(architecture="fast-scnn"), batch_size=2, crop_px=64)


def names(rows: list[Row], budget_ms: float, most: int) -> tuple[set[str], set[str]]:
    kept, left_out = worth_timing(rows, budget_ms, most)
    return {one.contender.label for one in kept}, {one.name for one in left_out}


def test_all_have_a_place_where_they_are_few(make_row: Make) -> None:
    rows = [make_row("a", 50, None, ANY), make_row("b", 10, 0.1, ANY)]
    assert worth_timing(rows, 20.0, most=2) == (rows, [])


def test_the_most_accurate_and_the_fastest(make_row: Make) -> None:
    rows = [make_row(f"{i}", 10 + i, i / 10, ANY) for i in range(6)]
    assert names(rows, 100.0, most=3) == ({"0", "4", "5"}, {"1", "2", "3"})


def test_half_of_the_places_are_for_those_that_fitted(make_row: Make) -> None:
    slow = [make_row(f"slow {i}", 24, 0.9, ANY) for i in range(5)]
    fast = [make_row(f"fast {i}", 10 - i, 0.5 - i / 100, ANY) for i in range(5)]
    kept, left_out = names([*slow, *fast], 20.0, most=4)
    assert kept == {"fast 4", "fast 0", "fast 1", "slow 0"}
    assert left_out == {"fast 2", "fast 3", "slow 1", "slow 2", "slow 3", "slow 4"}


def test_int8_stands_behind_a_float_as_accurate(make_row: Make) -> None:
    rows = [
        make_row("a", 5, 0.5, ANY, precision="int8"),
        make_row("b", 9, 0.5, ANY),
        make_row("c", 4, 0.1, ANY),
    ]
    assert names(rows, 10.0, most=2) == ({"b", "c"}, {"a, int8"})


def test_a_network_is_trained_for_one_step_whatever_its_precisions(
    make_row: Make,
    make_fingerprint: Callable[..., Fingerprint],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []

    def step(model: ModelSettings, _: Plan, **__: object) -> float | None:
        asked.append(model.architecture)
        return None if model.architecture == "unet" else 0.5

    monkeypatch.setattr(prospect, "step_seconds", step)
    rows = [
        make_row("small", 5, 0.5, ANY),
        make_row("small", 3, 0.5, ANY, precision="int8"),
        make_row("huge", 9, 0.5, ANY),
    ]
    contenders = [row.contender for row in rows]
    huge = replace(contenders[2].candidate, model=ModelSettings(architecture="unet"))
    contenders[2] = replace(contenders[2], candidate=huge)
    plan = Plan(batch_size=16, crop_px=128)
    found = prospects(
        contenders, KIND, make_fingerprint(), plan=plan, train_s=100.0, tell=lambda _: None
    )
    assert asked == ["fast-scnn", "unet"]
    # 85 s of steps of half a second, each with 16 crops of a quarter of 256 x 256 px
    assert [one.crops for one in found] == [680.0, 680.0, None]
    assert [one.step_s for one in found] == [0.5, 0.5, None]
    assert found[0].miou == pytest.approx(found[1].miou + prospect.INT8_LOSES)
    assert found[2].miou == -1.0


@pytest.mark.parametrize("precision", ["32", "bf16"])
def test_a_step_is_timed_in_the_precision_of_the_training(
    monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    seen: list[torch.dtype] = []
    build = prospect.build

    def watched(*arguments: object, **named: object) -> torch.nn.Module:
        network = build(*arguments, **named)  # type: ignore[arg-type]
        network.register_forward_hook(lambda _m, _i, out: seen.append(out.dtype))
        return network

    monkeypatch.setattr(prospect, "build", watched)
    plan = SHORT.model_copy(update={"precision": precision})
    seconds = step_seconds(SHORT.model, plan, channels=3, classes=3, task="multiclass")
    assert seconds is not None
    assert seconds > 0
    assert set(seen) == {torch.float32 if precision == "32" else torch.bfloat16}


def test_a_step_that_the_memory_does_not_hold(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: object, **__: object) -> None:
        raise RuntimeError("not enough memory")

    monkeypatch.setattr(torch.Tensor, "backward", full)
    assert step_seconds(SHORT.model, SHORT, channels=3, classes=3, task="multiclass") is None
