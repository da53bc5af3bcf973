"""``delineate data``: datasets in, and what is wrong with them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from delineate.cli.console import ForceOption, JsonOption, counting, emit, plain_table
from delineate.data.checking import Finding, Progress
from delineate.data.checking import check as check_dataset
from delineate.data.dataset import Dataset
from delineate.data.importing import ImportReport, ImportSettings, import_dataset
from delineate.data.mask_formats import MaskFormat
from delineate.data.tissue import synthesise

app = typer.Typer(
    help="Import datasets, find what is wrong with them, generate others.\n\n"
    "Example: delineate data check DATASET",
    no_args_is_help=True,
)
synth = typer.Typer(
    help="Generate datasets with exact masks.\n\n"
    "Example: delineate data synth tissue -n 60 --size 512 --seed 7 OUT",
    no_args_is_help=True,
)
app.add_typer(synth, name="synth")


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


@app.command("import")
def import_(
    images: Annotated[
        Path,
        typer.Argument(
            help="Folder of images; or, without --masks, a folder that holds images and masks, "
            "JPEGImages and SegmentationClass, or train/images and so on."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write.")],
    masks: Annotated[Path | None, typer.Option(help="Folder of masks.")] = None,
    mask_format: Annotated[
        MaskFormat, typer.Option("--format", help="What the values in the masks mean.")
    ] = "class-id",
    classes: ClassesOption = None,
    ignore_index: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Id of pixels that count nowhere.")
    ] = None,
    colours: ColoursOption = None,
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
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Turn folders of images and masks into a dataset.

    Example: delineate data import PHOTOS --masks MASKS --format binary
    --classes background,nucleus --out DATASET
    """
    settings = ImportSettings(
        images=images,
        masks=masks,
        out=out,
        format=mask_format,
        classes=_class_names(classes),
        ignore_index=ignore_index,
        colours=_colours(colours),
        groups=groups,
        mask_suffix=mask_suffix,
        val_fraction=val_fraction,
        seed=seed,
        drop_unpaired=drop_unpaired,
        force=force,
    )
    with _progress("importing") as progress:
        report = import_dataset(settings, progress=progress)
    emit(_document(report), as_json=as_json, show=lambda console: _show_import(console, report))


@app.command("check")
def check(
    dataset: Annotated[Path, typer.Argument(help="A dataset: a folder with dataset.yaml.")],
    as_json: JsonOption = False,
) -> None:
    """Find what is wrong with a dataset; exit status 1 when something is.

    Example: delineate data check DATASET
    """
    with _progress("checking") as progress:
        findings = check_dataset(dataset, progress=progress)
    document = {"dataset": str(dataset), "findings": [asdict(finding) for finding in findings]}
    emit(document, as_json=as_json, show=lambda console: _show_check(console, dataset, findings))
    if findings:
        raise typer.Exit(1)


@synth.command("tissue")
def tissue(
    out: Annotated[Path, typer.Argument(help="Folder to write.")],
    n: Annotated[int, typer.Option("-n", help="Images, train and val together.")] = 60,
    size: Annotated[int, typer.Option(help="Side of the square images, pixels.")] = 512,
    seed: Annotated[int, typer.Option(help="Another seed, other images.")] = 7,
    val_fraction: Annotated[float, typer.Option(help="Share for val; 1 for a test set.")] = 0.25,
    held_out: Annotated[
        bool,
        typer.Option("--held-out", help="Stains and scanners that no other set is drawn from."),
    ] = False,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Generate images that look like stained tissue, with masks of stroma, glands and tumour.

    Example: delineate data synth tissue -n 60 --size 512 --seed 7 OUT
    """
    with _progress("generating") as progress:
        synthesise(
            out,
            n=n,
            size=size,
            seed=seed,
            val_fraction=val_fraction,
            held_out=held_out,
            force=force,
            on_progress=progress,
        )
    data = Dataset.open(out)
    counts = {split: len(samples) for split, samples in data.splits.items()}
    document = {"path": str(out), "classes": list(data.info.classes), "samples": counts}

    def show(console: Console) -> None:
        samples = ", ".join(f"{split} {count}" for split, count in counts.items())
        console.print(f"{out}: {samples}", highlight=False)

    emit(document, as_json=as_json, show=show)


@contextmanager
def _progress(what: str) -> Iterator[Progress]:
    """A progress bar that begins with the first sample, when their number is known."""
    with ExitStack() as stack:
        update: Callable[[int], None] | None = None

        def progress(done: int, total: int) -> None:
            nonlocal update
            if update is None:
                update = stack.enter_context(counting(what, total))
            update(done)

        yield progress


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
        "samples": dict(report.samples),
        "pixels": {str(index): count for index, count in report.pixels.items()},
        "dropped": [str(file) for file in report.dropped],
    }


def _show_import(console: Console, report: ImportReport) -> None:
    total = sum(report.pixels.values()) or 1
    table = plain_table("class", "id", "pixels", "share")
    for index, count in report.pixels.items():
        name = report.classes[index] if index < len(report.classes) else "(ignored)"
        table.add_row(name, str(index), f"{count:,}", f"{count / total:.1%}")
    console.print(table)
    samples = ", ".join(f"{split} {count}" for split, count in report.samples.items())
    console.print(f"{report.path}: {samples}", markup=False, highlight=False, soft_wrap=True)
    absent = [n for i, n in enumerate(report.classes) if i not in report.pixels]
    if absent:
        console.print(f"in no mask: {', '.join(absent)}", markup=False, highlight=False)
    if report.dropped:
        console.print(f"left out: {len(report.dropped)} files without the other half")


def _show_check(console: Console, dataset: Path, findings: list[Finding]) -> None:
    if not findings:
        console.print(f"{dataset}: nothing found", markup=False, highlight=False, soft_wrap=True)
        return
    for finding in findings:
        stop = "" if finding.found.endswith((".", "!", "?")) else "."
        console.print(
            f"{finding.kind}: {finding.file}: {finding.found}{stop} {finding.mend}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    kinds = ", ".join(f"{n} {kind}" for kind, n in Counter(f.kind for f in findings).items())
    console.print(f"{dataset}: {kinds}", markup=False, highlight=False, soft_wrap=True)
