"""``delineate compress``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from delineate.cli.console import (
    DeviceOption,
    EngineOption,
    ForceOption,
    JsonOption,
    ThreadsOption,
    emit,
    err,
    extra,
    parse_duration,
    parse_size,
    plain_table,
)
from delineate.config import checked

if TYPE_CHECKING:
    from delineate.workflows.compress import Compressed


def compress(
    bundle: Annotated[Path, typer.Argument(help="A bundle, folder or .zip.")],
    dataset: Annotated[Path, typer.Argument(help="A canonical dataset with train and val.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Another bundle to write; BUNDLE itself when left out."),
    ] = None,
    engine: EngineOption = "auto",
    device: DeviceOption = "cpu",
    threads: ThreadsOption = None,
    image_size: Annotated[
        str | None, typer.Option(help="What is timed, HEIGHTxWIDTH; an image of val otherwise.")
    ] = None,
    miou_points: Annotated[float, typer.Option(help="Mean IoU lost has to stay below.")] = 1.0,
    class_points: Annotated[float, typer.Option(help="What any class may lose at most.")] = 3.0,
    boundary_points: Annotated[
        float, typer.Option(help="Boundary IoU lost has to stay below.")
    ] = 1.5,
    speedup: Annotated[
        float, typer.Option(help="Times as fast as the best of higher precision, at least.")
    ] = 1.2,
    limit: Annotated[
        str, typer.Option(help="Nothing new is begun later: 90s, 30m, 1h30m.")
    ] = "30m",
    images: Annotated[int, typer.Option(help="Of train, for the ranges of int8.")] = 64,
    calibration_may_lack: Annotated[
        bool,
        typer.Option("--calibration-may-lack", help="Go on where train lacks a class."),
    ] = False,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Look for faster variants of a bundle, and admit those that hold their scores.

    Scores are judged on val, speed on this machine; exit status 1 when nothing is admitted.

    Example: delineate compress model.bundle DATASET

    Example: delineate compress model.bundle DATASET -o small.bundle --threads 1 --speedup 1.5
    """
    with extra("compress"):
        from delineate.compression.search import SearchSettings
        from delineate.workflows.compress import CompressSettings
        from delineate.workflows.compress import compress as run

    gate = {
        "miou_points": miou_points,
        "class_points": class_points,
        "boundary_points": boundary_points,
        "speedup": speedup,
    }
    search = checked(
        SearchSettings,
        {
            "gate": gate,
            "family": "x86" if device == "cpu" else "tensorrt",
            "limit_s": parse_duration(limit, "--limit"),
        },
        "compress",
    )
    settings = CompressSettings(
        search=search,
        engine=engine,
        device=device,
        threads=threads,
        image_hw=None if image_size is None else parse_size(image_size),
        images=images,
        may_lack=calibration_may_lack,
    )

    def tell(line: str) -> None:
        err.print(line, highlight=False, markup=False)

    found = run(bundle, dataset, out=out, force=force, settings=settings, tell=tell)
    emit(found.to_dict(), as_json=as_json, show=lambda console: _show(console, found))
    if not found.admitted:
        raise typer.Exit(1)


def _show(console: Console, found: Compressed) -> None:
    table = plain_table("variant", "engine", "p50 ms", "p95 ms", "mIoU", "times", "admitted")
    for item in found.attempts:
        miou = "-" if item.evaluation is None else f"{item.evaluation.scores.mean_iou:.4f}"
        ratio = "" if item.speedup is None else f"{item.speedup.value:.2f}"
        p50, p95 = (f"{item.timing.quantile(q).value:.2f}" for q in (0.5, 0.95))
        verdict = "yes" if item.admitted else "no"
        table.add_row(item.name, item.engine, p50, p95, miou, ratio, verdict)
    console.print(table)
    height, width = found.timed_hw
    console.print(f"One image of {height} x {width} px (height x width), in turns.")
    for item in found.attempts:
        if item.reasons:
            console.print(f"{item.label}: {'; '.join(item.reasons)}.")
    for line in found.left_out:
        console.print(f"left out: {line}")
    if found.bundle is None:
        console.print("Nothing is admitted, and nothing was written.")
        return
    for name, item in found.admitted.items():
        console.print(f"{name} is admitted: {item.label}")
    console.print(f"bundle  {found.bundle}  (--variant auto takes the fastest)")
