"""A path -> the source that reads it: what format it is, where the user did not say."""

from __future__ import annotations

from pathlib import Path

from delineate.data.dataset import list_files
from delineate.data.formats.binary import BinarySource, class_folders
from delineate.data.formats.cityscapes import CityscapesSource, is_cityscapes
from delineate.data.formats.coco import is_coco, open_coco
from delineate.data.formats.coco_panoptic import is_coco_panoptic, open_coco_panoptic
from delineate.data.formats.cvat import is_cvat, open_cvat
from delineate.data.formats.folders import FolderSource, split_names_in
from delineate.data.formats.geojson import is_geojson, open_geojson
from delineate.data.formats.huggingface import is_huggingface, open_huggingface
from delineate.data.formats.label_studio import is_label_studio, open_label_studio
from delineate.data.formats.labelme import is_labelme, open_labelme
from delineate.data.formats.settings import ImportSettings, LabelFormat
from delineate.data.formats.source import Source
from delineate.errors import DatasetError, SettingsError

_MASKS: tuple[LabelFormat, ...] = ("class-id", "voc", "binary", "values", "rgb")
_SNIFFERS = (
    (is_coco_panoptic, "coco-panoptic"),
    (is_coco, "coco"),
    (is_labelme, "labelme"),
    (is_geojson, "geojson"),
    (is_label_studio, "label-studio"),
    (is_cvat, "cvat"),
)


def detect(settings: ImportSettings) -> LabelFormat:
    """The format of ``settings.source``: from the layout of a folder, or the head of a file.

    Raises:
        DatasetError: nothing that is known.
    """
    source = settings.source
    if not source.exists():
        raise DatasetError("no such file or folder", where=source)
    if settings.values is not None:
        return "values"
    if source.is_dir():
        if is_cityscapes(source):
            return "cityscapes"
        if is_huggingface(source):
            return "huggingface"
        if (source / "SegmentationClass").is_dir():
            return "voc"
        if settings.masks is not None or any(masks.is_dir() for masks in _mask_folders(source)):
            return "binary" if _several(settings) else "class-id"
        if settings.mask_suffix:
            return "class-id"
    candidates = _annotation_files(source)
    for sniff, name in _SNIFFERS:  # a panoptic export holds files that pass for COCO as well
        if any(sniff(candidate) for candidate in candidates):
            return name  # type: ignore[return-value]
    raise DatasetError(
        "is of no label format that is recognised",
        where=source,
        mend="Name it with --format, and the folder of masks with --masks.",
    )


def _mask_folders(source: Path) -> list[Path]:
    return [source / "masks", *(source / split / "masks" for split in split_names_in(source))]


def _annotation_files(source: Path) -> list[Path]:
    """One annotation file of each kind and folder; the rest will be alike."""
    if source.is_file():
        return [source]
    found: list[Path] = []
    for pattern in ("*", "*/*", "*/*/*"):
        for suffix in (".json", ".geojson", ".xml"):
            found += sorted(source.glob(pattern + suffix))[:4]
    return found


def open_source(settings: ImportSettings) -> Source:
    """The source of ``settings``, its format detected where it is ``auto``.

    Raises:
        DatasetError: no such place, or nothing in it that the format has.
        MissingExtraError: the format needs a package that is not installed.
        SettingsError: an option that the format needs is missing.
    """
    found = detect(settings) if settings.format == "auto" else settings.format
    if not settings.source.exists():
        raise DatasetError("no such file or folder", where=settings.source)
    _refuse_other_options(settings, found)
    match found:
        case "coco":
            return open_coco(settings)
        case "coco-panoptic":
            return open_coco_panoptic(settings)
        case "labelme":
            return open_labelme(settings)
        case "geojson":
            return open_geojson(settings)
        case "cvat":
            return open_cvat(settings)
        case "label-studio":
            return open_label_studio(settings)
        case "huggingface":
            return open_huggingface(settings)
        case "cityscapes":
            return CityscapesSource(settings)
        case "binary" if _several(settings):
            return BinarySource(settings)
        case _:
            _refuse_missing_options(settings, found)
            return FolderSource(settings, found)


def _several(settings: ImportSettings) -> bool:
    """Whether there is one binary mask for each class, not one for each image."""
    ends = tuple(f"_{name}" for name in settings.class_names() or ())
    places = [settings.masks] if settings.masks is not None else _mask_folders(settings.source)
    return any(
        class_folders(masks)
        or (bool(ends) and any(file.stem.endswith(ends) for file in list_files(masks)))
        for masks in places
    )


def _refuse_other_options(settings: ImportSettings, found: LabelFormat) -> None:
    """Refuse options that the format would not look at."""
    masks = found in _MASKS
    for option, given, read in (
        ("--masks", settings.masks, masks or found == "coco-panoptic"),
        ("--instances", settings.instances, masks),
        ("--images", settings.images, not masks and found not in ("cityscapes", "huggingface")),
        ("--mask-suffix", settings.mask_suffix, masks),
        ("--values", settings.values, found == "values"),
        ("--class-property", settings.class_property, found == "geojson"),
    ):
        if given and not read:
            raise SettingsError(
                f"has no meaning for {found}",
                where=option,
                mend="Leave it out, or name another --format.",
            )


def _refuse_missing_options(settings: ImportSettings, found: LabelFormat) -> None:
    if found == "values" and not settings.values:
        raise SettingsError(
            "the classes of the grey values are missing",
            where="--values",
            mend="For example: --values 0=background,128=cytoplasm,255=nucleus",
        )
    if found == "rgb" and not settings.colours:
        raise SettingsError(
            "the colours of the classes are missing",
            where="--colours",
            mend="For example: --classes background,road --colours 000000,804080",
        )
