"""What an import writes: classes, ignore index and colours, from the settings and the source."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import ValidationError

from delineate.config import describe, dump_yaml
from delineate.data.class_map import ClassMap, Remapping
from delineate.data.dataset import INFO_FILE, DatasetInfo
from delineate.data.export_record import read_export_record
from delineate.data.formats.settings import ImportSettings, LabelFormat
from delineate.data.formats.source import Item, Proposal, Source
from delineate.data.palette import Colour, default_colours
from delineate.errors import DatasetError, SettingsError


@dataclass(frozen=True)
class Target:
    """What is written, the same for every sample.

    Attributes:
        given: classes and ignore index as the source is to be read.
        info: ``dataset.yaml`` of the new dataset.
        remapping: from the one to the other, where the user gave a class map.
        keeps_objects: False where the source says that its objects are none.
        roots: folders of the source, which an item's origin is told from.
        digest: of everything but the sample itself that its files depend on.
    """

    source: Source
    given: DatasetInfo
    info: DatasetInfo
    remapping: Remapping | None
    colours: tuple[Colour, ...]
    keeps_objects: bool
    roots: tuple[Path, ...]
    digest: bytes

    def origin(self, item: Item) -> str:
        """What the source calls ``item``: its path there, wherever the source lies."""
        path = item.image or Path(item.where)
        for root in self.roots:
            if path.is_relative_to(root):
                return path.relative_to(root).as_posix()
        return str(path)


def describe_target(settings: ImportSettings, source: Source, label_format: LabelFormat) -> Target:
    """What to write: the settings first, then what the source says of itself.

    Raises:
        DatasetError: the source has no classes.
        SettingsError: classes, colours or the class map are missing or wrong.
    """
    own, keeps_objects, ignore = source.proposal, True, None
    folder = settings.source if settings.source.is_dir() else settings.source.parent
    has_own = (folder / INFO_FILE).is_file()
    record = None if has_own else read_export_record(folder)
    if record is not None:  # our own export knows what its format could not say
        ignore, keeps_objects = record.ignore_index, record.objects
        own = replace(own, classes=record.classes)
        if label_format != "voc" or ignore is None:  # in VOC ignored pixels are 255
            own = replace(own, ignore_index=ignore)
    classes = _wanted_classes(settings, own, label_format)
    given = _info(settings, own, classes)
    _refuse_clashes(settings, given, label_format)
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
    elif ignore is not None and settings.ignore_index is None and ignore != given.ignore_index:
        remapping = Remapping.of_ignored(given.classes, given.ignore_index, ignore)
        info = given.model_copy(update={"ignore_index": ignore})
    decisive = settings.model_dump_json(
        include={"values", "class_map", "class_property", "overlap", "crowd"}
    )
    terms = dump_yaml(given.model_copy(update={"groups": None}))
    digest = hashlib.blake2b(f"{label_format}\n{decisive}\n{terms}\n{keeps_objects}".encode())
    colours = info.colours or default_colours(len(info.classes), info.classes)
    places = (settings.images, settings.source, settings.source.parent)
    roots = tuple(place for place in places if place is not None)
    return Target(source, given, info, remapping, colours, keeps_objects, roots, digest.digest())


def _wanted_classes(
    settings: ImportSettings, own: Proposal, label_format: LabelFormat
) -> tuple[str, ...]:
    """The user's classes, or else the source's own."""
    classes = settings.class_names() or own.classes
    if classes is None:
        raise SettingsError(
            "the names of the classes are missing",
            where="--classes",
            mend="Give them in the order of their ids, for example: "
            "--classes background,nucleus, or a text file with one a line.",
        )
    if len(classes) < 2 and settings.classes is None:
        raise DatasetError(
            "names no class but the background, as nothing in it is labelled",
            where=settings.source,
            mend="Give the classes: --classes background,nucleus.",
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
    return classes


def _refuse_clashes(
    settings: ImportSettings, given: DatasetInfo, label_format: LabelFormat
) -> None:
    colours = given.colours or ()
    if label_format == "rgb" and len(set(colours)) < len(colours):
        twice = next(colour for colour in colours if colours.count(colour) > 1)
        raise SettingsError(
            f"gives the colour {twice} to two classes, and in RGB masks a colour is a class",
            where="--colours",
            mend="Give each class a colour of its own; --map joins classes.",
        )
    named = label_format not in ("class-id", "voc", "rgb", "binary", "huggingface")
    ignore = settings.ignore_index
    if named and ignore is not None and ignore < len(given.classes):
        raise SettingsError(
            f"{ignore} is the id of the class {given.classes[ignore]!r}, all of which would be "
            "ignored",
            where="--ignore-index",
            mend=f"Take {len(given.classes)} or more; --map {given.classes[ignore]}=ignore is the "
            "way to ignore a class.",
        )


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
