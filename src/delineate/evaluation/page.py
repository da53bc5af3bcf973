"""Bricks of a self-contained HTML page: no external file, readable offline, no foreign script.

Every text that goes in is escaped here or by :func:`escape`; a :class:`Html` is a string that has
been through that.
"""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NewType

import numpy as np
from jaxtyping import UInt8
from PIL import Image as PillowImage

from delineate.evaluation.style import STYLE

Html = NewType("Html", str)

# Below this width, pixels are shown as squares: a blurred enlargement hides what was labelled.
_PIXELATED_BELOW_PX = 200
_JPEG_QUALITY = 82


def escape(text: object) -> Html:
    """``str(text)`` with everything that HTML would interpret made harmless, quotes too."""
    return Html(html.escape(str(text), quote=True))


def join(parts: Iterable[str]) -> Html:
    """Parts that are HTML already, one after the other."""
    return Html("".join(parts))


def page(title: str, body: Html, subtitle: str = "") -> Html:
    """A whole document with ``title`` as its heading.

    The policy in its head forbids scripts and every address outside the file, so that the page
    stays harmless and offline whatever its texts are.
    """
    return _document(title, body, subtitle, "", Html(""))


def interactive_page(
    title: str, body: Html, subtitle: str, *, scripts: Sequence[str], nonce: str
) -> Html:
    """A whole document with scripts of its own at the end; no other can run or be fetched.

    Args:
        title, body, subtitle: as for :func:`page`.
        scripts: their text, in the order in which they run.
        nonce: a random word that only these scripts carry.
    """
    word = escape(nonce)
    tail = join(f'<script nonce="{word}">{script}</script>\n' for script in scripts)
    return _document(title, body, subtitle, f"; script-src 'nonce-{word}'", tail)


def _document(title: str, body: Html, subtitle: str, allowed: str, tail: Html) -> Html:
    below = f'<p class="subtitle">{escape(subtitle)}</p>' if subtitle else ""
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'{allowed}"
    return Html(
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<header><h1>{escape(title)}</h1>{below}</header>\n<main>\n{body}\n</main>\n"
        f"{tail}</body>\n</html>\n"
    )


def section(heading: str, body: Html, intro: Html | None = None) -> Html:
    """A part of the page with a heading, and a line about how to read it."""
    lead = "" if intro is None else f'<p class="intro">{intro}</p>'
    return Html(f"<section><h2>{escape(heading)}</h2>{lead}\n{body}</section>\n")


def picture(rgb: UInt8[np.ndarray, "h w 3"], alt: str) -> Html:
    """An ``<img>`` that carries its JPEG with it (full colour resolution: labels are thin)."""
    buffer = io.BytesIO()
    # Not optimize=True: Pillow then guesses the size of its buffer, and noisy images exceed it.
    PillowImage.fromarray(rgb).save(buffer, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    height, width = rgb.shape[:2]
    kind = ' class="tiny"' if width < _PIXELATED_BELOW_PX else ""
    return Html(
        f'<img{kind} src="data:image/jpeg;base64,{data}" alt="{escape(alt)}" '
        f'width="{width}" height="{height}">'
    )


def number(value: float, digits: int = 3) -> Html:
    """``value`` to ``digits``, or a dash for what is undefined."""
    if math.isnan(value):
        return Html('<span class="none" title="undefined">–</span>')
    return Html(f"{value:.{digits}f}")


def bar_cell(value: float, under: str = "") -> Html:
    """A table cell with a score of 0 to 1, ``under`` below it, and a bar of that length."""
    small = f'<span class="range">{escape(under)}</span>' if under else ""
    if math.isnan(value):
        return Html(f'<td class="num">{number(value)}{small}</td>')
    return Html(f'<td class="num bar" style="--v:{value:.4f}">{number(value)}{small}</td>')


def card(label: str, value: Html, note: str = "") -> Html:
    """One headline figure."""
    small = f'<span class="note">{escape(note)}</span>' if note else ""
    return Html(
        f'<div class="card"><span class="label">{escape(label)}</span>'
        f'<span class="value">{value}</span>{small}</div>'
    )


def swatch(colour: tuple[int, int, int]) -> Html:
    """A small square of a class colour."""
    red, green, blue = (int(c) for c in colour)
    return Html(f'<span class="swatch" style="background:rgb({red},{green},{blue})"></span>')


def scroll(body: Html, label: str) -> Html:
    """A box that scrolls sideways by itself, with the keyboard as well, where it is too narrow."""
    return Html(
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(label)}">{body}</div>'
    )


def facts(rows: Mapping[str, object]) -> Html:
    """Names and values; a value that is a mapping becomes ``name value, name value``."""
    return join(
        ['<dl class="facts">']
        + [f"<div><dt>{escape(k)}</dt><dd>{escape(_flat(v))}</dd></div>" for k, v in rows.items()]
        + ["</dl>"]
    )


def _flat(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {inner}" for key, inner in value.items())
    return str(value)
