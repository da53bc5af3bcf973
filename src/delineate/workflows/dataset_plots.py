"""Plots of a dataset's figures as inline SVG: no script, readable in light and dark.

Texts and axes have the colour of the page's text. Every plot has a title, its axes have names and
units, and marks carry their exact numbers as tooltips.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from delineate.data.palette import Colour, default_colours
from delineate.data.statistics import ChannelStatistics, Histogram, SizeCount
from delineate.evaluation.page import Html, escape, join

SERIES = ("#1f6feb", "#d9480f", "#2f9e44", "#9c36b5", "#868e96")
"""Colours of splits, told apart on light and dark paper."""

_RGB = ("#e03131", "#2f9e44", "#1f6feb")
_SHAPES = ("circle", "square", "diamond")
_WIDTH = 560.0
_FONT = 12
_LETTER_PX = 6.6  # of the page's font at this size, about
_LONGEST_NAME = 20
_TICKS = 6


@dataclass(frozen=True)
class Axis:
    """Values from ``low`` to ``high`` on pixels from ``start`` to ``end``."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        """The place of ``value``; what is outside lies on the end."""
        low, high = self._scaled(self.low), self._scaled(self.high)
        share = (self._scaled(max(value, self.low)) - low) / (high - low)
        return self.start + (self.end - self.start) * min(share, 1.0)

    def ticks(self) -> list[float]:
        """Round values within, at most seven or so."""
        if self.log:
            return self._decades()
        rough = (self.high - self.low) / _TICKS
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(s * power for s in (1.0, 2.0, 5.0, 10.0) if s * power >= rough * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        return [i * step for i in range(first, math.floor(self.high / step + 1e-9) + 1)]

    def _decades(self) -> list[float]:
        bottom, top = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        steps = (1, 2, 5) if top - bottom <= 2 else (1,)
        stride = max(1, (top - bottom) // _TICKS)
        found = [s * 10.0**p for p in range(bottom, top + 1, stride) for s in steps]
        return [tick for tick in found if self.low * 0.999 <= tick <= self.high * 1.001]

    def _scaled(self, value: float) -> float:
        return math.log10(value) if self.log else value


def share_dots(names: Sequence[str], splits: Sequence[tuple[str, Sequence[float]]]) -> Html:
    """The share of pixels of each class in each split, on a logarithmic axis.

    Args:
        names: of the classes.
        splits: the name of each and the share of each class, 0 to 1; 0 is drawn at the left.
    """
    shares = [share for _, values in splits for share in values if share > 0]
    low = 10.0 ** math.floor(math.log10(min(shares, default=0.1)) - 0.1)
    row, top, left = 22.0, 34.0, 16.0 + _LETTER_PX * min(_LONGEST_NAME, max(map(len, names)))
    height = top + row * len(names) + 42
    x = Axis(low, 1.0, left + 8, _WIDTH - 24, log=True)
    parts: list[str] = [
        _vertical_grid(x, top - 6, height - 42, _percent),
        _legend([s for s, _ in splits]),
    ]
    for index, name in enumerate(names):
        y = top + row * (index + 0.5)
        places = [x.at(values[index]) for _, values in splits]
        parts.append(
            f'<line x1="{min(places):.1f}" y1="{y:.1f}" x2="{max(places):.1f}" y2="{y:.1f}" '
            'stroke="currentColor" stroke-opacity=".35"/>'
        )
        parts.append(_text(left, y + 4, _short(name), "end", tip=name))
        for number, (split, values) in enumerate(splits):
            tip = f"{name}, {split}: {_percent(values[index])}"
            parts.append(_mark(places[number], y, number, tip, hollow=values[index] == 0))
    parts.append(_text((x.start + x.end) / 2, height - 6, "share of the pixels", "middle"))
    return plot("Share of each class, by split", join(parts), height)


def area_bars(histogram: Histogram, title: str, low: float, high: float, colour: Colour) -> Html:
    """How many objects have which area, on a logarithmic axis from ``low`` to ``high`` px."""
    height, left, bottom = 190.0, 66.0, 40.0
    x = Axis(low, high, left, _WIDTH - 24, log=True)
    y = Axis(0.0, float(max(histogram.counts)) * 1.05, height - bottom, 14.0)
    parts: list[str] = [
        _horizontal_grid(y, x, _count, whole=True),
        _ticks_below(x, height - bottom, _count),
    ]
    for index, count in enumerate(histogram.counts):
        start, end = histogram.edges[index], histogram.edges[index + 1]
        if count:
            tip = f"{start:,.0f} to {end - 1:,.0f} px: {count:,} objects"
            parts.append(_bar(x.at(start), x.at(end), y.at(float(count)), y.start, colour, tip))
    parts.append(_text((x.start + x.end) / 2, height - 6, "area, px", "middle"))
    parts.append(_turned(12.0, (y.start + y.end) / 2, "objects"))
    return plot(title, join(parts), height)


def size_bubbles(sizes: Sequence[SizeCount]) -> Html:
    """Width against height of images, both axes to one scale; the area of a spot is the number."""
    side, left, bottom = 360.0, 66.0, 44.0
    largest = max(max(size.width_px, size.height_px) for size in sizes) * 1.12
    x = Axis(0.0, largest, left, left + side)
    y = Axis(0.0, largest, 14.0 + side, 14.0)
    most = max(size.images for size in sizes)
    parts: list[str] = [_horizontal_grid(y, x, _count), _vertical_grid(x, y.end, y.start, _count)]
    for size in sizes:
        radius = 3.0 + 19.0 * math.sqrt(size.images / most)
        tip = f"{size.width_px} x {size.height_px} px: images {size.images:,}"
        parts.append(
            f'<circle cx="{x.at(float(size.width_px)):.1f}" cy="{y.at(float(size.height_px)):.1f}" '
            f'r="{radius:.1f}" fill="var(--bar)" fill-opacity=".5" stroke="var(--bar)">'
            f"<title>{escape(tip)}</title></circle>"
        )
    height = 14 + side + bottom
    parts.append(_text((x.start + x.end) / 2, height - 6, "width, px", "middle"))
    parts.append(_turned(12.0, (y.start + y.end) / 2, "height, px"))
    return plot("Image sizes", join(parts), height, width=left + side + 24)


def intensity_lines(channels: Sequence[ChannelStatistics], title: str) -> Html:
    """The distribution of the values of each channel; the foreground is dashed."""
    height, left, bottom, top = 230.0, 66.0, 42.0, 34.0
    low = min(channel.histogram.edges[0] for channel in channels)
    high = max(channel.histogram.edges[-1] for channel in channels)
    curves = [_curve(channel) for channel in channels]
    x = Axis(low, high, left, _WIDTH - 24)
    y = Axis(0.0, max(v for curve in curves for _, _, v in curve) * 1.05, height - bottom, top)
    parts: list[str] = [_horizontal_grid(y, x, _percent), _ticks_below(x, height - bottom, _plain)]
    count = 1 + max(channel.channel for channel in channels)
    for channel, curve in zip(channels, curves, strict=True):
        points = " ".join(
            f"{x.at(a):.1f},{y.at(v):.1f} {x.at(b):.1f},{y.at(v):.1f}" for a, b, v in curve
        )
        dash = ' stroke-dasharray="5 4"' if channel.region == "foreground" else ""
        parts.append(
            f'<polyline points="{points}" fill="none" stroke-width="1.6"{dash} '
            f'stroke="{_channel_colour(channel.channel, count)}">'
            f"<title>{_channel_name(channel.channel, count)}, {channel.region}</title></polyline>"
        )
    parts.append(_channel_legend(channels, count))
    parts.append(_text((x.start + x.end) / 2, height - 6, "pixel value", "middle"))
    parts.append(_turned(12.0, (y.start + y.end) / 2, "share of the pixels"))
    return plot(title, join(parts), height)


def plot(title: str, body: Html, height: float, width: float = _WIDTH) -> Html:
    """A figure with its heading and an SVG that fits its column."""
    return Html(
        f'<figure class="plot"><figcaption>{escape(title)}</figcaption>'
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" role="img" '
        f'aria-label="{escape(title)}" fill="currentColor" font-size="{_FONT}">{body}</svg>'
        "</figure>"
    )


def _curve(channel: ChannelStatistics) -> list[tuple[float, float, float]]:
    """(from, to, share of the pixels shown) of each bin."""
    edges, counts = channel.histogram.edges, channel.histogram.counts
    total = sum(counts)
    return [(edges[i], edges[i + 1], count / total) for i, count in enumerate(counts)]


def _channel_colour(channel: int, count: int) -> str:
    if count == 1:
        return "currentColor"
    if count == 3:
        return _RGB[channel]
    red, green, blue = default_colours(count, ("first",))[channel]
    return f"rgb({red},{green},{blue})"


def _channel_name(channel: int, count: int) -> str:
    return ("red", "green", "blue")[channel] if count == 3 else f"channel {channel}"


def _channel_legend(channels: Sequence[ChannelStatistics], count: int) -> Html:
    parts, left = [], 60.0
    for index in range(min(count, 4)):
        name = _channel_name(index, count) if count <= 4 else f"{count} channels"
        parts.append(_key(left, name, _channel_colour(index, count), dashed=False))
        left += 40 + _LETTER_PX * len(name)
        if count > 4:
            break
    if any(channel.region == "foreground" for channel in channels):
        parts.append(_key(left, "dashed: foreground", "currentColor", dashed=True))
    return join(parts)


def _key(left: float, name: str, colour: str, *, dashed: bool) -> Html:
    dash = ' stroke-dasharray="5 4"' if dashed else ""
    return Html(
        f'<line x1="{left:.1f}" y1="16" x2="{left + 18:.1f}" y2="16" stroke="{colour}" '
        f'stroke-width="2"{dash}/>{_text(left + 24, 20.0, name, "start")}'
    )


def _legend(names: Sequence[str]) -> Html:
    parts, left = [], 24.0
    for index, name in enumerate(names):
        parts.append(_mark(left, 12.0, index, name))
        parts.append(_text(left + 10, 16.0, name, "start"))
        left += 36 + _LETTER_PX * len(name)
    return join(parts)


def _mark(x: float, y: float, number: int, tip: str, *, hollow: bool = False) -> Html:
    """Splits differ in shape as well as in colour."""
    colour = SERIES[number % len(SERIES)]
    fill = "none" if hollow else colour
    title = f"<title>{escape(tip)}</title>"
    style = f'fill="{fill}" stroke="{colour}" stroke-width="1.5"'
    match _SHAPES[number % len(_SHAPES)]:
        case "circle":
            return Html(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" {style}>{title}</circle>')
        case "square":
            corner = f'x="{x - 4.5:.1f}" y="{y - 4.5:.1f}"'
            return Html(f'<rect {corner} width="9" height="9" {style}>{title}</rect>')
        case _:
            path = f"M{x:.1f} {y - 6:.1f}l6 6-6 6-6-6z"
            return Html(f'<path d="{path}" {style}>{title}</path>')


def _bar(left: float, right: float, top: float, bottom: float, colour: Colour, tip: str) -> Html:
    red, green, blue = colour
    return Html(
        f'<rect x="{left + 0.5:.1f}" y="{top:.1f}" width="{max(right - left - 1, 1):.1f}" '
        f'height="{bottom - top:.1f}" fill="rgb({red},{green},{blue})" stroke="currentColor" '
        f'stroke-opacity=".45"><title>{escape(tip)}</title></rect>'
    )


def _horizontal_grid(
    y: Axis, x: Axis, shown: Callable[[float], str], *, whole: bool = False
) -> Html:
    parts = []
    for tick in y.ticks():
        if whole and tick != round(tick):
            continue
        place = y.at(tick)
        parts.append(_line(x.start, place, x.end, place))
        parts.append(_text(x.start - 6, place + 4, shown(tick), "end"))
    return join(parts)


def _vertical_grid(x: Axis, top: float, bottom: float, shown: Callable[[float], str]) -> Html:
    lines = [_line(x.at(tick), top, x.at(tick), bottom) for tick in x.ticks()]
    return join([*lines, _ticks_below(x, bottom, shown)])


def _ticks_below(x: Axis, bottom: float, shown: Callable[[float], str]) -> Html:
    return join(_text(x.at(tick), bottom + 16, shown(tick), "middle") for tick in x.ticks())


def _line(x1: float, y1: float, x2: float, y2: float) -> Html:
    return Html(
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="currentColor" '
        'stroke-opacity=".16"/>'
    )


def _text(x: float, y: float, text: str, anchor: str, tip: str = "") -> Html:
    title = f"<title>{escape(tip)}</title>" if tip and tip != text else ""
    return Html(
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{title}{escape(text)}</text>'
    )


def _turned(x: float, y: float, text: str) -> Html:
    return Html(
        f'<text transform="translate({x:.1f} {y:.1f}) rotate(-90)" text-anchor="middle">'
        f"{escape(text)}</text>"
    )


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _count(value: float) -> str:
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= limit:
            divisor = 1e3 if letter == "k" else limit
            return f"{value / divisor:.3g}{letter}"
    return f"{value:.4g}"


def _plain(value: float) -> str:
    return f"{value:.4g}" if abs(value) < 1e5 else _count(value)
