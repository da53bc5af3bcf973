"""The page of a plan: the front of latency and expected accuracy, the table, the reasons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from delineate.evaluation.page import Html, card, escape, join, number, page, scroll, section
from delineate.workflows.dataset_plots import Axis, plot
from delineate.workflows.svg import dot, line, polyline, text

_WIDTH, _HEIGHT = 720.0, 380.0
_FITS, _TOO_SLOW, _CHOSEN = "#3b82f6", "#adb5bd", "#e8590c"

Rows = Sequence[Mapping[str, Any]]


def write_plan_page(document: Mapping[str, Any], dataset: str) -> str:
    """The page as text.

    Args:
        document: as :meth:`delineate.workflows.plan.Planned.to_dict` gives it.
        dataset: its name.
    """
    rows: Rows = document["candidates"]
    height, width = document["image_hw"]
    sentences = [*document["why"], *document["advice"]]
    words = join([f"<p>{escape(sentence)}</p>" for sentence in sentences])
    front = Html(
        "Each dot is a network with random weights on this machine. The upright line is the "
        "budget; expected accuracy gives an order, not a promise."
    )
    body = join(
        [
            _cards(document),
            section("Choice", words),
            section("Latency and expected accuracy", _front(document), front),
            section("Candidates", _table(rows, document["chosen"]), _table_intro(height, width)),
            _tried(document["tried"]),
            _refused(rows, document["left_out"]),
            _labels(document["fingerprint"]),
            _rules(document["reasons"]),
        ]
    )
    title = document["chosen"] or "nothing fits"
    return page(f"Plan for {dataset}", body, f"{title}, one image of {height} x {width} px")


def _cards(document: Mapping[str, Any]) -> Html:
    rows = {row["name"]: row for row in document["candidates"]}
    budget = document["budget"]
    cards = [card("p95 allowed", Html(f"{budget['p95_ms']:g} ms"), budget["means"])]
    chosen = rows.get(document["chosen"])
    if chosen is not None:
        cards += [
            card("p95 measured", _ms(chosen["network_p95_ms"]), "the network alone"),
            card("p95 end to end", _ms(chosen["end_to_end_p95_ms"]), "with decoding and encoding"),
            card("memory", Html(_megabytes(chosen["memory_bytes"])), "peak of a process"),
        ]
    return join(['<div class="cards">', *cards, "</div>"])


def _ms(value: float) -> Html:
    return Html(f"{value:.1f} ms")


def _megabytes(value: int | None) -> str:
    return "–" if value is None else f"{value / 2**20:,.0f} MB"


def _front(document: Mapping[str, Any]) -> Html:
    rows = [row for row in document["candidates"] if row["expected_miou"] is not None]
    if not rows:
        return Html("<p>Nothing is known of the accuracy of these networks.</p>")
    budget_ms = document["budget"]["p95_ms"]
    key = "end_to_end_p95_ms" if document["budget"]["end_to_end"] else "network_p95_ms"
    times = [row[key] for row in rows]
    scores = [row["expected_miou"] for row in rows]
    room = max(0.1 * (max(scores) - min(scores)), 0.01)
    x = Axis(0.0, 1.08 * max(*times, budget_ms), 60.0, _WIDTH - 30)
    y = Axis(max(0.0, min(scores) - room), max(scores) + room, _HEIGHT - 52, 24.0)
    parts: list[str] = [_axes(x, y)]
    at = x.at(budget_ms)
    parts += [
        polyline([(at, y.start), (at, y.end)], _CHOSEN, width=1.2, opacity=0.7),
        text(at + 5, y.end + 6, f"{budget_ms:g} ms", "start", faint=True),
    ]
    front = _pareto(rows, key)
    if len(front) > 1:
        places = [(x.at(row[key]), y.at(row["expected_miou"])) for row in front]
        parts.append(polyline(places, _TOO_SLOW, width=1.4))
    names = {row["name"] for row in front} | {document["chosen"]}
    for row in rows:
        chosen = row["name"] == document["chosen"]
        colour = _CHOSEN if chosen else _FITS if row["fits"] else _TOO_SLOW
        tip = f"{row['name']}: {row[key]:.1f} ms, {row['expected_miou']:.3f}"
        place = (x.at(row[key]), y.at(row["expected_miou"]))
        parts.append(dot(*place, colour, tip))
        if row["name"] in names:
            anchor = "end" if place[0] > 0.7 * _WIDTH else "start"
            shift = -8 if anchor == "end" else 8
            height = place[1] + (15 if chosen else -7)  # apart from its neighbours' names
            parts.append(text(place[0] + shift, height, row["name"], anchor, faint=not chosen))
    return plot("Expected mean IoU over p95", join(parts), _HEIGHT, width=_WIDTH)


def _pareto(rows: Rows, key: str) -> list[Mapping[str, Any]]:
    """Those that nothing beats in both, the fastest first."""
    found: list[Mapping[str, Any]] = []
    for row in sorted(rows, key=lambda row: (row[key], -row["expected_miou"])):
        if not found or row["expected_miou"] > found[-1]["expected_miou"]:
            found.append(row)
    return found


def _axes(x: Axis, y: Axis) -> Html:
    parts: list[str] = []
    for tick in y.ticks():
        parts += [
            line(x.start, y.at(tick), x.end, y.at(tick)),
            text(x.start - 8, y.at(tick) + 4, f"{tick:.3g}", "end"),
        ]
    for tick in x.ticks():
        parts += [
            line(x.at(tick), y.start, x.at(tick), y.end),
            text(x.at(tick), y.start + 18, f"{tick:.3g}", "middle"),
        ]
    parts.append(text((x.start + x.end) / 2, _HEIGHT - 8, "p95, ms", "middle", faint=True))
    return join(parts)


def _table_intro(height: int, width: int) -> Html:
    return Html(
        f"One image of {height} x {width} px (height x width), candidates in turns. End to end: "
        "p95 from the bytes of a file to the bytes of a mask. Memory: the peak of a process that "
        "runs this network alone. Step: of training, forward and backward."
    )


def _table(rows: Rows, chosen: str | None) -> Html:
    head = (
        "<thead><tr><th>network</th><th>fits</th>"
        '<th class="num">p50</th><th class="num">p95</th><th class="num">end to end</th>'
        '<th class="num">memory</th><th class="num">file</th><th class="num">multiply-adds</th>'
        '<th class="num">step</th><th class="num">expected mIoU</th><th>engine</th></tr>'
        "</thead>"
    )
    lines = [_line(row, chosen=row["name"] == chosen) for row in rows]
    body = join(['<table class="list">', head, "<tbody>", *lines, "</tbody></table>"])
    return scroll(body, "candidates")


def _line(row: Mapping[str, Any], *, chosen: bool) -> Html:
    expected = row["expected_miou"]
    step = "–" if row["step_s"] is None else f"{row['step_s']:.2f} s"
    name = f"<strong>{escape(row['name'])}</strong>" if chosen else escape(row["name"])
    cells = [
        _ms(row["network_p50_ms"]),
        _ms(row["network_p95_ms"]),
        _ms(row["end_to_end_p95_ms"]),
        _megabytes(row["memory_bytes"]),
        _megabytes(row["file_bytes"]),
        f"{row['multiply_adds'] / 1e9:.2f} G",
        step,
        number(float("nan") if expected is None else expected),
    ]
    numbers = "".join(f'<td class="num">{cell}</td>' for cell in cells)
    verdict = "yes" if row["fits"] else "no"
    return Html(
        f'<tr><td style="white-space:nowrap">{name}</td><td>{verdict}</td>{numbers}'
        f"<td>{escape(row['engine'])}</td></tr>"
    )


def _tried(tried: Rows) -> Html:
    if not tried:
        return Html("")
    lines = []
    for one in tried:
        duration = one["duration"]
        given = f"{duration['steps']} steps" if "steps" in duration else ""
        given = given or f"{duration['budget_s'] / 60:.3g} min"
        miou = number(float("nan") if one["miou"] is None else one["miou"])
        lines.append(
            f'<tr><td>{escape(one["name"])}</td><td class="num">{one["round"]}</td>'
            f'<td class="num">{given}</td><td class="num">{miou}</td></tr>'
        )
    head = '<th>network</th><th class="num">round</th><th class="num">trained</th>'
    head += '<th class="num">mIoU on val</th>'
    body = Html(
        f'<table class="list"><thead><tr>{head}</tr></thead><tbody>{join(lines)}</tbody></table>'
    )
    intro = Html("Trained on this dataset; the better half of a round goes on, with more time.")
    return section("Tried", scroll(body, "tried"), intro)


def _refused(rows: Rows, left_out: Sequence[Mapping[str, str]]) -> Html:
    reasons = [(row["name"], "; ".join(row["reasons"])) for row in rows if row["reasons"]]
    reasons += [(item["name"], f"not timed: {item['reason']}") for item in left_out]
    if not reasons:
        return Html("")
    lines = [
        f"<tr><td>{escape(name)}</td><td>{escape(reason)}</td></tr>" for name, reason in reasons
    ]
    body = join(
        [
            '<table class="list"><thead><tr><th>network</th><th>why not</th></tr></thead><tbody>',
            *lines,
            "</tbody></table>",
        ]
    )
    return section("What does not fit", body)


def _labels(print_: Mapping[str, Any]) -> Html:
    """What there is to learn, class by class."""
    strides = print_["strides"]
    heads = ["class", "pixels", "images", "objects in one", "thickness", "diameter"]
    heads += [f"cells of {stride}" for stride in strides]
    head = f"<th>{heads[0]}</th>" + "".join(f'<th class="num">{name}</th>' for name in heads[1:])
    lines = []
    for item in print_["classes"]:
        cells = [
            f"{100 * item['share']:.2f} %",
            str(item["images"]),
            f"{item['objects_per_image']:.1f}" if item["objects_per_image"] else "–",
            *(_pixels(item[name]) for name in ("thickness_px", "diameter_px")),
            *(number(float("nan") if each is None else each) for each in item["ceilings"]),
        ]
        numbers = "".join(f'<td class="num">{cell}</td>' for cell in cells)
        lines.append(f"<tr><td>{escape(item['name'])}</td>{numbers}</tr>")
    body = f'<table class="list"><thead><tr>{head}</tr></thead><tbody>{join(lines)}</tbody></table>'
    intro = Html(
        f"{print_['labelled_images']} labelled images of train and "
        f"{print_['validation_images']} of val. Thickness and diameter are medians in pixels. "
        "The last columns: the IoU that is left when the masks are drawn in cells of so many "
        "pixels a side, which bounds what a network of that stride can reach."
    )
    return section("Labels", scroll(Html(body), "labels"), intro)


def _pixels(spread: Mapping[str, Any] | None) -> str:
    return "–" if spread is None else f"{spread['median']:.1f}"


def _rules(reasons: Mapping[str, str]) -> Html:
    items = [
        f"<tr><td><code>{escape(path)}</code></td><td>{escape(reason)}</td></tr>"
        for path, reason in reasons.items()
    ]
    body = join(
        [
            '<table class="list"><thead><tr><th>field</th><th>because</th></tr></thead><tbody>',
            *items,
            "</tbody></table>",
        ]
    )
    return section("Rules", body)
