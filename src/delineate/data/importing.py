"""Labels of any format -> the canonical dataset: read, checked, divided and written."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from delineate.config import dump_yaml
from delineate.data import png
from delineate.data.dataset import INFO_FILE, ONLY_SPLIT, DatasetInfo
from delineate.data.files import link_or_copy, refuse_existing, staging_folder
from delineate.data.formats.archive import unpacked
from delineate.data.formats.opening import detect, open_source
from delineate.data.formats.settings import ImportSettings, LabelFormat
from delineate.data.formats.source import Item
from delineate.data.images import decode_image
from delineate.data.import_target import Target, describe_target
from delineate.data.journal import JOURNAL_FILE, Journal, Record, read_journal
from delineate.data.label_ids import count_ids, refuse_other_ids, refuse_other_size
from delineate.data.masks import encode_mask
from delineate.data.parallel import ordered_map
from delineate.data.splits import split_names
from delineate.errors import DatasetError, DelineateError, OutputError
from delineate.types import InstanceMap, LabelMap

_LISTED = 5
_WORTH_KEEPING = 1000  # samples; an import that fails after fewer leaves nothing behind

Progress = Callable[[int, int], None]
"""Called with samples done and samples in all, from the calling thread."""


@dataclass(frozen=True)
class ImportReport:
    """What was written.

    Attributes:
        path: the new dataset.
        format: what the labels were read as.
        classes: names by id.
        samples: how many in each split.
        pixels: how many of each class, by id, and of the ignore index if there is one.
        objects: instances in all, or None where the source has none.
        reused: samples that were there already, unchanged, and were not read again.
        dropped: files that were left out because their other half is missing.
        notes: what the source says: conventions, and things that are no labels.
    """

    path: Path
    format: LabelFormat
    classes: tuple[str, ...]
    samples: Mapping[str, int]
    pixels: Mapping[int, int]
    objects: int | None
    reused: int
    dropped: tuple[Path, ...]
    notes: tuple[str, ...]


def import_dataset(settings: ImportSettings, *, progress: Progress | None = None) -> ImportReport:
    """Turn somebody's images and labels into the canonical dataset at ``settings.out``.

    Images are copied byte for byte; masks become indexed PNGs of class ids (16-bit grey where
    there are ids over 255), object ids 16-bit grey PNGs. A source with train and val keeps them,
    and what a source knows of its classes gives what the settings leave out. Everything is read
    and checked, a few samples at a time, and the folder appears whole or not at all.

    A killed import is taken up by the same call. With ``settings.update`` an existing dataset
    keeps its samples and their splits; only what is new or changed is read.

    Raises:
        DatasetError: missing pairs, no images, several files that cannot be imported.
        ImageError: an image cannot be read.
        MaskError: a mask cannot be read, or has another size or values that mean no class.
        SettingsError: classes, colours or the class map are missing or wrong.
        MissingExtraError: the format needs a package that is not installed.
        OutputError: ``out`` exists and neither ``force`` nor ``update`` is set, or it cannot be
            written.
    """
    if not settings.force and not settings.update:
        refuse_existing(settings.out)
    _refuse_to_replace_source(settings)
    old = read_journal(settings.out) if settings.update else {}
    with unpacked(settings.source) as path:
        inside = settings.model_copy(update={"source": path})
        label_format = detect(inside) if settings.format == "auto" else settings.format
        source = open_source(inside.model_copy(update={"format": label_format}))
        target = describe_target(settings, source, label_format)
        splits = _divide(settings, target.info, source.items, old)
        jobs = [(split, item) for split, items in splits.items() for item in items]
        with staging_folder(
            settings.out,
            marker=INFO_FILE,
            force=settings.force or settings.update,
            keep=_worth_keeping,
        ) as folder:
            records, reused = _write(settings, target, jobs, folder, old, progress)
            (folder / INFO_FILE).write_text(dump_yaml(target.info), encoding="utf-8")
    pixels: Counter[int] = Counter()
    for record in records:
        pixels.update(record.pixels)
    counted = [record.objects for record in records if record.objects is not None]
    return ImportReport(
        path=settings.out,
        format=label_format,
        classes=target.info.classes,
        samples={split: len(items) for split, items in splits.items()},
        pixels=dict(sorted(pixels.items())),
        objects=sum(counted) if counted else None,
        reused=reused,
        dropped=source.proposal.dropped,
        notes=source.proposal.notes,
    )


def _refuse_to_replace_source(settings: ImportSettings) -> None:
    out = settings.out.resolve()
    for source in (settings.source, settings.images, settings.masks, settings.instances):
        if source is not None and source.resolve().is_relative_to(out):
            raise OutputError(
                f"is or holds the source {source}", where=settings.out, mend="Name another folder."
            )


def _divide(
    settings: ImportSettings, info: DatasetInfo, items: Sequence[Item], old: Mapping[str, Record]
) -> dict[str, list[Item]]:
    """Items by split: the source's own splits, or train and val by group and seed.

    What an update finds in the dataset stays in its split, and so does its group.
    """
    by_split: dict[str, list[Item]] = {}
    for item in items:
        by_split.setdefault(item.split, []).append(item)
    groups = {item.name: info.group_of(item.image or Path(item.file_name)) for item in items}
    if set(by_split) != {ONLY_SPLIT} or settings.val_fraction == 0:
        return by_split
    split_of = {record.name: record.split for record in old.values() if record.split != ONLY_SPLIT}
    of_group = {groups[n]: s for n, s in split_of.items() if groups.get(n) is not None}
    chosen = {
        name: split_of.get(name) or of_group.get(group)
        for name, group in groups.items()
        if name in split_of or (group is not None and group in of_group)
    }
    new = [item.name for item in items if item.name not in chosen]
    if old and len({groups[name] or name for name in new}) < 2:
        chosen |= dict.fromkeys(new, "train")  # one alone is no reason to move others
    else:
        train, val = split_names(new, settings.val_fraction, settings.seed, groups)
        chosen |= dict.fromkeys(train, "train") | dict.fromkeys(val, "val")
    named = {
        split: [item for item in items if chosen[item.name] == split] for split in ("train", "val")
    }
    return {split: members for split, members in named.items() if members}


def _write(
    settings: ImportSettings,
    target: Target,
    jobs: Sequence[tuple[str, Item]],
    folder: Path,
    old: Mapping[str, Record],
    progress: Progress | None,
) -> tuple[list[Record], int]:
    """Write every sample into ``folder``; records, and how many were there already."""
    begun = read_journal(folder)
    there = {
        **{record.name + "/" + record.source: (settings.out, record) for record in old.values()},
        **{record.name + "/" + record.source: (folder, record) for record in begun.values()},
    }
    for split, kind in {(split, kind) for split, _ in jobs for kind in ("images", "masks")}:
        _split_folder(folder, split, kind).mkdir(parents=True, exist_ok=True)
    failures: list[DelineateError] = []
    records: list[Record] = []
    reused = 0
    convert = partial(_convert_or_error, target, folder, there)
    with Journal(folder, begun) as journal:
        for result in ordered_map(convert, jobs, settings.workers):
            if isinstance(result, DelineateError):
                failures.append(result)
            else:
                record, was_there = result
                records.append(record)
                reused += was_there
                journal.add(record)
            if progress is not None:
                progress(len(records) + len(failures), len(jobs))
    if failures:
        raise _joined(failures, len(jobs), settings.source)
    _remove_others(folder, records)
    return records, reused


def _remove_others(folder: Path, records: Sequence[Record]) -> None:
    """Delete what a killed import wrote of a source or for splits that have changed since."""
    with Journal(folder, {f"{record.split}/{record.name}": record for record in records}):
        pass
    kept = {folder / JOURNAL_FILE}
    for record in records:
        kept |= {_split_folder(folder, record.split, kind) / name for kind, name in _files(record)}
    for path in sorted(folder.rglob("*"), reverse=True):  # what a folder holds comes before it
        if path.is_dir():
            if not any(path.iterdir()):
                path.rmdir()
        elif path not in kept:
            path.unlink()


def _files(record: Record) -> list[tuple[str, str]]:
    """Kind and name of each file of a sample."""
    files = [("images", record.file)]
    if record.pixels:
        files.append(("masks", f"{record.name}.png"))
    if record.objects is not None:
        files.append(("instances", f"{record.name}.png"))
    return files


def _worth_keeping(folder: Path) -> bool:
    return len(read_journal(folder)) >= _WORTH_KEEPING


def _split_folder(folder: Path, split: str, kind: str) -> Path:
    return folder / kind if split == ONLY_SPLIT else folder / split / kind


def _convert_or_error(
    target: Target,
    folder: Path,
    there: Mapping[str, tuple[Path, Record]],
    job: tuple[str, Item],
) -> tuple[Record, bool] | DelineateError:
    split, item = job
    try:
        image = target.source.image_bytes(item)
        digest = hashlib.blake2b(target.digest, digest_size=20)
        digest.update(image)
        if item.labelled:
            digest.update(target.source.evidence(item))
        source = digest.hexdigest()
        known = there.get(f"{item.name}/{source}")
        if known is not None and _take_over(*known, folder, split):
            record = known[1]
            return Record(split, *_rest(record)), True
        return _convert(target, folder, split, item, image, source), False
    except DelineateError as error:
        return error


def _rest(record: Record) -> tuple[str, str, str, Mapping[int, int], int | None]:
    return record.name, record.file, record.source, record.pixels, record.objects


def _take_over(root: Path, record: Record, folder: Path, split: str) -> bool:
    """Put the files of ``record`` into ``split`` of ``folder``; False when one is gone."""
    for kind, name in _files(record):
        here = _split_folder(root, record.split, kind) / name
        wanted = _split_folder(folder, split, kind) / name
        if here == wanted:
            if not here.is_file():
                return False
        elif not link_or_copy(here, wanted):
            return False
    return True


def _convert(
    target: Target, folder: Path, split: str, item: Item, image_bytes: bytes, source: str
) -> Record:
    """Read, check and write one sample."""
    image = decode_image(image_bytes, str(item.image or item.where))
    copy = _split_folder(folder, split, "images") / item.file_name
    if not item.labelled:
        copy.write_bytes(image_bytes)
        return Record(split, item.name, item.file_name, source)
    hw = (image.shape[0], image.shape[1])
    found = target.source.labels(item, hw, target.given)
    labels, instances = found.classes, found.instances
    where = Path(item.where)
    refuse_other_size(image, labels, where, Path(item.file_name))
    refuse_other_ids(labels, target.given.classes, target.given.ignore_index, where)
    if target.remapping is not None:
        labels = target.remapping.apply(labels)
        instances = _without_rest(instances, labels, target.remapping.ignore_index)
    copy.write_bytes(image_bytes)
    masks = _split_folder(folder, split, "masks")
    (masks / f"{item.name}.png").write_bytes(encode_mask(labels, target.colours))
    objects = None
    if instances is not None:
        objects = sum(i > 0 for i in count_ids(instances))
        other = _split_folder(folder, split, "instances")
        other.mkdir(exist_ok=True)
        (other / f"{item.name}.png").write_bytes(png.encode_grey16(instances))
    return Record(split, item.name, item.file_name, source, count_ids(labels), objects)


def _without_rest(
    instances: InstanceMap | None, labels: LabelMap, ignore_index: int | None
) -> InstanceMap | None:
    """Objects whose class was mapped to the background or ignored are none any more."""
    if instances is None:
        return None
    kept = instances.copy()
    kept[labels == 0] = 0
    if ignore_index is not None:
        kept[labels == ignore_index] = 0
    return kept


def _joined(failures: list[DelineateError], total: int, where: Path) -> DelineateError:
    if len(failures) == 1:
        return failures[0]
    first = failures[0]
    names = [Path(failure.where).name for failure in failures[1 : 1 + _LISTED] if failure.where]
    more = ", ..." if len(failures) > 1 + _LISTED else ""
    return DatasetError(
        f"{len(failures)} of {total} pairs cannot be imported ({', '.join(names)}{more} and this "
        f"one, which {first.found})",
        where=first.where or where,
        mend=first.mend,
    )
