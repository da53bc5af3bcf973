"""``delineate data synth``: generated datasets with exact masks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from delineate.cli.console import ForceOption, JsonOption, emit, progress_of
from delineate.config import checked
from delineate.data.dataset import Dataset
from delineate.data.synth import (
    CellsSettings,
    ShapesSettings,
    SynthSettings,
    TissueSettings,
    synthesise,
)

synth = typer.Typer(
    help="Generate datasets with exact masks.\n\n"
    "Example: delineate data synth cells -n 60 --size 256 --seed 7 OUT",
    no_args_is_help=True,
)

OutArgument = Annotated[Path, typer.Argument(help="Folder to write.")]
NumberOption = Annotated[int, typer.Option("-n", help="Images, train and val together.")]
SizeOption = Annotated[int, typer.Option(help="Side of the square images, pixels.")]
SeedOption = Annotated[int, typer.Option(help="Another seed, other images.")]
ValOption = Annotated[float, typer.Option(help="Share for val; 1 for a test set.")]
InstancesOption = Annotated[
    bool, typer.Option("--instances", help="Write object ids too, as 16-bit PNGs.")
]


@synth.command("tissue")
def tissue(
    out: OutArgument,
    n: NumberOption = 60,
    size: SizeOption = 512,
    seed: SeedOption = 7,
    val_fraction: ValOption = 0.25,
    held_out: Annotated[
        bool,
        typer.Option("--held-out", help="Stains and scanners that no other set is drawn from."),
    ] = False,
    instances: InstancesOption = False,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Generate images that look like stained tissue, with masks of stroma, glands and tumour.

    Glands and tumour nests are the objects of --instances.

    Example: delineate data synth tissue -n 60 --size 512 --seed 7 OUT
    """
    values = {
        "n": n,
        "size": size,
        "seed": seed,
        "val_fraction": val_fraction,
        "instances": instances,
        "held_out": held_out,
    }
    _generate(checked(TissueSettings, values, "synth tissue"), out, force=force, as_json=as_json)


@synth.command("cells")
def cells(
    out: OutArgument,
    n: NumberOption = 60,
    size: SizeOption = 256,
    seed: SeedOption = 7,
    val_fraction: ValOption = 0.25,
    instances: InstancesOption = False,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Generate microscope images of cells, in fluorescence and bright field, with their nuclei.

    Cells that touch are one region of the mask and have ids of their own with --instances.

    Example: delineate data synth cells -n 60 --size 256 --seed 7 --instances OUT
    """
    values = {
        "n": n,
        "size": size,
        "seed": seed,
        "val_fraction": val_fraction,
        "instances": instances,
    }
    _generate(checked(CellsSettings, values, "synth cells"), out, force=force, as_json=as_json)


@synth.command("shapes")
def shapes(
    out: OutArgument,
    n: NumberOption = 20,
    size: SizeOption = 128,
    seed: SeedOption = 7,
    val_fraction: ValOption = 0.25,
    instances: InstancesOption = False,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Generate circles, squares, triangles, rings and bars in front of each other, for quick tests.

    Example: delineate data synth shapes -n 20 --size 128 --seed 7 --instances OUT
    """
    values = {
        "n": n,
        "size": size,
        "seed": seed,
        "val_fraction": val_fraction,
        "instances": instances,
    }
    _generate(checked(ShapesSettings, values, "synth shapes"), out, force=force, as_json=as_json)


def _generate(settings: SynthSettings, out: Path, *, force: bool, as_json: bool) -> None:
    with progress_of("generating") as progress:
        synthesise(out, settings, force=force, on_progress=progress)
    data = Dataset.open(out)
    counts = {split: len(samples) for split, samples in data.splits.items()}
    document = {"path": str(out), "classes": list(data.info.classes), "samples": counts}

    def show(console: Console) -> None:
        samples = ", ".join(f"{split} {count}" for split, count in counts.items())
        console.print(f"{out}: {samples}", highlight=False)

    emit(document, as_json=as_json, show=show)
