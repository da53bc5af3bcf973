"""What is timed by which candidates are judged."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from delineate.engines.timing import Timing
from delineate.planning import measure
from delineate.planning.choice import Budget

MS = {"fast": 5.0, "near": 38.0, "slow": 50.0}


def asked_for(monkeypatch: pytest.MonkeyPatch, calls: int) -> tuple[list[set[str]], dict[str, int]]:
    """What is timed in each go, and how many calls each has in the end."""
    asked: list[set[str]] = []

    def time_calls(names: Mapping[str, Callable[[], object]], **_: Any) -> dict[str, Timing]:
        asked.append(set(names))
        rounds = (np.full(calls // 2, 1.0), np.full(calls - calls // 2, 1.0))
        return {n: Timing(MS[n], True, tuple(MS[n] * each for each in rounds)) for n in names}

    monkeypatch.setattr(measure, "time_calls", time_calls)
    found = measure._judged(dict.fromkeys(MS, lambda: None), Budget(40.0), 10.0)
    return asked, {name: len(timing.calls_ms) for name, timing in found.items()}


def test_what_would_just_fit_is_timed_until_its_p95_has_an_interval(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked, calls = asked_for(monkeypatch, 40)
    assert asked == [set(MS), {"near"}]
    assert calls == {"fast": 40, "near": 80, "slow": 40}


def test_enough_calls_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked_for(monkeypatch, 72) == ([set(MS)], dict.fromkeys(MS, 72))
