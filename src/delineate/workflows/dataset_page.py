"""The page of ``delineate data stats``: a dataset to show to a colleague, in one file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from delineate.data.dataset import Dataset
from delineate.data.files import write_text
from delineate.data.statistics import SplitStatistics, Statistics
from delineate.evaluation.page import Html, card, escape, facts, join, page, scroll, section
from delineate.workflows.dataset_pictures import MOST_CLASSES, gallery, pictured
from delineate.workflows.dataset_plots import area_bars, intensity_lines, share_dots, size_bubbles
from delineate.workflows.dataset_tables import (
    classes_table,
    figure,
    neighbours_matrix,
    percent,
    split_table,
)

_MOST_LISTED = 40

_STYLE = """
.cards { grid-template-columns: repeat(auto-fill, minmax(max(10.5rem, 23%), 1fr)); }
.card .value { font-size: 1.5rem; }
.gallery { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 28rem), 1fr)); }
.gallery .case { margin: 0; }
.panels.two { grid-template-columns: repeat(2, minmax(0, 1fr)); }
.caption { margin: .5rem 0 0; color: var(--muted); font-size: .8125rem; overflow-wrap: anywhere; }
.plots { display: grid; gap: 1rem; align-items: start;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 26rem), 1fr)); }
.plot { margin: 0; padding: .8rem 1rem; background: var(--card); border: 1px solid var(--line);
  border-radius: .6rem; break-inside: avoid; }
.plot figcaption { font-weight: 600; margin-bottom: .3rem; overflow-wrap: anywhere; }
.plot svg { display: block; max-width: 100%; height: auto; }
"""


def write_page(statistics: Statistics, out: Path) -> None:
    """Write the page of ``statistics`` to ``out``: one HTML file that needs no network.

    A few images of the dataset are read again for the pictures.

    Raises:
        OutputError: ``out`` cannot be written.
        DatasetError: the dataset is no longer there.
        ImageError: an image can no longer be read.
        MaskError: a mask can no longer be read.
    """
    write_text(out, dataset_page(statistics))


def dataset_page(statistics: Statistics) -> Html:
    """The page as HTML; raises as :func:`write_page`."""
    data = Dataset.open(Path(statistics.dataset))
    parts = [Html(f"<style>{_STYLE}</style>"), _cards(statistics)]
    if statistics.whole.labelled_images:
        parts += [
            _pictures(statistics, data),
            classes_table(statistics, data),
            _objects(statistics, data),
            neighbours_matrix(statistics),
        ]
    labelled = [split for split in statistics.splits if split.labelled_images]
    if len(labelled) > 1:
        parts.append(_comparison(labelled, statistics))
    parts += [_sizes(statistics.whole), _intensities(statistics.whole), _rest(statistics)]
    name = Path(statistics.dataset).resolve().name
    return page(f"Dataset {name}", join(parts), _summary(statistics))


def _summary(statistics: Statistics) -> str:
    whole = statistics.whole
    splits = ", ".join(f"{split.name} {split.images:,}" for split in statistics.splits)
    shown = f"{whole.images:,} images ({splits}), {len(statistics.classes)} classes"
    if whole.labelled_images < whole.images:
        shown += f", {whole.images - whole.labelled_images:,} images without a mask"
    return f"{shown}."


def _cards(statistics: Statistics) -> Html:
    whole = statistics.whole
    splits = ", ".join(f"{split.name} {split.images:,}" for split in statistics.splits)
    kinds = whole.pixel_types
    sizes = len(whole.sizes)
    size = whole.sizes[0]
    cards = [
        card("Images", Html(f"{whole.images:,}"), splits),
        card(
            "Image size, px",
            Html(f"{size.width_px} x {size.height_px}"),
            "all of them" if sizes == 1 else f"the most frequent of {sizes:,} sizes",
        ),
        card(
            "Pixels",
            Html(f"{kinds[0].channels} x {kinds[0].dtype}"),
            "channels and type" if len(kinds) == 1 else f"the most frequent of {len(kinds)} kinds",
        ),
    ]
    if whole.labelled_images:
        cards += _label_cards(statistics)
    return Html(f'<div class="cards">{join(cards)}</div>')


def _label_cards(statistics: Statistics) -> list[Html]:
    whole = statistics.whole
    there = [found for found in whole.classes if found.pixels]
    rarest = min(there, key=lambda found: found.pixels, default=None)
    objects = sum(found.objects.count for found in whole.classes if found.objects is not None)
    absent = len(whole.classes) - len(there)
    cards = [
        card(
            "Classes",
            Html(str(len(whole.classes))),
            f"{absent} in no mask" if absent else "all in use",
        ),
        card("Objects", Html(f"{objects:,}"), _source(whole)),
        card("Ignored", escape(percent(whole.ignored_share)), "of the pixels of all masks"),
        card("Near-empty", Html(f"{len(whole.near_empty):,}"), "images of nearly one class alone"),
    ]
    if rarest is not None:
        note = f"of the pixels: {rarest.name}"
        cards.insert(1, card("Rarest class", escape(percent(rarest.pixel_share)), note))
    return cards


def _source(whole: SplitStatistics) -> str:
    match whole.objects_from:
        case "instances":
            return "from instance ids"
        case "both":
            return "instance ids, else connected regions"
        case _:
            return "8-connected regions of a class"


def _pictures(statistics: Statistics, data: Dataset) -> Html:
    shown = pictured(statistics)
    if not shown:
        return Html("")
    classes = {example.class_id for example in statistics.examples}
    intro = "Each class in an image that shows it well, alone and with the class marked."
    if len(classes) > MOST_CLASSES:
        intro += f" These are the {MOST_CLASSES} rarest of {len(classes)} classes."
    return section("What it looks like", gallery(data, shown), escape(intro))


def _objects(statistics: Statistics, data: Dataset) -> Html:
    whole = statistics.whole
    with_objects = [(found, found.objects) for found in whole.classes if found.objects is not None]
    if not with_objects:
        return Html("")
    # the commonest classes, so that the page stays short where there are hundreds
    with_objects.sort(key=lambda pair: -pair[1].count)
    chosen = sorted(with_objects[:MOST_CLASSES], key=lambda pair: pair[0].id)
    low = min(objects.area_histogram_px.edges[0] for _, objects in chosen)
    high = max(objects.area_histogram_px.edges[-1] for _, objects in chosen)
    plots = [
        area_bars(
            objects.area_histogram_px,
            f"{found.name}: {objects.count:,} objects, {percent(objects.at_edge / objects.count)} "
            "at the edge of the image",
            low,
            high,
            data.colours[found.id],
        )
        for found, objects in chosen
    ]
    intro = (
        f"Objects are {_objects_are(whole)}. "
        "The axis of areas is logarithmic, and the same for every class."
    )
    if whole.objects_ignored:
        intro += f" {whole.objects_ignored:,} objects lie in ignored pixels and are left out."
    if len(with_objects) > len(chosen):
        intro += f" The {len(chosen)} classes with most objects of {len(with_objects)} are shown."
    return section("Sizes of objects", _grid(plots), escape(intro))


def _objects_are(whole: SplitStatistics) -> str:
    match whole.objects_from:
        case "instances":
            return "the ids beside the masks"
        case "both":
            return "the ids beside the masks where there are any, else connected regions"
        case _:
            return "8-connected regions of one class: those that touch count as one"


def _grid(plots: Iterable[Html]) -> Html:
    return Html(f'<div class="plots">{join(plots)}</div>')


def _comparison(splits: list[SplitStatistics], statistics: Statistics) -> Html:
    whole = statistics.whole
    order = sorted(whole.classes, key=lambda found: -found.pixel_share)[:_MOST_LISTED]
    dots = share_dots(
        [found.name for found in order],
        [
            (split.name, [split.classes[found.id].pixel_share for found in order])
            for split in splits
        ],
    )
    intro = "Splits of one kind lie close together. A hollow mark at the left: not there at all."
    if len(order) < len(whole.classes):
        intro += f" The {len(order)} most frequent classes of {len(whole.classes)} are shown."
    return section("The splits compared", _grid([dots, split_table(splits)]), escape(intro))


def _sizes(whole: SplitStatistics) -> Html:
    if len(whole.sizes) == 1:
        size = whole.sizes[0]
        text = f"All {whole.images:,} images are {size.width_px} x {size.height_px} px."
        return section("Image sizes", Html(""), escape(text))
    sides = {
        name: f"{found.minimum:.0f} to {found.maximum:.0f} px, median {found.median:.0f}"
        for name, found in (("width", whole.width_px), ("height", whole.height_px))
    }
    most = {
        f"{size.width_px} x {size.height_px} px": _images(size.images) for size in whole.sizes[:12]
    }
    rows: dict[str, object] = {**sides, **most}
    if len(whole.sizes) > len(most):
        rows["other sizes"] = f"{len(whole.sizes) - len(most):,}"
    intro = escape("The area of a spot grows with the number of images of that size.")
    return section("Image sizes", _grid([size_bubbles(whole.sizes), facts(rows)]), intro)


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count:,} images"


def _intensities(whole: SplitStatistics) -> Html:
    plots = []
    for kind in whole.pixel_types:
        title = f"{kind.channels} x {kind.dtype}, {_images(kind.images)}"
        plots.append(intensity_lines(kind.intensity, title))
    rows = [
        f'<tr><th scope="row">{kind.dtype}, channel {found.channel}, {found.region}</th>'
        + join(
            Html(f'<td class="num">{figure(value)}</td>')
            for value in (found.mean, found.std, found.p00_5, found.median, found.p99_5)
        )
        + "</tr>"
        for kind in whole.pixel_types
        for found in kind.intensity
    ]
    heads = join(
        Html(f'<th scope="col" class="num">{text}</th>')
        for text in ("mean", "std", "0.5 %", "median", "99.5 %")
    )
    table = Html(
        f'<table class="list"><thead><tr><th scope="col">raw values</th>{heads}</tr></thead>'
        f"<tbody>{join(rows)}</tbody></table>"
    )
    intro = (
        "Raw pixel values. The foreground is everything labelled that is no background and not "
        "ignored; it is shown where a class is called background. Types other than uint8 are "
        "drawn from the 0.5th to the 99.5th percentile."
    )
    body = join([_grid(plots), Html("<p></p>"), scroll(table, "Raw values")])
    return section("Intensities", body, escape(intro))


def _rest(statistics: Statistics) -> Html:
    whole = statistics.whole
    listed = ", ".join(whole.near_empty[:_MOST_LISTED])
    if len(whole.near_empty) > _MOST_LISTED:
        listed += f" and {len(whole.near_empty) - _MOST_LISTED:,} more"
    rows: dict[str, object] = {
        "ignore index": "none" if statistics.ignore_index is None else statistics.ignore_index,
        "pixel size": "not known"
        if statistics.pixel_size_um is None
        else f"{statistics.pixel_size_um:g} µm",
        "near-empty images": listed or "none",
        "groups": _groups(whole),
    }
    return section("Further facts", facts(rows))


def _groups(whole: SplitStatistics) -> str:
    if whole.groups is None:
        return "none given"
    most = sorted(whole.groups.items(), key=lambda entry: (-entry[1], entry[0]))
    listed = ", ".join(f"{name} ({_images(images)})" for name, images in most[:_MOST_LISTED])
    rest = len(most) - _MOST_LISTED
    return listed if rest <= 0 else f"{listed} and {rest:,} more"
