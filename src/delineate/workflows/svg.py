"""Bricks of plots as inline SVG: lines and words in the colour of the page's text."""

from __future__ import annotations

from delineate.evaluation.page import Html, escape


def line(x1: float, y1: float, x2: float, y2: float) -> Html:
    """A faint line of a grid; places in px."""
    return Html(
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="currentColor" '
        'stroke-opacity=".16"/>'
    )


def text(x: float, y: float, words: str, anchor: str, *, faint: bool = False) -> Html:
    """Words whose ``anchor`` (start, middle, end) is at a place in px."""
    shade = ' fill-opacity=".65"' if faint else ""
    return Html(
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{shade}>{escape(words)}</text>'
    )


def polyline(
    points: list[tuple[float, float]], colour: str, *, width: float = 1.8, opacity: float = 1.0
) -> Html:
    """A line through places in px."""
    places = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return Html(
        f'<polyline points="{places}" fill="none" stroke="{colour}" stroke-width="{width}" '
        f'stroke-opacity="{opacity}" stroke-linejoin="round"/>'
    )


def dot(x: float, y: float, colour: str, tip: str) -> Html:
    """A spot with its exact numbers as a tooltip."""
    return Html(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.2" fill="{colour}"><title>{escape(tip)}</title>'
        "</circle>"
    )
