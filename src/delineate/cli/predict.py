"""``delineate predict``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from delineate.cli.console import (
    DeviceOption,
    EngineOption,
    ForceOption,
    JsonOption,
    counting,
    emit,
    err,
    plain_table,
    report_error,
)
from delineate.config import TilingSettings, with_changes

SHOWN_ROWS = 40


def predict(
    bundle: Annotated[Path, typer.Argument(help="A bundle, folder or .zip.")],
    inputs: Annotated[list[str], typer.Argument(help="Images, folders, globs.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the masks.")],
    overlay: Annotated[bool, typer.Option("--overlay", help="Also NAME.overlay.png.")] = False,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Also NAME.probabilities.npz, (K, H, W) uint8.")
    ] = False,
    rle: Annotated[bool, typer.Option("--rle", help="Also NAME.json with COCO RLE.")] = False,
    tile: Annotated[int | None, typer.Option(help="Side of a tile, pixels.")] = None,
    overlap: Annotated[int | None, typer.Option(help="Overlap of tiles, pixels.")] = None,
    tta: Annotated[
        str | None, typer.Option(help="Average over views of an image: flips or dihedral.")
    ] = None,
    engine: EngineOption = "auto",
    device: DeviceOption = "cpu",
    variant: Annotated[
        str, typer.Option(help="Which network of the bundle; auto takes the fastest that holds.")
    ] = "float32",
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Segment images; masks are indexed PNGs in the bundle's colours.

    Example: delineate predict model.bundle photos/ 'more/*.tif' -o masks --overlay
    """
    from delineate.bundle.load import load
    from delineate.workflows.predict import PredictSettings, find_images
    from delineate.workflows.predict import predict as run

    loaded = load(bundle, engine=engine, device=device, variant=variant)
    given = {"tile_px": tile, "overlap_px": overlap}
    changes = {key: value for key, value in given.items() if value is not None}
    tiling: TilingSettings = with_changes(loaded.manifest.tiling, changes, "--tile, --overlap")
    settings = PredictSettings(
        overlay=overlay,
        probabilities=probabilities,
        rle=rle,
        force=force,
        tiling=tiling,
        tta=tta,
    )
    images = find_images(inputs)
    with counting("segmenting", len(images)) as update:
        found = run(
            loaded, images, out, settings=settings, on_progress=lambda done, _: update(done)
        )

    def show(console: Console) -> None:
        table = plain_table("image", "size", *loaded.spec.classes, "confidence")
        for result in found.results[:SHOWN_ROWS]:
            shares = [f"{share:.1%}" for share in result.shares.values()]
            size = f"{result.width} x {result.height}"
            table.add_row(result.image.name, size, *shares, f"{result.mean_confidence:.3f}")
        console.print(table)
        if len(found.results) > SHOWN_ROWS:
            console.print(f"(+{len(found.results) - SHOWN_ROWS} more; --json lists all)")
        console.print(f"{len(found.results)} masks in {out}")

    emit(found.to_dict(), as_json=as_json, show=show)
    for _, error in found.failures:
        report_error(error, as_json=False)
    if found.failures:
        err.print(f"{len(found.failures)} of {len(images)} images failed")
        raise typer.Exit(1)
