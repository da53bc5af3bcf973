"""``delineate bench``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from delineate.cli.console import (
    DeviceOption,
    ForceOption,
    JsonOption,
    MapOption,
    ThreadsOption,
    checked_ms,
    emit,
    err,
    parse_duration,
    parse_size,
    plain_table,
)

if TYPE_CHECKING:
    from delineate.workflows.bench_result import Bench


def bench(
    bundles: Annotated[list[Path], typer.Argument(help="Bundles, or runs that hold one each.")],
    data: Annotated[Path, typer.Option(help="A canonical dataset with the bundles' classes.")],
    split: Annotated[str, typer.Option(help="train, val, test, ...")] = "val",
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="A page, bench.html; JSON and picture go beside it."),
    ] = None,
    engine: Annotated[
        str, typer.Option(help="auto (all), onnxruntime, openvino or tensorrt.")
    ] = "auto",
    device: DeviceOption = "cpu",
    threads: ThreadsOption = None,
    image_size: Annotated[
        str | None, typer.Option(help="What is timed, HEIGHTxWIDTH; the first image otherwise.")
    ] = None,
    p95_ms: Annotated[
        float | None, typer.Option(help="A budget: what is the most accurate within it?")
    ] = None,
    class_map: MapOption = None,
    limit: Annotated[str, typer.Option(help="For rounds of timing; scores come on top.")] = "3m",
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Compare bundles on this machine: accuracy, latency, throughput, memory, size, start-up.

    Every variant runs on every engine it may run on, in turns. Exit status 1 when a budget is given
    and nothing stays within it.

    Example: delineate bench unet.bundle forest.bundle --data DATASET -o bench.html

    Example: delineate bench runs/first --data DATASET --split test --threads 1 --p95-ms 30
    """
    from delineate.workflows.bench import bench as run
    from delineate.workflows.bench_result import BenchSettings

    settings = BenchSettings(
        split=split,
        engine=engine,
        device=device,
        threads=threads,
        image_hw=None if image_size is None else parse_size(image_size),
        class_map=class_map,
        p95_ms=None if p95_ms is None else checked_ms(p95_ms),
        limit_s=parse_duration(limit, "--limit"),
    )

    def tell(line: str) -> None:
        err.print(line, highlight=False, markup=False)

    found = run(bundles, data, out=out, force=force, settings=settings, tell=tell)
    emit(found.to_dict(), as_json=as_json, show=lambda console: _show(console, found))
    if p95_ms is not None and found.fitting is None:
        raise typer.Exit(1)


def _show(console: Console, found: Bench) -> None:
    heads = ("mIoU", "Dice", "bound.", "p50", "p95", "p99", "img/s", "MB", "start", "disk")
    energy = () if found.no_energy else ("joules",)
    table = plain_table("contender", *heads, *energy)
    for row in found.to_dict()["contenders"]:
        table.add_row(
            row["name"],
            *(
                "-" if row[key] is None else f"{row[key]:.3f}"
                for key in ("miou", "dice", "boundary_iou")
            ),
            *(f"{row[f'network_p{q}_ms']:.1f}" for q in (50, 95, 99)),
            f"{row['images_per_s']:.1f}",
            "-" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 2**20:.0f}",
            "-" if row["start_s"] is None else f"{row['start_s']:.1f} s",
            f"{row['file_bytes'] / 2**20:.1f}",
            *(
                "-" if row["joules_per_image"] is None else f"{row['joules_per_image']:.3g}"
                for _ in energy
            ),
        )
    console.print(table)
    height, width = found.measured[0].contender.image.shape[:2]
    console.print(
        f"p50, p95, p99: milliseconds of the network alone for one image of {height} x {width} px, "
        "in turns. MB: peak of a process. disk: MB."
    )
    if found.no_energy:
        console.print(f"No joules: {found.no_energy}.")
    for name, why in found.left_out.items():
        console.print(f"left out: {name} ({why})")
    for sentence in found.verdict():
        console.print(sentence)
    if found.files:
        console.print(f"page     {found.files['page']}\npicture  {found.files['picture']}")
