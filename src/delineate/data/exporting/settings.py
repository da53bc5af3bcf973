"""What is exported, as what, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from pydantic import Field

from delineate.config import Settings

ExportFormat: TypeAlias = Literal["class-id", "voc", "binary", "coco", "coco-panoptic", "geojson"]


class ExportSettings(Settings):
    """What is exported, and as what."""

    dataset: Path = Field(description="folder with dataset.yaml")
    out: Path = Field(description="folder to write")
    format: ExportFormat = Field(description="how labels are stored")
    splits: tuple[str, ...] | None = Field(None, description="which splits; all if left out")
    instances: bool = Field(True, description="write object ids, where the dataset has them")
    force: bool = Field(False, description="replace an existing folder")
    workers: int | None = Field(None, ge=1, description="threads; as many as processors")


@dataclass(frozen=True)
class ExportReport:
    """What was written.

    Attributes:
        path: the new folder.
        format: of the labels in it.
        samples: how many images in each split.
        objects: how many object ids were written; 0 where the format or the dataset has none.
        notes: conventions of the format that change what a reader sees, one sentence each.
    """

    path: Path
    format: ExportFormat
    samples: Mapping[str, int]
    objects: int
    notes: tuple[str, ...]
