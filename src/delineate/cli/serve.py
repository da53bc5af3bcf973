"""``delineate serve``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from delineate.cli.console import DeviceOption, EngineOption, err, extra
from delineate.config import checked


def serve(
    bundle: Annotated[Path, typer.Argument(help="A bundle, folder or .zip.")],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.")] = 8000,
    engine: EngineOption = "auto",
    device: DeviceOption = "cpu",
    variant: Annotated[
        str, typer.Option(help="Which network of the bundle; auto takes the fastest that holds.")
    ] = "float32",
    max_body_mb: Annotated[float, typer.Option(help="Largest request body, MB.")] = 64,
    pixel_limit: Annotated[int, typer.Option(help="Largest image, pixels.")] = 2**26,
    queue_length: Annotated[int, typer.Option(help="Requests that may wait.")] = 16,
) -> None:
    """Serve a bundle over HTTP.

    Example: delineate serve model.bundle, then
    curl --data-binary @photo.jpg localhost:8000/v1/segment
    """
    with extra("serve"):
        from delineate.serving.server import run
        from delineate.serving.settings import ServingSettings
        from delineate.workflows.serve import serving_app
    from delineate.bundle.load import load

    settings = checked(
        ServingSettings,
        {
            "max_body_bytes": int(max_body_mb * 1e6) if math.isfinite(max_body_mb) else 0,
            "pixel_limit": pixel_limit,
            "queue_length": queue_length,
        },
        "delineate serve",
    )
    loaded = load(bundle, engine=engine, device=device, variant=variant)
    app = serving_app(loaded, settings)
    name = f"{loaded.manifest.name} {loaded.manifest.version}"
    run(
        app,
        host,
        port,
        on_start=lambda url: err.print(
            f"serving {name} ({loaded.variant}) on {loaded.engine} at {url}"
        ),
    )
