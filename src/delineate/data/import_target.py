"""What an import writes: classes, ignore index and colours, from the settings and the source."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from delineate.config import describe, dump_yaml
from delineate.data.class_map import ClassMap, Remapping
from delineate.data.dataset import DatasetInfo
from delineate.data.formats.settings import ImportSettings, LabelFormat
from delineate.data.formats.source import Proposal, Source
from delineate.data.palette import Colour, default_colours
from delineate.errors import SettingsError


@dataclass(frozen=True)
class Target:
    """What is written, the same for every sample.

    Attributes:
        given: classes and ignore index as the source is to be read.
        info: ``dataset.yaml`` of the new dataset.
        remapping: from the one to the other, where the user gave a class map.
        digest: of everything but the sample itself that its files depend on.
    """

    source: Source
    given: DatasetInfo
    info: DatasetInfo
    remapping: Remapping | None
    colours: tuple[Colour, ...]
    digest: bytes


def describe_target(settings: ImportSettings, source: Source, label_format: LabelFormat) -> Target:
    """What to write: the settings first, then what the source says of itself.

    Raises:
        SettingsError: classes, colours or the class map are missing or wrong.
    """
    own = source.proposal
    classes = _class_names(settings.classes) or own.classes
    if classes is None:
        raise SettingsError(
            "the names of the classes are missing",
            where="--classes",
            mend="Give them in the order of their ids, for example: "
            "--classes background,nucleus, or a text file with one a line.",
        )
    if (
        label_format == "binary"
        and len(classes) != 2
        and own.classes == ("background", "foreground")
    ):
        raise SettingsError(
            f"binary masks have 2 classes and {len(classes)} are named ({', '.join(classes)})",
            where="--classes",
            mend="Name two, the one of value 0 first, or use --format class-id.",
        )
    given = _info(settings, own, classes)
    remapping, info = None, given
    if settings.class_map is not None:
        remapping = ClassMap.parse(settings.class_map).over(given.classes, given.ignore_index)
        info = given.model_copy(
            update={
                "classes": remapping.classes,
                "ignore_index": remapping.ignore_index,
                "colours": remapping.colours(given.colours),
            }
        )
    decisive = settings.model_dump_json(
        include={"values", "class_map", "class_property", "overlap", "crowd"}
    )
    digest = hashlib.blake2b(f"{label_format}\n{decisive}\n{dump_yaml(given)}".encode())
    colours = info.colours or default_colours(len(info.classes), info.classes)
    return Target(source, given, info, remapping, colours, digest.digest())


def _info(settings: ImportSettings, own: Proposal, classes: tuple[str, ...]) -> DatasetInfo:
    ignore = own.ignore_index if settings.ignore_index is None else settings.ignore_index
    colours = settings.colours
    if colours is None and own.colours is not None and len(own.colours) == len(classes):
        colours = own.colours
    try:
        return DatasetInfo(
            classes=classes,
            ignore_index=ignore,
            colours=colours,
            pixel_size_um=own.pixel_size_um,
            groups=settings.groups or own.groups,
        )
    except ValidationError as error:
        raise SettingsError(describe(error), where="the settings of the import") from error


def _class_names(classes: tuple[str, ...] | Path | None) -> tuple[str, ...] | None:
    if not isinstance(classes, Path):
        return classes
    try:
        lines = classes.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"cannot be read as a list of class names ({error})",
            where=classes,
            mend="Give a text file with one name a line, or the names with commas between.",
        ) from error
    return tuple(line.strip() for line in lines if line.strip())
