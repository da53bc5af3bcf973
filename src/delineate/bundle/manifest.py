"""``manifest.json``: what a bundle is, checked field by field when it is read."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from delineate.config import (
    Normalisation,
    Positive,
    PostprocessingSettings,
    Settings,
    TilingSettings,
    describe,
)
from delineate.errors import BundleError, SettingsError
from delineate.types import PixelType, PredictorSpec, Task

SCHEMA_VERSION = 1
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"  # of a bundle
Byte = Annotated[int, Field(ge=0, le=255)]
Colour = tuple[Byte, Byte, Byte]
Precision = Literal["float32", "bfloat16", "float16", "int8"]
EngineName = Literal["onnxruntime", "openvino", "tensorrt"]
CLASSICAL = "classical"


class ClassInfo(Settings):
    """One class, background included."""

    id: int = Field(ge=0)
    name: str = Field(min_length=1)
    colour: Colour = Field(description="red, green, blue, 0 to 255")


class InputInfo(Settings):
    """What the graph takes."""

    channels: int = Field(ge=1)
    dtype: PixelType
    multiple_of: int = Field(1, ge=1, description="sizes that are multiples need no padding")
    fixed_hw: tuple[int, int] | None = Field(None, description="the only size taken, pixels")
    largest_batch: int | None = Field(None, ge=1)
    pixel_size_um: Positive | None = Field(None, description="micrometres of the training images")
    normalisation: Normalisation = Field(description="what the graph does with raw pixels first")


class Tolerance(Settings):
    """How far golden outputs may be missed on another processor."""

    labels: float = Field(0.002, ge=0, description="share of pixels that may change class")
    summary: float = Field(0.01, ge=0, description="largest difference of a summary value")


class Variant(Settings):
    """A network file of the bundle and the arithmetic it is run in, or a classical method."""

    file: str
    precision: Precision = Field("float32", description="of the arithmetic; int8: inside the file")
    engine: EngineName | Literal["classical"] | None = Field(
        None, description="the one that it was admitted on; any when left out"
    )
    scores: dict[str, float | None] = Field({}, description="on the validation split")
    latency_ms: dict[str, float] = Field(
        {}, description="median, by engine, device, threads and size, when measured"
    )
    tolerance: Tolerance = Tolerance()


class Calibration(Settings):
    """The temperature inside the graph, fitted on the validation split (Guo et al. 2017)."""

    temperature: Positive = Field(description="the logits are divided by it")
    ece_before: float = Field(ge=0, le=1, description="expected calibration error without it")
    ece_after: float = Field(ge=0, le=1, description="the same with it, on the same pixels")


class Manifest(Settings):
    """The whole manifest."""

    schema_version: int = SCHEMA_VERSION
    name: str = Field(pattern=f"^{NAME}$")
    version: str = "1"
    task: Task
    classes: tuple[ClassInfo, ...] = Field(min_length=2)
    ignore_index: int | None = Field(None, ge=0)
    input: InputInfo
    tiling: TilingSettings = TilingSettings()
    postprocessing: PostprocessingSettings = PostprocessingSettings()
    calibration: Calibration | None = Field(None, description="already inside the graph")
    variants: dict[str, Variant]
    provenance: dict[str, Any] = Field({}, description="dataset hash, plan, versions, licences")
    files: dict[str, str] = Field(
        {}, description="SHA-256 of every file; of the manifest itself with its own as zeros"
    )

    @field_validator("classes")
    @classmethod
    def _ids_count_up(cls, classes: tuple[ClassInfo, ...]) -> tuple[ClassInfo, ...]:
        if [item.id for item in classes] != list(range(len(classes))):
            raise ValueError("class ids must count up from 0 without gaps")
        if len({item.name for item in classes}) < len(classes):
            raise ValueError("class names must differ")
        return classes

    @model_validator(mode="after")
    def _consistent(self) -> Manifest:
        if "float32" not in self.variants:
            raise ValueError("the variant float32 is missing")
        if self.task == "binary" and len(self.classes) != 2:
            raise ValueError(f"a binary task has 2 classes, not {len(self.classes)}")
        return self

    @property
    def classical(self) -> bool:
        """Whether this is no network but a classical method (:mod:`delineate.bundle.classical`)."""
        return self.variants["float32"].engine == CLASSICAL

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(item.name for item in self.classes)

    @property
    def colours(self) -> tuple[Colour, ...]:
        return tuple(item.colour for item in self.classes)

    def spec(self) -> PredictorSpec:
        """What a predictor of this bundle takes and gives."""
        return PredictorSpec(
            classes=self.class_names,
            task=self.task,
            channels=self.input.channels,
            dtype=self.input.dtype,
            multiple_of=self.input.multiple_of,
            fixed_hw=self.input.fixed_hw,
            largest_batch=self.input.largest_batch,
            normalised_by_image=self.input.normalisation.by == "image",
        )


def class_infos(names: Sequence[str], colours: Sequence[Colour]) -> tuple[ClassInfo, ...]:
    """The classes of a manifest, by id."""
    pairs = zip(names, colours, strict=True)
    return tuple(
        ClassInfo(id=i, name=name, colour=colour) for i, (name, colour) in enumerate(pairs)
    )


def bundle_name(out: Path, wanted: str | None) -> str:
    """The name of a bundle, in the characters that a manifest takes.

    Args:
        out: what it is named after when no name is wanted.
        wanted: the name.

    Raises:
        SettingsError: it cannot be a name.
    """
    if wanted is None:
        words = re.findall(NAME, out.resolve().name)
        return "-".join(words) or "model"
    if re.fullmatch(NAME, wanted) is None:
        raise SettingsError(
            f"{wanted!r} cannot be a bundle's name",
            where="name",
            mend="Use letters, digits, dots, dashes and underscores, a letter or digit first.",
        )
    return wanted


def read_manifest(text: bytes, where: str) -> Manifest:
    """Parse ``manifest.json``.

    Raises:
        BundleError: it is no JSON, of another schema version, or a field is wrong.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"manifest.json is no JSON ({error})", where=where) from error
    version = document.get("schema_version") if isinstance(document, dict) else None
    if version != SCHEMA_VERSION:
        raise BundleError(
            f"manifest.json has schema version {version}, this delineate reads {SCHEMA_VERSION}",
            where=where,
            mend="Install the delineate that wrote it, or export the bundle again.",
        )
    if document.get("task") == "multilabel":
        raise BundleError(
            "the task multilabel is reserved and not supported",
            where=where,
            mend="Train one binary model for each label.",
        )
    try:
        return Manifest.model_validate(document)
    except ValidationError as error:
        raise BundleError(f"manifest.json is wrong: {describe(error)}", where=where) from error
