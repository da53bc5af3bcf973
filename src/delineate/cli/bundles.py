"""``delineate import-onnx``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from delineate.cli.console import ForceOption, JsonOption, emit
from delineate.config import checked, read_yaml
from delineate.errors import SettingsError

MOST_PLANES = 65536  # ids that a 16-bit mask holds


def import_onnx(
    network: Annotated[Path, typer.Argument(help="An ONNX file.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The bundle to write.")],
    settings: Annotated[
        Path | None, typer.Option(help="A YAML with these options; options given here win.")
    ] = None,
    classes: Annotated[
        str | None, typer.Option(help="Names by id, comma-separated, background included.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the bundle.")] = None,
    channel_order: Annotated[str | None, typer.Option(help="rgb or bgr.")] = None,
    scale: Annotated[
        str | None, typer.Option(help="The network sees (x * scale - mean) / std; 1/255 works.")
    ] = None,
    mean: Annotated[str | None, typer.Option(help="One value, or one for each channel.")] = None,
    std: Annotated[str | None, typer.Option(help="One value, or one for each channel.")] = None,
    output_kind: Annotated[str | None, typer.Option(help="logits, softmax or sigmoid.")] = None,
    output_planes: Annotated[
        str | None, typer.Option(help="Planes that are the classes: 0-10 or 3,1,2.")
    ] = None,
    output: Annotated[str | None, typer.Option(help="Output to take, if several.")] = None,
    dtype: Annotated[str | None, typer.Option(help="uint8, uint16 or float32 images.")] = None,
    fit: Annotated[
        str | None, typer.Option(help="resize or tile, for a network of one size.")
    ] = None,
    ignore_index: Annotated[int | None, typer.Option(help="Id in masks that counts not.")] = None,
    licence: Annotated[str | None, typer.Option(help="Licence of the weights.")] = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Turn somebody else's ONNX network into a bundle.

    Example: delineate import-onnx net.onnx -o net.bundle --classes sky,road --scale 1/255
    """
    from delineate.bundle.import_onnx import ImportOnnxSettings
    from delineate.bundle.import_onnx import import_onnx as run

    given: dict[str, Any] = {
        "classes": None if classes is None else [part.strip() for part in classes.split(",")],
        "name": name,
        "channel_order": channel_order,
        "scale": None if scale is None else _number(scale, "--scale"),
        "mean": None if mean is None else _numbers(mean, "--mean"),
        "std": None if std is None else _numbers(std, "--std"),
        "output_kind": output_kind,
        "output_planes": None if output_planes is None else _planes(output_planes),
        "output": output,
        "dtype": dtype,
        "fit": fit,
        "ignore_index": ignore_index,
        "licence": licence,
    }
    changes = {key: value for key, value in given.items() if value is not None}
    if settings is None and classes is None:
        raise SettingsError(
            "the classes were not named", mend="Add --classes NAME,NAME,... or --settings FILE."
        )
    document = {} if settings is None else read_yaml(settings)
    wanted = checked(ImportOnnxSettings, document | changes, settings or "options")
    manifest = run(network, out, wanted, force=force)

    def show(console: Console) -> None:
        entry, fixed_hw = manifest.input, manifest.provenance["network_hw"]
        size = f"any size (multiples of {entry.multiple_of} cost no padding)"
        if fixed_hw is not None:
            way = "resized to" if entry.fixed_hw is None else "in tiles of"
            size = f"any size, {way} {fixed_hw[0]} x {fixed_hw[1]} px"
        console.print(
            f"{manifest.name}: {len(manifest.classes)} classes, {entry.channels} channels of "
            f"{entry.dtype}, {size}\n"
            f"bundle  {out}\nnext    delineate evaluate {out} DATASET"
        )

    emit(manifest.model_dump(mode="json"), as_json=as_json, show=show)


def _number(text: str, option: str) -> float:
    above, _, below = text.partition("/")
    try:
        return float(above) / (float(below) if below else 1.0)
    except (ValueError, ZeroDivisionError):
        raise SettingsError(f"{text!r} is no number", where=option) from None


def _numbers(text: str, option: str) -> list[float]:
    return [_number(part, option) for part in text.split(",")]


def _planes(text: str) -> list[int]:
    planes: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"\s*([0-9]{1,5})\s*(?:-\s*([0-9]{1,5})\s*)?", part)
        first, last = (0, -1) if found is None else (int(found[1]), int(found[2] or found[1]))
        if not first <= last < MOST_PLANES:
            raise SettingsError(
                f"{text!r} names no planes", where="--output-planes", mend="Write 0-10 or 3,1,2."
            )
        planes += range(first, last + 1)
    return planes
