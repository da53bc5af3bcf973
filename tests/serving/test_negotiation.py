"""Accept headers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delineate.serving.negotiation import preferred

OFFERS = ("application/json", "image/png")


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        (None, "application/json"),
        ("", "application/json"),
        ("*/*", "application/json"),
        ("image/png", "image/png"),
        ("IMAGE/PNG", "image/png"),
        ("image/webp, image/*;q=0.3", "image/png"),
        ("application/json;q=0.2,image/png;q=0.3", "image/png"),
        ("image/png;q=0.3,*/*;q=0.2", "image/png"),
        ("image/png;q=0,*/*", "application/json"),
        ("application/json;q=0, image/png;q=0", None),
        ("application/json;charset=utf-8", "application/json"),
        ("text/html", None),
        ("image/png;q=high", None),
    ],
)
def test_the_highest_rank_wins(accept, chosen):
    assert preferred(accept, OFFERS) == chosen


@given(st.text("aipng/*;=q0.1, \0é"))
def test_any_header_gives_an_offer_or_none(accept):
    assert preferred(accept, OFFERS) in (*OFFERS, None)
