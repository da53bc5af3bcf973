"""Folders of images and masks as people keep them -> the canonical dataset."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, ValidationError

from delineate.config import Fraction, Settings, describe, dump_yaml
from delineate.data.dataset import (
    INFO_FILE,
    ONLY_SPLIT,
    DatasetInfo,
    by_stem,
    count_ids,
    list_files,
    read_info,
    refuse_other_ids,
    refuse_other_size,
)
from delineate.data.files import atomic_folder, refuse_existing
from delineate.data.images import decode_image, unreadable
from delineate.data.mask_formats import VOC_CLASSES, VOC_VOID, MaskFormat, to_labels
from delineate.data.masks import encode_mask
from delineate.data.palette import Colour, default_colours, voc_colours
from delineate.data.splits import split_names
from delineate.errors import DatasetError, DelineateError, OutputError, SettingsError

_SOURCE_FOLDERS = (("images", "masks"), ("JPEGImages", "SegmentationClass"))
_SPLITS = ("train", "val", "test")
_LISTED = 5

Progress = Callable[[int, int], None]
"""Called with samples done and samples in all, from the calling thread."""


class ImportSettings(Settings):
    """What is imported, from where, and how it is split."""

    images: Path = Field(
        description="folder of images; or, without masks, a folder that holds images and masks, "
        "JPEGImages and SegmentationClass, or train/images and so on"
    )
    masks: Path | None = Field(None, description="folder of masks")
    out: Path = Field(description="folder to write")
    format: MaskFormat = Field("class-id", description="what the values in the masks mean")
    classes: tuple[str, ...] | Path | None = Field(
        None, description="names by id, or a text file with one a line"
    )
    ignore_index: int | None = Field(
        None, ge=0, le=65535, description="id of pixels that count nowhere; 255 for voc"
    )
    colours: tuple[Colour, ...] | None = Field(
        None, description="colour of each class; in voc masks of true colour they mean the class"
    )
    groups: dict[str, str] | str | None = Field(
        None, description="group of each sample, or a pattern on the file name"
    )
    mask_suffix: str = Field(
        "", description="what follows the image's name in the name of its mask, such as _mask"
    )
    val_fraction: Fraction = Field(0.2, description="share of the samples for val")
    seed: int = Field(0, ge=0, description="another seed, another split")
    drop_unpaired: bool = Field(False, description="leave out images or masks without the other")
    force: bool = Field(False, description="replace an existing folder")
    workers: int | None = Field(None, ge=1, description="threads; as many as processors")


@dataclass(frozen=True)
class ImportReport:
    """What was written.

    Attributes:
        path: the new dataset.
        classes: names by id.
        samples: how many in each split.
        pixels: how many of each class, by id, and of the ignore index if there is one.
        dropped: files that were left out because their other half is missing.
    """

    path: Path
    classes: tuple[str, ...]
    samples: Mapping[str, int]
    pixels: Mapping[int, int]
    dropped: tuple[Path, ...]


@dataclass(frozen=True)
class _Pair:
    name: str
    image: Path
    mask: Path | None  # None in a test split without labels


def import_dataset(settings: ImportSettings, *, progress: Progress | None = None) -> ImportReport:
    """Turn folders of images and masks into the canonical dataset at ``settings.out``.

    Images are copied byte for byte; masks become indexed PNGs of class ids (16-bit grey where
    there are ids over 255). A source with train and val keeps them, and the ``dataset.yaml`` of a
    source gives what the settings leave out. Everything is read and checked, and the folder
    appears whole or not at all.

    Raises:
        DatasetError: missing pairs, no images, several files that cannot be imported.
        ImageError: an image cannot be read.
        MaskError: a mask cannot be read, or has another size or values that mean no class.
        SettingsError: classes or colours are missing or wrong.
        OutputError: ``out`` exists and ``force`` is not set, or cannot be written.
    """
    if not settings.force:
        refuse_existing(settings.out)
    _refuse_to_replace_source(settings)
    known = _known_info(settings)
    folders = _source_folders(settings)
    splits: dict[str, list[_Pair]] = {}
    dropped: list[Path] = []
    for split, (images, masks) in folders.items():
        if split == "test" and not list_files(masks):
            unlabelled = by_stem(list_files(images))
            splits[split] = [_Pair(name, file, None) for name, file in unlabelled.items()]
            continue
        splits[split], left_out = _pair_up(settings, images, masks)
        dropped += left_out
    info = _describe(settings, known)
    splits = _divide(settings, info, splits)
    jobs = [(split, pair) for split, pairs in splits.items() for pair in pairs]
    pixels: Counter[int] = Counter()
    with atomic_folder(settings.out, force=settings.force) as folder:
        _make_folders(folder, splits)
        colours = info.colours or default_colours(len(info.classes), info.classes)

        def convert(job: tuple[str, _Pair]) -> Counter[int] | DelineateError:
            try:
                return _convert(job[1], folder, job[0], settings.format, info, colours)
            except DelineateError as error:
                return error

        failures: list[DelineateError] = []
        with ThreadPoolExecutor(settings.workers or os.cpu_count()) as pool:
            for done, result in enumerate(pool.map(convert, jobs), 1):
                if isinstance(result, DelineateError):
                    failures.append(result)
                else:
                    pixels += result
                if progress is not None:
                    progress(done, len(jobs))
        _refuse_failures(failures, len(jobs), settings.images)
        (folder / INFO_FILE).write_text(dump_yaml(info), encoding="utf-8")
    samples = {split: len(pairs) for split, pairs in splits.items()}
    return ImportReport(
        settings.out, info.classes, samples, dict(sorted(pixels.items())), tuple(dropped)
    )


def _refuse_to_replace_source(settings: ImportSettings) -> None:
    out = settings.out.resolve()
    for source in (settings.images, settings.masks):
        if source is not None and source.resolve().is_relative_to(out):
            raise OutputError(
                f"is or holds the source {source}", where=settings.out, mend="Name another folder."
            )


def _known_info(settings: ImportSettings) -> DatasetInfo | None:
    """The ``dataset.yaml`` that the source has already."""
    return read_info(settings.images) if (settings.images / INFO_FILE).is_file() else None


def _source_folders(settings: ImportSettings) -> dict[str, tuple[Path, Path]]:
    """(images, masks) of each split of the source; one without splits is ``all``."""
    root = settings.images
    for folder in (root, settings.masks):
        if folder is not None and not folder.is_dir():
            raise DatasetError("no such folder", where=folder)
    if settings.masks is not None:
        return {ONLY_SPLIT: (root, settings.masks)}
    splits = {
        split: (root / split / "images", root / split / "masks")
        for split in _SPLITS
        if (root / split / "images").is_dir()
    }
    if splits:
        return splits
    for images, masks in _SOURCE_FOLDERS:
        if (root / images).is_dir() and (root / masks).is_dir():
            return {ONLY_SPLIT: (root / images, root / masks)}
    if settings.mask_suffix:
        return {ONLY_SPLIT: (root, root)}
    raise DatasetError(
        "holds no folders images and masks",
        where=root,
        mend="Name both folders: delineate data import IMAGES --masks MASKS --out OUT.",
    )


def _pair_up(settings: ImportSettings, images: Path, masks: Path) -> tuple[list[_Pair], list[Path]]:
    """The pairs of two folders, and the files left out.

    Raises:
        DatasetError: there are no images, or pairs are missing and may not be dropped.
    """
    suffix = settings.mask_suffix
    mask_files = [file for file in list_files(masks) if file.stem.endswith(suffix)]
    image_files = list_files(images)
    if images.resolve() == masks.resolve():
        image_files = [file for file in image_files if not file.stem.endswith(suffix)]
    image_of = by_stem(image_files)
    mask_of = {stem.removesuffix(suffix): file for stem, file in by_stem(mask_files).items()}
    if not image_of:
        raise DatasetError("holds no images", where=images)
    no_mask = [file for stem, file in image_of.items() if stem not in mask_of]
    no_image = [file for stem, file in mask_of.items() if stem not in image_of]
    if (no_mask or no_image) and not settings.drop_unpaired:
        parts = [
            f"{len(files)} of {total} {kind} without {other} ({_first(files)})"
            for files, total, kind, other in (
                (no_mask, len(image_of), "images", "a mask"),
                (no_image, len(mask_of), "masks", "an image"),
            )
            if files
        ]
        raise DatasetError(
            f"there are {' and '.join(parts)}",
            where=images,
            mend=f"A mask is called as its image{f' and {suffix}' if suffix else ''}, whatever "
            "the ending. Add what is missing, or leave it out with --drop-unpaired.",
        )
    pairs = [
        _Pair(stem, image, mask_of[stem])
        for stem, image in sorted(image_of.items())
        if stem in mask_of
    ]
    if not pairs:
        raise DatasetError(
            f"no image has a mask (images such as {_first(no_mask)}, masks such as "
            f"{_first(no_image)})",
            where=images,
            mend="Name masks as their images, or use --mask-suffix.",
        )
    return pairs, sorted((*no_mask, *no_image))


def _first(files: list[Path]) -> str:
    names = ", ".join(file.name for file in sorted(files)[:_LISTED])
    return names + (", ..." if len(files) > _LISTED else "")


def _describe(settings: ImportSettings, known: DatasetInfo | None) -> DatasetInfo:
    """The new ``dataset.yaml``: the settings first, then the source's own, then the format's."""
    classes = _class_names(settings.classes) or (known.classes if known else None)
    voc = settings.format == "voc"
    if classes is None:
        if settings.format == "class-id":
            raise SettingsError(
                "the names of the classes are missing",
                where="--classes",
                mend="Give them in the order of their ids, for example: "
                "--classes background,nucleus, or a text file with one a line.",
            )
        classes = VOC_CLASSES if voc else ("background", "foreground")
    if settings.format == "binary" and len(classes) != 2:
        raise SettingsError(
            f"binary masks have 2 classes and {len(classes)} are named ({', '.join(classes)})",
            where="--classes",
            mend="Name two, the one of value 0 first, or use --format class-id.",
        )
    ignore = settings.ignore_index
    if ignore is None:
        ignore = known.ignore_index if known else VOC_VOID if voc else None
    colours = settings.colours or (known.colours if known else None)
    if colours is None and voc:
        colours = voc_colours(len(classes))
    try:
        return DatasetInfo(
            classes=classes,
            ignore_index=ignore,
            colours=colours,
            pixel_size_um=known.pixel_size_um if known else None,
            groups=settings.groups or (known.groups if known else None),
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


def _divide(
    settings: ImportSettings, info: DatasetInfo, splits: dict[str, list[_Pair]]
) -> dict[str, list[_Pair]]:
    groups = {pair.name: info.group_of(pair.image) for pairs in splits.values() for pair in pairs}
    if set(splits) != {ONLY_SPLIT} or settings.val_fraction == 0:
        return splits
    pairs = {pair.name: pair for pair in splits[ONLY_SPLIT]}
    train, val = split_names(tuple(pairs), settings.val_fraction, settings.seed, groups)
    named = {"train": [pairs[n] for n in train], "val": [pairs[n] for n in val]}
    return {split: members for split, members in named.items() if members}


def _make_folders(folder: Path, splits: Iterable[str]) -> None:
    for split in splits:
        for kind in ("images", "masks"):
            _split_folder(folder, split, kind).mkdir(parents=True)


def _split_folder(folder: Path, split: str, kind: str) -> Path:
    return folder / kind if split == ONLY_SPLIT else folder / split / kind


def _convert(
    pair: _Pair,
    folder: Path,
    split: str,
    mask_format: MaskFormat,
    info: DatasetInfo,
    colours: tuple[Colour, ...],
) -> Counter[int]:
    """Read, check and write one pair; returns the pixels of each id."""
    try:
        image_bytes = pair.image.read_bytes()
    except OSError as error:
        raise unreadable(error, str(pair.image)) from error
    image = decode_image(image_bytes, str(pair.image))
    copy = _split_folder(folder, split, "images") / pair.image.name
    if pair.mask is None:
        copy.write_bytes(image_bytes)
        return Counter()
    labels = to_labels(pair.mask, mask_format, info)
    refuse_other_size(image, labels, pair.mask, pair.image)
    refuse_other_ids(labels, info.classes, info.ignore_index, pair.mask)
    copy.write_bytes(image_bytes)
    mask_file = _split_folder(folder, split, "masks") / f"{pair.name}.png"
    mask_file.write_bytes(encode_mask(labels, colours))
    return Counter(count_ids(labels))


def _refuse_failures(failures: list[DelineateError], total: int, where: Path) -> None:
    if not failures:
        return
    if len(failures) == 1:
        raise failures[0]
    first = failures[0]
    names = [Path(failure.where).name for failure in failures[1 : 1 + _LISTED] if failure.where]
    more = ", ..." if len(failures) > 1 + _LISTED else ""
    raise DatasetError(
        f"{len(failures)} of {total} pairs cannot be imported ({', '.join(names)}{more} and this "
        f"one, which {first.found})",
        where=first.where or where,
        mend=first.mend,
    )
