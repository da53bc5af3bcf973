from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delineate.cli.console import counting, emit, extra, parse_duration, plain_table, report_error
from delineate.errors import ImageError, MissingExtraError, SettingsError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("30m", 1800), ("1h30m", 5400), ("1h", 3600), ("0.5m", 30), (" 2H5S ", 7205)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@given(st.integers(0, 99), st.integers(0, 99), st.integers(0, 99))
def test_a_duration_is_the_sum_of_its_parts(hours: int, minutes: int, seconds: int) -> None:
    assert parse_duration(f"{hours}h{minutes}m{seconds}s") == hours * 3600 + minutes * 60 + seconds


@pytest.mark.parametrize("text", ["", " ", "30", "-5m", "5m1h", "soon", "1d", "nan", "1e3s", "٣s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_duration(text)
    assert str(caught.value) == (f"--budget: {text!r} is no duration. Write 90s, 30m or 1h30m.")


def test_an_error_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    error = ImageError("is [b]empty[/b]", where="a[1].png", mend="Fetch it again.")
    report_error(error, as_json=False)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "error: a[1].png: is [b]empty[/b]. Fetch it again.\n"


def test_an_error_for_machines(capsys: pytest.CaptureFixture[str]) -> None:
    report_error(ImageError("is empty", where="a.png"), as_json=True)
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {
        "error": {"kind": "ImageError", "found": "is empty", "where": "a.png", "mend": ""}
    }
    assert captured.err == "error: a.png: is empty.\n"


def test_names_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    def show(console: object) -> None:
        table = plain_table("image", "size")
        table.add_row("scan[a].png", "1 x 2")
        console.print(table)  # type: ignore[attr-defined]
        console.print("in /tmp/[red]/" + "long/" * 40)  # type: ignore[attr-defined]

    emit({}, as_json=False, show=show)
    out = capsys.readouterr().out
    assert "scan[a].png" in out
    assert "in /tmp/[red]/" + "long/" * 40 in out  # on one line


def test_a_missing_package_is_named_with_its_extra() -> None:
    with pytest.raises(MissingExtraError) as caught, extra("train"):
        raise ModuleNotFoundError("No module named 'torch.nn'", name="torch.nn")
    assert str(caught.value) == (
        "this needs torch, which is not installed. Install it with: pip install 'delineate[train]'"
    )


def test_a_mistake_of_our_own_is_no_missing_package() -> None:
    with pytest.raises(ImportError, match="cannot import"), extra("train"):
        raise ImportError("cannot import name", name="delineate.training.fit")


def test_progress_is_shown_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    with counting("reading", 3) as update:
        update(2)
    assert capsys.readouterr().out == ""
