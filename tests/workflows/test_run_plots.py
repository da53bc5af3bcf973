from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from delineate.evaluation.page import Html
from delineate.training.history import HistoryRow
from delineate.workflows.run_plots import (
    Curve,
    class_table,
    curves_plot,
    smoothed,
    thinned,
    time_bar,
)

VALUES = st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=1000)


def words(html: Html) -> list[str]:
    return [text for text in ET.fromstring(html).itertext() if text.strip()]


def row(step: int, *iou: float | None) -> HistoryRow:
    classes = [
        {"name": f"<{i}>", "iou": value, "true_share": None if value is None else 0.25}
        for i, value in enumerate(iou)
    ]
    return HistoryRow(step, step * 6.0, {"mean_iou": 0.5, "classes": classes}, {}, 1.0)


def test_a_plot_names_curves_and_has_steps_and_minutes() -> None:
    points = [(0.0, 1.0), (100.0, 0.5)]
    html = curves_plot(
        "Loss & more",
        [Curve("<a>", "#123456", points), Curve("b", "#654321", points, faint=True)],
        x_name="step",
        minutes=[(50.0, 3.0), (100.0, 9.0)],
    )
    found = words(html)
    assert found[0] == "Loss & more"
    assert {"<a>", "b", "step", "min", "20", "1.2", "80", "6.6"} <= set(found)
    assert "<a> 0.5 at 100 step" in found


def test_what_is_empty_is_left_out() -> None:
    assert curves_plot("Loss", [Curve("a", "red", [])], x_name="step") == ""


@pytest.mark.parametrize("value", [0.0, 1e-9, 1e9])
def test_one_point_makes_a_plot(value: float) -> None:
    html = curves_plot("Loss", [Curve("a", "red", [(0.0, value)])], x_name="step")
    assert ET.fromstring(html).find(".//circle") is not None


def test_values_far_off_do_not_flatten_the_rest() -> None:
    points = [(float(x), 1e6 if x == 0 else 1.0) for x in range(200)]
    found = words(curves_plot("Loss", [Curve("a", "red", points)], x_name="step"))
    assert found[0] == "Loss, drawn up to 1.05"


@settings(max_examples=40, deadline=None)
@given(values=VALUES)
def test_thinned_curves_are_short_and_keep_the_last_point(values: list[float]) -> None:
    points = [(float(x), y) for x, y in enumerate(values)]
    found = thinned(points)
    assert len(found) <= 300
    assert found[-1] == points[-1]
    assert [x for x, _ in found] == sorted(x for x, _ in found)


@settings(max_examples=40, deadline=None)
@given(values=VALUES)
def test_smoothed_values_stay_within_the_values(values: list[float]) -> None:
    found = smoothed([(float(x), y) for x, y in enumerate(values)])
    assert found[0] == pytest.approx((0.0, values[0]))
    assert all(min(values) - 1e-6 <= y <= max(values) + 1e-6 for _, y in found)


def test_a_constant_stays_what_it_is() -> None:
    found = smoothed([(float(x), 3.0) for x in range(50)])
    assert [y for _, y in found] == pytest.approx([3.0] * 50)


def test_the_table_marks_the_best_and_dashes_what_is_undefined() -> None:
    history = [row(10, 0.25, None), row(20, 0.75, None), row(30, 0.5, None)]
    html = class_table(history, {"<0>": (1, 2, 3)})
    root = ET.fromstring(html)
    body = root.findall("./tbody/tr")
    assert [cell.get("class") for cell in body[0].findall("td")] == [None, "top", None, "edge"]
    assert [cell.get("style") for cell in body[0].findall("td")][:2] == ["--v:0.250", "--v:0.750"]
    assert ["".join(cell.itertext()) for cell in body[1].findall("td")] == ["–"] * 4
    assert "<0>" in "".join(body[0].itertext())
    assert html.count("rgb(1,2,3)") == 1


def test_the_table_has_twelve_validations_at_most() -> None:
    html = class_table([row(step, 0.5) for step in range(1, 101)], {})
    steps = ["".join(cell.itertext()) for cell in ET.fromstring(html).findall("./thead/tr/th")]
    assert (steps[1], steps[12], len(steps)) == ("1", "100", 14 + 14)


def test_the_bar_names_every_part() -> None:
    html = time_bar({"other": 1.0, "step": 7.0, "wait": 0.0, "moon": 2.0})
    found = words(Html(f"<div>{html}</div>"))
    assert found == [
        "forward, backward and update: 7.0 s, 70.0 %",
        "waiting for data: 0.0 s, 0.0 %",
        "reading the data at the start, and the rest: 1.0 s, 10.0 %",
        "moon: 2.0 s, 20.0 %",
    ]
    assert time_bar({}) == ""
