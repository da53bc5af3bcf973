"""The page of ``delineate demo``: what happened, with pictures, in one file."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import UInt8

from delineate.bundle.load import Bundle
from delineate.data.files import write_text
from delineate.data.overlay import overlay
from delineate.evaluation.page import (
    Html,
    card,
    escape,
    facts,
    join,
    number,
    page,
    picture,
    scroll,
    section,
    swatch,
)
from delineate.tiling.segment import segment
from delineate.training.log import Row
from delineate.workflows.demo_result import Demo

Rgb = UInt8[np.ndarray, "_ _ 3"]
SIDE_PX = 512
LARGE_SIDE_PX = 960


def write_page(demo: Demo, bundle: Bundle, metrics: list[Row]) -> None:
    """Write ``demo.page``, self-contained."""
    parts = [
        _headline(demo),
        _data(demo, bundle),
        _training(demo, metrics),
        _scores(demo),
        _large(demo, bundle),
        _serving(demo),
        _bundle(demo, bundle),
    ]
    subtitle = "Generated tissue, a trained network, a bundle, a large image, an HTTP answer."
    write_text(demo.page, page("delineate demo", join(parts), subtitle))


def _headline(demo: Demo) -> Html:
    seconds = sum(demo.seconds.values())
    cards = [
        card("Dice of tumour", number(demo.dice["network"]), "unseen stains and scanners"),
        card("Control: Otsu", number(demo.dice["otsu"]), "threshold on grey value or a colour"),
        card("Control: colour", number(demo.dice["colour"]), "most frequent class of each colour"),
        card("From nothing to this page", Html(f"{seconds / 60:.1f} min"), "without set-up"),
    ]
    return Html(f'<div class="cards">{join(cards)}</div>')


def _small(rgb: Rgb, side_px: int = SIDE_PX) -> Rgb:
    factor = side_px / max(rgb.shape[:2])
    if factor >= 1:
        return rgb
    smaller: Rgb = cv2.resize(rgb, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    return smaller


def _figure(rgb: Rgb, caption: str) -> Html:
    return Html(
        f"<figure>{picture(rgb, caption)}<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _row(figures: list[Html], label: str) -> Html:
    return scroll(_columns(figures), label)


def _columns(figures: list[Html]) -> Html:
    columns = f"grid-template-columns: repeat({len(figures)}, minmax(0, 1fr))"
    return Html(f'<div class="panels" style="{columns}; padding: .6rem">{join(figures)}</div>')


def _data(demo: Demo, bundle: Bundle) -> Html:
    image, truth = demo.example
    colours = bundle.manifest.colours
    labels = segment(bundle, image, tiling=bundle.manifest.tiling)["labels"][0]
    figures = [
        _figure(_small(image), "a held-out image"),
        _figure(_small(overlay(image, truth, colours)), "its truth"),
        _figure(_small(overlay(image, labels, colours)), "what the network says"),
    ]
    legend = join(
        Html(f"<li>{swatch(item.colour)}{escape(item.name)}</li>")
        for item in bundle.manifest.classes
    )
    intro = Html(
        "Tumour has the same mean colour as the rest; it differs in the size, the shape and the "
        "disorder of its nuclei. The test images have other scenes, stains and scanner settings "
        "than those the network was trained on."
    )
    body = Html(f'<ul class="legend">{legend}</ul>{_row(figures, "An example")}')
    return section("The task", body, intro)


def _training(demo: Demo, metrics: list[Row]) -> Html:
    losses = [(row["elapsed_s"] or 0.0, row["loss"]) for row in metrics if row["loss"] is not None]
    scores = [
        (row["elapsed_s"] or 0.0, row["val_miou"]) for row in metrics if row["val_miou"] is not None
    ]
    intro = Html(
        f"{demo.training.steps} steps in {demo.training.elapsed_s:.0f} s, export included. PyTorch "
        f"and the exported graph name the same class in "
        f"{demo.training.exported.agreement:.3%} of pixels."
    )
    charts = [
        _chart([(x, float(y or 0)) for x, y in losses], "loss", "seconds"),
        _chart([(x, float(y or 0)) for x, y in scores], "mIoU on val", "seconds", top=1.0),
    ]
    return section("Training", _columns(charts), intro)


def _chart(
    points: list[tuple[float, float]], title: str, unit: str, top: float | None = None
) -> Html:
    """A line chart as inline SVG; the colour is that of the text."""
    if not points:
        return Html("")
    width, height, left, bottom = 420, 190, 44, 26
    x_most = max(x for x, _ in points) or 1.0
    y_most = top or max(y for _, y in points) * 1.05 or 1.0

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            left + (width - left - 8) * x / x_most,
            (height - bottom) - (height - bottom - 22) * min(y / y_most, 1.0),
        )

    spots = [place(x, y) for x, y in points]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
    dots = join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in spots[-30:])
    shown = dots if len(points) <= 30 else ""
    lines, texts = [], []
    for share in (0.0, 0.5, 1.0):
        _, y = place(0.0, y_most * share)
        lines.append(
            f'<line x1="{left}" y1="{y:.1f}" x2="{width - 8}" y2="{y:.1f}" stroke-opacity=".2"/>'
        )
        texts.append(
            f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{y_most * share:.2f}</text>'
        )
        x, _ = place(x_most * share, 0.0)
        anchor = {0.0: "start", 0.5: "middle", 1.0: "end"}[share]
        texts.append(
            f'<text x="{x:.1f}" y="{height - 8}" text-anchor="{anchor}">'
            f"{x_most * share:.0f}{' ' + unit if share == 1 else ''}</text>"
        )
    return Html(
        f'<figure><svg viewBox="0 0 {width} {height}" width="{width}" role="img" '
        f'aria-label="{escape(title)}" fill="currentColor" stroke="currentColor" '
        f'font-size="12" style="max-width:100%">'
        f'{join(lines)}<g stroke="none">{join(texts)}</g>'
        f'<polyline points="{line}" fill="none" stroke-width="2"/>{shown}</svg>'
        f"<figcaption>{escape(title)}</figcaption></figure>"
    )


def _scores(demo: Demo) -> Html:
    rows = join(
        Html(
            f'<tr><th scope="row">{escape(name)}</th><td class="num">{number(iou)}</td>'
            f'<td class="num">{number(dice)}</td></tr>'
        )
        for name, iou, dice in zip(
            demo.test.scores.classes, demo.test.scores.iou, demo.test.scores.dice, strict=True
        )
    )
    table = Html(
        '<table class="list"><thead><tr><th scope="col">class</th>'
        '<th scope="col" class="num">IoU</th>'
        f'<th scope="col" class="num">Dice</th></tr></thead><tbody>{rows}</tbody></table>'
        '<p><a href="test.html">The full report</a> has the confusion matrix and the worst and '
        "best images.</p>"
    )
    intro = Html(
        f"{demo.test.n_images} images whose scenes, stains and scanners were never trained on. "
        f"By Otsu's threshold tumour gets a Dice of {demo.dice['otsu']:.3f}, by colour alone "
        f"{demo.dice['colour']:.3f}: the task is one of texture."
    )
    return section("Scores on held-out images", table, intro)


def _large(demo: Demo, bundle: Bundle) -> Html:
    image, labels = demo.large
    drawn = overlay(image, labels, bundle.manifest.colours)
    middle = image.shape[0] // 2
    seam = np.s_[middle - 256 : middle + 256, middle - 256 : middle + 256]
    figures = [
        _figure(_small(image, LARGE_SIDE_PX // 2), "the image"),
        _figure(_small(drawn, LARGE_SIDE_PX // 2), "the prediction"),
        _figure(drawn[seam], "its middle, where tiles meet"),
    ]
    tiling = bundle.manifest.tiling
    intro = Html(
        f"{image.shape[1]} x {image.shape[0]} pixels in {demo.large_tiles} tiles of "
        f"{tiling.tile_px} px that overlap by {tiling.overlap_px} px or more and are blended; "
        f"{demo.seconds['predict']:.0f} s with its generation. "
        f"Dice of tumour {demo.large_dice:.3f}."
    )
    return section("A large image", _row(figures, "The large image"), intro)


def _serving(demo: Demo) -> Html:
    shares = {item["name"]: f"{item['share']:.1%}" for item in demo.answer["classes"]}
    rows: dict[str, object] = {
        "question": "curl --data-binary @image.png localhost:8000/v1/segment",
        "Server-Timing": demo.server_timing,
        "class shares": shares,
        "regions": f"{len(demo.answer['regions'])}, as COCO RLE",
    }
    return section("The HTTP answer", facts(rows))


def _bundle(demo: Demo, bundle: Bundle) -> Html:
    size = sum(file.stat().st_size for file in bundle.path.rglob("*") if file.is_file())
    rows: dict[str, object] = {
        "folder": bundle.path.relative_to(demo.out),
        "size": f"{size / 1e6:.1f} MB in {len(bundle.manifest.files) + 1} files",
        "use it": f"delineate predict {bundle.path.name} IMAGE -o OUT",
        "seconds": {name: f"{value:.0f}" for name, value in demo.seconds.items()},
    }
    return section("What was made", facts(rows))
