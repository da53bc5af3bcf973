"""``delineate data import``: labels of any format in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from delineate.cli.console import (
    ForceOption,
    Interrupted,
    JsonOption,
    MapOption,
    emit,
    plain_table,
    progress_of,
)
from delineate.data.formats.settings import Crowd, ImportSettings, LabelFormat, Overlap
from delineate.data.importing import ImportReport, import_dataset

ClassesOption = Annotated[
    str | None,
    typer.Option(help="Names by id, with commas between; or a text file with one a line."),
]
ColoursOption = Annotated[
    str | None,
    typer.Option(help="Colour of each class as hexadecimal RGB: 000000,ff8000,..."),
]
GroupsOption = Annotated[
    str | None,
    typer.Option(
        help="Regular expression whose first parenthesis finds the patient, slide or video "
        "in the name of an image; a group is never divided."
    ),
]


def import_(
    source: Annotated[
        Path,
        typer.Argument(
            help="Folder, annotation file (COCO, GeoJSON, CVAT, ...) or archive. For masks the "
            "folder of images, or one that holds images and masks."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write.")],
    label_format: Annotated[
        LabelFormat, typer.Option("--format", help="How labels are stored; found out if left out.")
    ] = "auto",
    masks: Annotated[Path | None, typer.Option(help="Folder of masks.")] = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder of the images that an annotation file names.")
    ] = None,
    instances: Annotated[
        Path | None, typer.Option(help="Folder of object ids, 0 for no object.")
    ] = None,
    classes: ClassesOption = None,
    class_map: MapOption = None,
    ignore_index: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Id of pixels that count nowhere.")
    ] = None,
    colours: ColoursOption = None,
    values: Annotated[
        str | None,
        typer.Option(help="Class of each grey value: 0=background,128=cytoplasm,255=nucleus."),
    ] = None,
    class_property: Annotated[
        str | None, typer.Option(help="Property of GeoJSON features that names the class.")
    ] = None,
    overlap: Annotated[
        Overlap, typer.Option(help="Which of two overlapping objects keeps the pixels.")
    ] = "later",
    crowd: Annotated[
        Crowd, typer.Option(help="What COCO's crowds become: their class, or ignored.")
    ] = "class",
    groups: GroupsOption = None,
    mask_suffix: Annotated[
        str, typer.Option(help="What follows an image's name in its mask's name, such as _mask.")
    ] = "",
    val_fraction: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share for val; 0 leaves it undivided.")
    ] = 0.2,
    seed: Annotated[int, typer.Option(min=0, help="Another seed, another split.")] = 0,
    drop_unpaired: Annotated[
        bool, typer.Option("--drop-unpaired", help="Leave out images and masks without the other.")
    ] = False,
    follow_links: Annotated[
        bool, typer.Option("--follow-links", help="Read links that lead out of the source.")
    ] = False,
    update: Annotated[
        bool, typer.Option("--update", help="Add to an existing dataset what is new or changed.")
    ] = False,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Turn images and labels of any common format into a dataset.

    Formats: class-id, voc, rgb, values and binary masks; cityscapes; coco, coco-panoptic,
    labelme, geojson (QuPath as well), cvat, label-studio, huggingface.

    Example: delineate data import annotations.json --images PHOTOS --out DATASET

    Example: delineate data import PHOTOS --masks MASKS --format binary
    --classes background,nucleus --out DATASET
    """
    settings = ImportSettings(
        source=source,
        out=out,
        format=label_format,
        masks=masks,
        images=images,
        instances=instances,
        classes=_class_names(classes),
        class_map=class_map,
        ignore_index=ignore_index,
        colours=_colours(colours),
        values=_values(values),
        class_property=class_property,
        overlap=overlap,
        crowd=crowd,
        groups=groups,
        mask_suffix=mask_suffix,
        val_fraction=val_fraction,
        seed=seed,
        drop_unpaired=drop_unpaired,
        follow_links=follow_links,
        update=update,
        force=force,
    )
    try:
        with progress_of("importing") as progress:
            report = import_dataset(settings, progress=progress)
    except KeyboardInterrupt as error:
        raise Interrupted(
            "What was imported is kept; the same command goes on from there."
        ) from error
    emit(_document(report), as_json=as_json, show=lambda console: _show_import(console, report))


def _values(text: str | None) -> dict[int, str] | None:
    if text is None:
        return None
    found: dict[int, str] = {}
    for part in text.split(","):
        value, equals, name = (word.strip() for word in part.partition("="))
        if not (value.isascii() and value.isdigit() and int(value) < 65536 and equals and name):
            raise typer.BadParameter(
                f"{part.strip()!r} is no VALUE=CLASS, such as 128=cytoplasm (0 to 65535)",
                param_hint="--values",
            )
        found[int(value)] = name
    return found


def _class_names(text: str | None) -> tuple[str, ...] | Path | None:
    if text is None:
        return None
    if "," not in text:  # one class alone is never enough, so this can only be a file
        return Path(text)
    return tuple(name.strip() for name in text.split(","))


def _colours(text: str | None) -> tuple[tuple[int, int, int], ...] | None:
    if text is None:
        return None
    found = []
    for part in text.split(","):
        digits = part.strip().removeprefix("#")
        try:
            red, green, blue = bytes.fromhex(digits)
        except ValueError as error:
            raise typer.BadParameter(
                f"{part.strip()!r} is no colour; write six hexadecimal digits, such as ff8000",
                param_hint="--colours",
            ) from error
        found.append((red, green, blue))
    return tuple(found)


def _document(report: ImportReport) -> dict[str, object]:
    return {
        "path": str(report.path),
        "classes": list(report.classes),
        "format": report.format,
        "samples": dict(report.samples),
        "objects": report.objects,
        "reused": report.reused,
        "pixels": {str(index): count for index, count in report.pixels.items()},
        "dropped": [str(file) for file in report.dropped],
        "notes": list(report.notes),
    }


def _show_import(console: Console, report: ImportReport) -> None:
    total = sum(report.pixels.values()) or 1
    table = plain_table("class", "id", "pixels", "share")
    for index, count in report.pixels.items():
        name = report.classes[index] if index < len(report.classes) else "(ignored)"
        table.add_row(name, str(index), f"{count:,}", f"{count / total:.1%}")
    console.print(table)
    samples = ", ".join(f"{split} {count}" for split, count in report.samples.items())
    objects = "" if report.objects is None else f", {report.objects:,} objects"
    reused = f", {report.reused} unchanged" if report.reused else ""
    console.print(f"{report.path}: {samples}{objects}{reused} (read as {report.format})")
    absent = [n for i, n in enumerate(report.classes) if i not in report.pixels]
    if absent:
        console.print(f"in no mask: {', '.join(absent)}")
    if report.dropped:
        console.print(f"left out: {len(report.dropped)} files without the other half")
    for note in report.notes:
        console.print(f"note: {note}")
