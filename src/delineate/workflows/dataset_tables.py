"""Tables of a dataset's page: classes, who touches whom, splits side by side."""

from __future__ import annotations

from collections.abc import Iterable

from delineate.data.dataset import Dataset
from delineate.data.statistics import ClassStatistics, Distribution, SplitStatistics, Statistics
from delineate.evaluation.page import Html, escape, join, scroll, section, swatch

# More rows and columns than this are no longer read
_MOST_IN_MATRIX = 30


def percent(share: float) -> str:
    """``share`` as a percentage of three digits; what is not quite 0 or 1 says so."""
    if 0 < share < 5e-7:
        return "<0.0001 %"
    if 0.9995 <= share < 1:
        return ">99.9 %"
    return f"{100 * share:.3g} %" if share < 0.9995 else "100 %"


def figure(value: float) -> str:
    """A number of any size to three digits, thousands set apart."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _spread(found: Distribution) -> str:
    return f"{figure(found.median)} ({figure(found.p05)} to {figure(found.p95)})"


def classes_table(statistics: Statistics, data: Dataset) -> Html:
    """The section with one row for each class."""
    whole = statistics.whole
    um = statistics.pixel_size_um is not None
    unit = "µm" if um else "px"
    heads = ("pixels", "images", "objects", f"median area, {unit}²", f"thickness, {unit}")
    head = join(Html(f'<th scope="col" class="num">{escape(text)}</th>') for text in heads)
    rows = join(_class_row(found, data, um=um) for found in whole.classes)
    body = Html(
        f'<table class="list"><thead><tr><th scope="col">class</th>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table>"
    )
    intro = (
        "Share of the labelled pixels, and of the images that show the class at all. Thickness is "
        "the median over the ridge of its structures, with the 5th and the 95th percentile."
    )
    return section("Classes", scroll(body, "Classes"), escape(intro))


def _class_row(found: ClassStatistics, data: Dataset, *, um: bool) -> Html:
    objects = found.objects
    area = None if objects is None else objects.area_um2 if um else objects.area_px
    thickness = found.thickness_um if um else found.thickness_px
    cells = [
        "–" if objects is None else f"{objects.count:,}",
        "–" if area is None else f"{figure(area.median)}",
        "–" if thickness is None else _spread(thickness),
    ]
    return Html(
        f'<tr><th scope="row">{swatch(data.colours[found.id])}{escape(found.name)}</th>'
        + _bar_cell(found.pixel_share)
        + _bar_cell(found.image_share)
        + join(Html(f'<td class="num">{escape(cell)}</td>') for cell in cells)
        + "</tr>"
    )


def _bar_cell(share: float) -> str:
    return f'<td class="num bar" style="--v:{share:.4f}">{escape(percent(share))}</td>'


def neighbours_matrix(statistics: Statistics) -> Html:
    """The section with the shares of borders; nothing where no three classes touch."""
    whole = statistics.whole
    length: dict[tuple[int, int], int] = {}
    total = dict.fromkeys(range(len(statistics.classes)), 0)
    for border in whole.borders:
        for row, column in ((border.first, border.second), (border.second, border.first)):
            length[row, column] = border.length_px
            total[row] += border.length_px
    touching = [class_id for class_id in total if total[class_id]]
    if len(touching) <= 2:
        return Html("")
    chosen = sorted(sorted(touching, key=lambda i: -total[i])[:_MOST_IN_MATRIX])
    names = statistics.classes
    heads = join(
        f'<th scope="col"><span class="turned">{escape(names[j])}</span></th>' for j in chosen
    )
    rows = join(
        f'<tr><th scope="row">{escape(names[i])}</th>'
        + join(
            Html('<td class="blank"></td>') if i == j else _touch(length.get((i, j), 0), total[i])
            for j in chosen
        )
        + "</tr>"
        for i in chosen
    )
    intro = "Of all the border of the class in the row, the percentage that the column has."
    if len(touching) > len(chosen):
        intro += (
            f" The {len(chosen)} classes with the longest borders of {len(touching)} are shown."
        )
    body = Html(
        '<table class="matrix" style="--cell:2.6rem"><thead><tr><td class="blank"></td>'
        f"{heads}</tr></thead><tbody>{rows}</tbody></table>"
    )
    return section("Which classes touch", scroll(body, "Which classes touch"), escape(intro))


def _touch(length: int, total: int) -> Html:
    share = length / total
    text = "" if not length else "<1" if share < 0.005 else f"{100 * share:.0f}"
    kind = "right strong" if share > 0.85 else "right" if share >= 0.005 else "right faint"
    return Html(
        f'<td class="{kind}" style="--v:{share:.3f}" title="{length:,} px">{escape(text)}</td>'
    )


def split_table(splits: list[SplitStatistics]) -> Html:
    """Figures of the splits side by side."""
    heads = join(Html(f'<th scope="col" class="num">{escape(s.name)}</th>') for s in splits)

    def row(name: str, values: Iterable[str]) -> str:
        cells = join(Html(f'<td class="num">{escape(value)}</td>') for value in values)
        return f'<tr><th scope="row">{escape(name)}</th>{cells}</tr>'

    rows = [
        row("images", (f"{split.images:,}" for split in splits)),
        row("groups", ("–" if s.groups is None else f"{len(s.groups):,}" for s in splits)),
        row("ignored", (percent(split.ignored_share) for split in splits)),
        row("near-empty images", (f"{len(split.near_empty):,}" for split in splits)),
        row("objects in an image", map(_objects_per_image, splits)),
        row("median width x height, px", map(_median_size, splits)),
    ]
    kind = splits[0].pixel_types[0]
    same = all(s.pixel_types[0].channels == kind.channels for s in splits)
    if same and all(s.pixel_types[0].dtype == kind.dtype for s in splits):
        rows += [
            row(f"mean ± std of channel {c}", (_mean_std(split, c) for split in splits))
            for c in range(min(kind.channels, 8))
        ]
    return scroll(
        Html(
            f'<table class="list"><thead><tr><th scope="col"></th>{heads}</tr></thead>'
            f"<tbody>{join(rows)}</tbody></table>"
        ),
        "Figures of the splits",
    )


def _objects_per_image(split: SplitStatistics) -> str:
    count = sum(found.objects.count for found in split.classes if found.objects is not None)
    return f"{count / split.labelled_images:.3g}"


def _median_size(split: SplitStatistics) -> str:
    return f"{split.width_px.median:.0f} x {split.height_px.median:.0f}"


def _mean_std(split: SplitStatistics, channel: int) -> str:
    found = split.pixel_types[0].intensity[channel]
    return f"{figure(found.mean)} ± {figure(found.std)}"
