"""``delineate data stats``: what is in a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from delineate.cli.console import ForceOption, JsonOption, emit, plain_table, progress_of
from delineate.data.files import refuse_existing
from delineate.data.statistics import (
    Distribution,
    ObjectStatistics,
    SplitStatistics,
    Statistics,
    describe,
)


def stats(
    dataset: Annotated[Path, typer.Argument(help="A dataset: a folder with dataset.yaml.")],
    html: Annotated[
        Path | None,
        typer.Option("--html", "--out", "-o", help="Write a page with pictures and plots there."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Threads; as many as processors when left out.")
    ] = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Measure a dataset: sizes, classes, objects, thickness, intensity, and who touches whom.

    Example: delineate data stats DATASET --html page.html
    """
    if html is not None and not force:
        refuse_existing(html)
    with progress_of("measuring") as progress:
        found = describe(dataset, workers=workers, progress=progress)
    if html is not None:
        from delineate.workflows.dataset_page import write_page

        write_page(found, html)

    def show(console: Console) -> None:
        _show(console, found)
        if html is not None:
            console.print(f"page  {html}", highlight=False)

    emit(found.to_dict(), as_json=as_json, show=show)


def _show(console: Console, found: Statistics) -> None:
    _show_splits(console, found)
    if found.whole.labelled_images:
        _show_classes(console, found)
        _show_objects(console, found)
    _show_intensity(console, found.whole)


def _show_splits(console: Console, found: Statistics) -> None:
    table = plain_table(
        "split", "images", "with mask", "width x height, px", "ignored", "near-empty", "groups"
    )
    splits = found.splits if len(found.splits) == 1 else (*found.splits, found.whole)
    for split in splits:
        table.add_row(
            split.name,
            f"{split.images:,}",
            f"{split.labelled_images:,}",
            _sizes(split),
            _percent(split.ignored_share),
            f"{len(split.near_empty):,}",
            "-" if split.groups is None else f"{len(split.groups):,}",
        )
    console.print(table)
    console.print()


def _sizes(split: SplitStatistics) -> str:
    if len(split.sizes) == 1:
        return f"{split.sizes[0].width_px} x {split.sizes[0].height_px}"
    width, height = split.width_px, split.height_px
    return (
        f"{width.minimum:.0f} to {width.maximum:.0f} x {height.minimum:.0f} to {height.maximum:.0f}"
    )


def _show_classes(console: Console, found: Statistics) -> None:
    splits = [split for split in found.splits if split.labelled_images]
    table = plain_table("class", "id", "pixels", *_share_heads(splits), "in images")
    for one in found.whole.classes:
        shares = (_percent(split.classes[one.id].pixel_share) for split in splits)
        table.add_row(one.name, str(one.id), f"{one.pixels:,}", *shares, _percent(one.image_share))
    console.print(table)
    console.print()


def _share_heads(splits: list[SplitStatistics]) -> list[str]:
    return ["share"] if len(splits) == 1 else [f"share of {split.name}" for split in splits]


def _show_objects(console: Console, found: Statistics) -> None:
    whole, um = found.whole, found.pixel_size_um is not None
    unit = "µm" if um else "px"
    table = plain_table(
        "objects", "count", "at edge", f"area, {unit}²", f"diameter, {unit}", f"thickness, {unit}"
    )
    for one in whole.classes:
        objects = one.objects
        thickness = one.thickness_um if um else one.thickness_px
        if objects is None and thickness is None:
            continue
        area, diameter = _area_and_diameter(objects, um=um)
        table.add_row(
            one.name,
            "0" if objects is None else f"{objects.count:,}",
            "0" if objects is None else f"{objects.at_edge:,}",
            _spread(area),
            _spread(diameter),
            _spread(thickness),
        )
    console.print(table)
    source = {
        "instances": "objects: the ids beside the masks",
        "both": "objects: the ids beside the masks where there are any, else 8-connected regions",
        "components": "objects: 8-connected regions of one class",
    }[whole.objects_from or "components"]
    console.print(f"{source}; median, and 5th to 95th percentile", highlight=False)
    if whole.objects_ignored:
        console.print(f"{whole.objects_ignored:,} objects lie in ignored pixels and are left out")
    console.print()


def _area_and_diameter(
    objects: ObjectStatistics | None, *, um: bool
) -> tuple[Distribution | None, Distribution | None]:
    if objects is None:
        return None, None
    if um:
        return objects.area_um2, objects.equivalent_diameter_um
    return objects.area_px, objects.equivalent_diameter_px


def _show_intensity(console: Console, whole: SplitStatistics) -> None:
    table = plain_table("values", "images", "region", "mean", "std", "0.5 %", "median", "99.5 %")
    for kind in whole.pixel_types:
        for channel in kind.intensity:
            figures = (channel.mean, channel.std, channel.p00_5, channel.median, channel.p99_5)
            table.add_row(
                f"{kind.dtype}, channel {channel.channel} of {kind.channels}",
                f"{kind.images:,}",
                channel.region,
                *map(_figure, figures),
            )
    console.print(table)


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _figure(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _spread(found: Distribution | None) -> str:
    if found is None:
        return "-"
    return f"{_figure(found.median)} ({_figure(found.p05)}–{_figure(found.p95)})"
