from __future__ import annotations

from collections.abc import Callable

from delineate.planning.choice import Budget, Row, choose
from delineate.planning.contender import LeftOut
from delineate.planning.latency import TIME_OVER

Make = Callable[..., Row]
BUDGET = Budget(30.0)


def test_the_most_accurate_of_those_that_fit(make_row: Make) -> None:
    rows = [
        make_row("small", 5, 0.4, BUDGET),
        make_row("middle", 20, 0.5, BUDGET),
        make_row("large", 40, 0.7, BUDGET),
    ]
    choice = choose(rows, [], BUDGET)
    assert choice.row is rows[1]
    assert choice.why == (
        "middle takes 20.0 ms (at most 20.0 ms with 95 %) at p95; 30 ms are allowed for the "
        "network alone, from pixels to labels.",
        "Of the 2 that fit it is expected to be number 1 in accuracy (from a table).",
        "More accurate, and out of reach: large (p95 is 40.0 ms (at most 40.0 ms with 95 %)).",
    )


def test_of_near_equals_the_faster_one(make_row: Make) -> None:
    rows = [make_row("fast", 5, 0.495, BUDGET), make_row("slow", 20, 0.5, BUDGET)]
    choice = choose(rows, [], BUDGET)
    assert choice.row is rows[0]
    assert "As accurate, as far as can be told, and slower: slow." in choice.why


def test_a_large_network_under_a_short_training_is_not_better(make_row: Make) -> None:
    rows = [
        make_row("small", 5, 0.5, BUDGET, gigas=1.0, crops=4000),
        make_row("large", 20, 0.4, BUDGET, gigas=9.0, crops=500),
    ]
    choice = choose(rows, [], BUDGET)
    assert choice.row is rows[0]
    assert choice.why[-1] == (
        "large fits too and is larger, but is expected to be less accurate: the training is too "
        "short for it."
    )


def test_the_percentile_counts_and_not_the_median(make_row: Make) -> None:
    uneven = make_row("uneven", 5, 0.9, BUDGET, slowest_ms=60)
    steady = make_row("steady", 25, 0.5, BUDGET)
    assert uneven.reasons
    assert choose([uneven, steady], [], BUDGET).row is steady


def test_the_budget_may_cover_the_files(make_row: Make) -> None:
    whole = Budget(30.0, end_to_end=True)
    row = make_row("small", 20, 0.5, whole, whole_ms=31)
    choice = choose([row], [], whole)
    assert choice.row is None
    assert choice.why[0] == (
        "Nothing fits. The nearest is small: p95 is 31.0 ms (at most 31.0 ms with 95 %)."
    )


def test_what_would_fit_when_nothing_does(make_row: Make) -> None:
    budget = Budget(10.0, memory_bytes=50 * 2**20)
    rows = [
        make_row("small", 40, 0.5, budget, memory_mb=80),
        make_row("large", 90, 0.6, budget, memory_mb=300),
    ]
    assert choose(rows, [], budget).why == (
        "Nothing fits. The nearest is small: p95 is 40.0 ms (at most 40.0 ms with 95 %); takes "
        "80 MB.",
        "A budget of 44 ms would do.",
        "So would images with sides of 47% of these.",
        "A faster engine or device may do (--engine, --device), or more --threads.",
        "The least memory that any needs is 80 MB.",
    )


def test_without_any_row() -> None:
    choice = choose([], [LeftOut("small", "at least 99 ms, by its multiply-adds")], BUDGET)
    assert choice.row is None
    assert "at least 99 ms" in choice.why[0]


def test_what_there_was_no_time_for_is_told(make_row: Make) -> None:
    left_out = [LeftOut("middle", TIME_OVER), LeftOut("large", "at least 99 ms")]
    fits = [make_row("small", 5, 0.4, BUDGET)]
    told = "There was no time to look at 1 other: a longer --limit would."
    assert choose(fits, left_out, BUDGET).why[-1] == told
    assert told in choose([make_row("small", 50, 0.4, BUDGET)], left_out, BUDGET).why
    assert told not in choose(fits, left_out[1:], BUDGET).why


def test_without_any_knowledge_the_fastest(make_row: Make) -> None:
    rows = [
        make_row("a", 20, None, BUDGET),
        make_row("b", 5, None, BUDGET),
        make_row("b", 2, None, BUDGET, precision="int8"),
    ]
    choice = choose(rows, [], BUDGET)
    assert choice.row is rows[1]
    assert choice.why == ("Nothing is known of the accuracy of these; this is the fastest.",)


def test_int8_is_taken_where_no_float_is_as_accurate(make_row: Make) -> None:
    rows = [
        make_row("small", 20, 0.4, BUDGET),
        make_row("large", 60, 0.6, BUDGET),
        make_row("large", 25, 0.6, BUDGET, precision="int8"),
    ]
    choice = choose(rows, [], BUDGET)
    assert choice.row is rows[2]
    assert choice.why[1] == (
        "That is in int8: after the training, delineate compress adds it; where its gate refuses "
        "int8, the network does not fit."
    )


def test_of_near_equals_a_float_goes_before_int8(make_row: Make) -> None:
    rows = [
        make_row("large", 25, 0.6, BUDGET, precision="bfloat16"),
        make_row("large", 12, 0.6, BUDGET, precision="int8"),
    ]
    choice = choose(rows, [], BUDGET)
    assert choice.row is rows[0]
    assert choice.why[1] == "That is in bfloat16: after the training, delineate compress adds it."
    assert "slower" not in " ".join(choice.why)
