"""Labels of any format -> the canonical dataset: read, checked, divided and written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from delineate.config import dump_yaml
from delineate.data.dataset import INFO_FILE, ONLY_SPLIT, read_info
from delineate.data.files import link_or_copy, refuse_existing, staging_folder
from delineate.data.formats.archive import unpacked
from delineate.data.formats.opening import detect, open_source
from delineate.data.formats.settings import ImportSettings, LabelFormat
from delineate.data.formats.source import Item
from delineate.data.import_sample import files_of, import_sample, split_folder
from delineate.data.import_target import Target, describe_target
from delineate.data.journal import JOURNAL_FILE, Journal, Record, read_journal
from delineate.data.parallel import ordered_map
from delineate.data.splits import split_names
from delineate.errors import DatasetError, DelineateError, OutputError

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
    if settings.update and settings.groups is None and (settings.out / INFO_FILE).is_file():
        settings = settings.model_copy(update={"groups": read_info(settings.out).groups})
    with unpacked(settings.source) as path:
        inside = settings.model_copy(update={"source": path})
        label_format = detect(inside) if settings.format == "auto" else settings.format
        source = open_source(inside.model_copy(update={"format": label_format}))
        target = describe_target(inside, source, label_format)
        splits = _divide(settings, target, source.items, old)
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
        notes=(*source.proposal.notes, *_notes(records)),
    )


def _refuse_to_replace_source(settings: ImportSettings) -> None:
    out = settings.out.resolve()
    for source in (settings.source, settings.images, settings.masks, settings.instances):
        if source is not None and source.resolve().is_relative_to(out):
            raise OutputError(
                f"is or holds the source {source}", where=settings.out, mend="Name another folder."
            )


def _divide(
    settings: ImportSettings, target: Target, items: Sequence[Item], old: Mapping[str, Record]
) -> dict[str, list[Item]]:
    """Items by split: the source's own splits, or train and val by group and seed.

    What an update finds in the dataset stays in its split, and so does its group.
    """
    by_split: dict[str, list[Item]] = {}
    for item in items:
        by_split.setdefault(item.split, []).append(item)
    groups = {item.name: target.info.group_of(Path(item.file_name)) for item in items}
    if set(by_split) != {ONLY_SPLIT} or settings.val_fraction == 0:
        return by_split
    split_at = {record.origin: record.split for record in old.values()}
    split_of = {
        item.name: split_at[target.origin(item)]
        for item in items
        if split_at.get(target.origin(item), ONLY_SPLIT) != ONLY_SPLIT
    }
    of_group = {groups[n]: s for n, s in split_of.items() if groups[n] is not None}
    chosen = {
        name: split_of.get(name) or of_group[group]
        for name, group in groups.items()
        if name in split_of or group in of_group
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
        **{record.source: (settings.out, record) for record in old.values()},
        **{record.source: (folder, record) for record in begun.values()},
    }
    for split, kind in {(split, kind) for split, _ in jobs for kind in ("images", "masks")}:
        split_folder(folder, split, kind).mkdir(parents=True, exist_ok=True)
    failures: list[DelineateError] = []
    records: list[Record] = []
    reused = 0
    convert = partial(import_sample, target, folder, there)
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
    if settings.update:
        _keep_others(settings.out, folder, old)
    return records, reused


def _remove_others(folder: Path, records: Sequence[Record]) -> None:
    """Delete what a killed import wrote of a source or for splits that have changed since."""
    with Journal(folder, {f"{record.split}/{record.name}": record for record in records}):
        pass
    kept = {folder / JOURNAL_FILE}
    for record in records:
        kept |= {split_folder(folder, record.split, kind) / name for kind, name in files_of(record)}
    for path in sorted(folder.rglob("*"), reverse=True):  # what a folder holds comes before it
        if path.is_dir():
            if not any(path.iterdir()):
                path.rmdir()
        elif path not in kept:
            path.unlink()


def _keep_others(out: Path, folder: Path, old: Mapping[str, Record]) -> None:
    """Carry over what somebody else has put into the dataset that is updated."""
    ours = {out / JOURNAL_FILE, out / INFO_FILE}
    for record in old.values():
        ours |= {split_folder(out, record.split, kind) / name for kind, name in files_of(record)}
    for path in sorted(out.rglob("*")):
        copy = folder / path.relative_to(out)
        if path.is_file() and path not in ours and not copy.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            link_or_copy(path, copy)


def _notes(records: Sequence[Record]) -> list[str]:
    hidden = sum(record.hidden for record in records)
    turned = sum(record.turned for record in records)
    notes = []
    if hidden:
        notes.append(
            f"objects without a pixel, as they lie outside, are too small or are wholly covered: "
            f"{hidden}"
        )
    if turned:
        notes.append(
            "images with an orientation tag, which is applied before labels are laid over: "
            f"{turned}"
        )
    return notes


def _worth_keeping(folder: Path) -> bool:
    return len(read_journal(folder)) >= _WORTH_KEEPING


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
