"""``export.yaml``: what an export says of itself, so that an import reads it as it was meant."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field

from delineate.config import Settings, checked, dump_yaml, read_yaml
from delineate.data.exporting.settings import ExportFormat
from delineate.errors import DatasetError, SettingsError

EXPORT_FILE = "export.yaml"
WRITER: Final = "delineate data export"

Count = Annotated[int, Field(ge=0)]


class ExportRecord(Settings):
    """The fields of ``export.yaml``."""

    written_by: Literal["delineate data export"] = Field(
        WRITER, description="what other files of this name do not say"
    )
    format: ExportFormat = Field(description="how labels are stored")
    classes: tuple[str, ...] = Field(
        min_length=2, description="names by id, those without pixels and the background included"
    )
    ignore_index: int | None = Field(
        ge=0, le=65535, description="the id of ignored pixels in the dataset that was exported"
    )
    images: dict[str, Count] = Field(description="how many in each split")
    objects: bool = Field(description="whether object ids are written")
    object_count: Count = Field(description="how many object ids are written")
    notes: tuple[str, ...] = Field(description="conventions of the format, one sentence each")


def read_export_record(folder: Path) -> ExportRecord | None:
    """What the export in ``folder`` says of itself.

    Returns:
        None where there is no ``export.yaml``, or one that no export wrote.

    Raises:
        DatasetError: the file is damaged.
    """
    file = folder / EXPORT_FILE
    if not file.is_file():
        return None
    try:
        document = read_yaml(file)
        if document.get("written_by") != WRITER:
            return None
        return checked(ExportRecord, document, file)
    except SettingsError as error:
        raise DatasetError(
            error.found,
            where=file,
            mend="Export again, or delete this file and give the classes with --classes.",
        ) from error


def write_export_record(record: ExportRecord, folder: Path) -> None:
    """Write ``export.yaml`` into ``folder``."""
    (folder / EXPORT_FILE).write_text(dump_yaml(record), encoding="utf-8")
