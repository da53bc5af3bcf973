"""``delineate import-onnx``: somebody else's network becomes a bundle, without PyTorch."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from delineate.bundle.card import model_card
from delineate.bundle.foreign import ForeignNetwork, read_network
from delineate.bundle.graph import OutputKind, Wrapping, finish
from delineate.bundle.manifest import Colour, InputInfo, Manifest, Variant, class_infos
from delineate.bundle.store import write_bundle
from delineate.config import Normalisation, Positive, Settings, TilingSettings, checked
from delineate.data.palette import default_colours
from delineate.errors import SettingsError
from delineate.types import PixelType, Task


class ImportOnnxSettings(Settings):
    """What cannot be read off a network file: the meaning of its input and output."""

    name: str | None = Field(None, description="of the bundle; the file's name when left out")
    classes: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        min_length=2, description="names by id, background included"
    )
    colours: tuple[Colour, ...] | None = None
    ignore_index: int | None = None
    dtype: PixelType = Field("uint8", description="pixel type of the raw images")
    channel_order: Literal["rgb", "bgr"] = Field("rgb", description="as the network takes them")
    scale: float = Field(1.0, gt=0, description="the network sees (x * scale - mean) / std")
    mean: tuple[float, ...] = Field((0.0,), description="after scale, in the network's order")
    std: tuple[Positive, ...] = Field((1.0,), description="after scale, in the network's order")
    output_kind: Literal["logits", "softmax", "sigmoid"] = "logits"
    output_planes: tuple[int, ...] | None = Field(
        None, description="planes of the output that are the classes, in their order; all if none"
    )
    output: str | None = Field(None, description="name of the output, when there are several")
    fit: Literal["resize", "tile"] | None = Field(
        None, description="for a network of one size: resize every image to it, or cut tiles"
    )
    multiple_of: int | None = Field(
        None, ge=1, description="sizes the network takes; found by trying when left out"
    )
    tiling: TilingSettings = TilingSettings()
    licence: str = Field("unknown", description="of the weights")
    source: str = Field("", description="where the network comes from")

    @field_validator("output_planes")
    @classmethod
    def _planes_differ(cls, planes: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if planes is not None and len(set(planes)) < len(planes):
            raise ValueError("a plane is named twice")
        return planes


def import_onnx(
    path: Path | str, out: Path | str, settings: ImportOnnxSettings, *, force: bool = False
) -> Manifest:
    """Turn an ONNX file into a bundle.

    Raises:
        ModelError: the network cannot be used.
        SettingsError: the settings and the network disagree.
        OutputError: ``out`` exists or cannot be written.
    """
    path, out = Path(path), Path(out)
    network = read_network(path, settings.output)
    _check_size(network, settings, path)
    _check_planes(network, settings, path)
    _check_channels(network, settings, path)
    wrapping = _wrapping(network, settings, path)
    model = finish(network.model, wrapping)
    manifest = _manifest(network, wrapping, settings, path)
    files = {"model.onnx": model.SerializeToString(), "card.md": model_card(manifest).encode()}
    write_bundle(out, manifest, files, force=force)
    return manifest


def _check_size(network: ForeignNetwork, settings: ImportOnnxSettings, path: Path) -> None:
    if network.fixed_hw is not None and settings.fit is None:
        height, width = network.fixed_hw
        raise SettingsError(
            f"takes images of {height} x {width} pixels (height x width) only",
            where=path,
            mend="Add --fit resize (every image is resized to it) or --fit tile (tiles of it).",
        )
    if network.fixed_hw is None and settings.fit is not None:
        raise SettingsError(
            f"takes images of any size, so --fit {settings.fit} has no meaning", where=path
        )
    if network.fixed_hw is not None and settings.multiple_of is not None:
        raise SettingsError(
            f"takes images of one size, so multiple_of {settings.multiple_of} has no meaning",
            where=path,
        )


def _check_planes(network: ForeignNetwork, settings: ImportOnnxSettings, path: Path) -> None:
    planes = settings.output_planes
    if planes is not None and not all(0 <= plane < network.planes for plane in planes):
        raise SettingsError(
            f"output planes {planes} were asked for, the network gives {network.planes} (0 to "
            f"{network.planes - 1})",
            where=path,
        )
    count = network.planes if planes is None else len(planes)
    classes = len(settings.classes)
    if count != classes and not (count == 1 and classes == 2):
        raise SettingsError(
            f"{classes} classes were named and the network gives {count} planes",
            where=path,
            mend="Name one class for each plane, background included, or choose planes with "
            "--output-planes.",
        )
    if settings.output_kind == "sigmoid" and count > 1:
        raise SettingsError(
            f"a sigmoid over each of {count} planes makes a multilabel network, and the task "
            "multilabel is reserved and not supported",
            where=path,
            mend="Choose the plane of one class with --output-planes, or --output-kind softmax if "
            "the planes of a pixel sum to 1.",
        )
    if settings.colours is not None and len(settings.colours) != classes:
        raise SettingsError(f"{len(settings.colours)} colours for {classes} classes", where=path)


def _check_channels(network: ForeignNetwork, settings: ImportOnnxSettings, path: Path) -> None:
    for name, values in (("mean", settings.mean), ("std", settings.std)):
        if len(values) not in (1, network.channels):
            raise SettingsError(
                f"{name} has {len(values)} values, the network takes {network.channels} channels",
                where=path,
                mend=f"Give 1 or {network.channels} values.",
            )
    if settings.channel_order == "bgr" and network.channels != 3:
        raise SettingsError(
            f"channel order bgr was asked for, the network takes {network.channels} channels",
            where=path,
        )


def _manifest(
    network: ForeignNetwork, wrapping: Wrapping, settings: ImportOnnxSettings, path: Path
) -> Manifest:
    colours = settings.colours or default_colours(len(settings.classes), settings.classes)
    fields: dict[str, Any] = {
        "name": settings.name or _name_from(path),
        "task": wrapping.task,
        "classes": class_infos(settings.classes, colours),
        "ignore_index": settings.ignore_index,
        "input": InputInfo(
            channels=wrapping.channels,
            dtype=wrapping.dtype,
            multiple_of=wrapping.multiple_of,
            fixed_hw=network.fixed_hw if settings.fit == "tile" else None,
            largest_batch=1 if network.fixed_batch else None,
            normalisation=wrapping.normalisation,
        ),
        "tiling": settings.tiling,
        "variants": {"float32": Variant(file="model.onnx")},
        "provenance": {
            "imported_from": path.name,
            "source": settings.source,
            "licence": settings.licence,
            "opset_of_source": network.opset,
            "network_hw": None if network.fixed_hw is None else list(network.fixed_hw),
            "import": settings.model_dump(mode="json", exclude_defaults=True),
            "software": {name: importlib.metadata.version(name) for name in ("delineate", "onnx")},
        },
    }
    return checked(Manifest, fields, path)


def _name_from(path: Path) -> str:
    """The file's name with what a bundle's name cannot hold replaced."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).lstrip("._-") or "model"


def _wrapping(network: ForeignNetwork, settings: ImportOnnxSettings, path: Path) -> Wrapping:
    planes = network.planes if settings.output_planes is None else len(settings.output_planes)
    task: Task = "binary" if planes == 1 else "multiclass"
    kind: OutputKind = "logits" if settings.output_kind == "logits" else "probabilities"
    per_channel = network.channels
    mean = settings.mean * per_channel if len(settings.mean) == 1 else settings.mean
    std = settings.std * per_channel if len(settings.std) == 1 else settings.std
    return Wrapping(
        channels=network.channels,
        dtype=settings.dtype,
        task=task,
        classes=len(settings.classes),
        normalisation=checked(
            Normalisation,
            {
                "mean": [value / settings.scale for value in mean],
                "std": [value / settings.scale for value in std],
            },
            f"{path}: mean and std divided by scale",
        ),
        channel_order=(2, 1, 0) if settings.channel_order == "bgr" else None,
        layout=network.layout,
        multiple_of=settings.multiple_of or network.multiple_of,
        resize_hw=network.fixed_hw if settings.fit == "resize" else None,
        output_kind=kind,
        output_planes=settings.output_planes,
        rescale_output=network.rescales,
    )
