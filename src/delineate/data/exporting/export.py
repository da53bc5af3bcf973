"""The pipeline of every export: samples read and checked in threads, written as they come."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from delineate.data.dataset import Dataset, Sample, read_instances
from delineate.data.export_record import EXPORT_FILE, ExportRecord, write_export_record
from delineate.data.exporting.binary import BinaryWriter
from delineate.data.exporting.class_id import ClassIdWriter
from delineate.data.exporting.coco import CocoWriter
from delineate.data.exporting.geojson import GeoJsonWriter
from delineate.data.exporting.panoptic import PanopticWriter
from delineate.data.exporting.settings import ExportReport, ExportSettings
from delineate.data.exporting.voc import VocWriter
from delineate.data.exporting.writer import Labelled, Writer, Written
from delineate.data.files import atomic_folder, refuse_existing
from delineate.data.images import image_size
from delineate.data.label_ids import refuse_other_ids, refuse_other_size
from delineate.data.masks import read_mask
from delineate.data.parallel import ordered_map
from delineate.errors import MaskError, OutputError

Progress = Callable[[int, int], None]
"""Called with samples done and samples in all, from the calling thread."""


def export_dataset(settings: ExportSettings, *, progress: Progress | None = None) -> ExportReport:
    """Write the dataset at ``settings.dataset`` in another format to ``settings.out``.

    Images are copied byte for byte; labels are exact in every format, and what a format cannot
    hold is refused. Everything is read and checked, and the folder appears whole or not at all.
    The result is the same for every number of workers.

    Raises:
        DatasetError: no dataset, no such split, or names that the format cannot keep apart.
        SettingsError: the format cannot hold these classes.
        ImageError: an image cannot be read.
        MaskError: a mask is missing, damaged, or holds what the format cannot.
        MissingExtraError: GeoJSON without rasterio.
        OutputError: ``out`` exists and ``force`` is not set, or cannot be written.
    """
    dataset = Dataset.open(settings.dataset)
    splits = settings.splits or tuple(dataset.splits)
    jobs = [(split, sample) for split in splits for sample in dataset.split(split)]
    unlabelled = _unlabelled_splits(dataset, splits)
    has_objects = any(sample.instances is not None for _, sample in jobs)
    with_instances = settings.instances and has_objects and settings.format != "binary"
    _refuse_to_replace(settings)
    counts: Counter[str] = Counter()
    with (
        atomic_folder(settings.out, marker=EXPORT_FILE, force=settings.force) as folder,
        ExitStack() as files,
    ):
        writer = _writer(settings, dataset, splits, folder, files, with_instances=with_instances)
        for split in splits:
            writer.image_folder(split).mkdir(parents=True, exist_ok=True)

        def convert(job: tuple[str, Sample]) -> tuple[tuple[int, int], Written]:
            return _convert(*job, dataset, writer, with_instances=with_instances)

        results = ordered_map(convert, jobs, settings.workers)
        for done, ((split, sample), (hw, written)) in enumerate(zip(jobs, results, strict=True), 1):
            writer.collect(sample, split, hw, written.record)
            counts += written.counts
            if progress is not None:
                progress(done, len(jobs))
        writer.close()
        notes = writer.notes(counts)
        if unlabelled:
            notes.append(f"Without masks, and so without labels: {', '.join(unlabelled)}.")
        if has_objects and not with_instances:
            reason = "binary masks have none" if settings.instances else "they were not wanted"
            notes.append(f"The object ids are not written: {reason}.")
        samples = {split: len(dataset.split(split)) for split in splits}
        report = ExportReport(
            settings.out, settings.format, samples, counts["objects"], tuple(notes)
        )
        record = ExportRecord(
            format=report.format,
            classes=dataset.info.classes,
            ignore_index=dataset.info.ignore_index,
            images=samples,
            objects=with_instances,
            object_count=report.objects,
            notes=report.notes,
        )
        write_export_record(record, folder)
    return report


def _unlabelled_splits(dataset: Dataset, splits: tuple[str, ...]) -> list[str]:
    """The splits without any mask.

    Raises:
        MaskError: one has masks for some samples only.
    """
    unlabelled = []
    for split in splits:
        without = [sample for sample in dataset.split(split) if sample.mask is None]
        total = len(dataset.split(split))
        if without and len(without) < total:
            raise MaskError(
                f"has no mask, as {len(without)} of the {total} samples of {split}",
                where=without[0].image,
                mend=f"Add masks/{without[0].name}.png beside the folder images, or remove the "
                "image.",
            )
        if without:
            unlabelled.append(split)
    return unlabelled


def _refuse_to_replace(settings: ExportSettings) -> None:
    if not settings.force:
        refuse_existing(settings.out)
    out, source = settings.out.resolve(), settings.dataset.resolve()
    if source.is_relative_to(out) or out.is_relative_to(source):
        raise OutputError(
            f"is, holds or lies in the dataset {settings.dataset}",
            where=settings.out,
            mend="Name a folder outside of it.",
        )


def _writer(
    settings: ExportSettings,
    dataset: Dataset,
    splits: tuple[str, ...],
    folder: Path,
    files: ExitStack,
    *,
    with_instances: bool,
) -> Writer:
    match settings.format:
        case "class-id":
            return ClassIdWriter(folder, dataset.info, dataset.colours)
        case "voc":
            return VocWriter(folder, dataset, splits)
        case "binary":
            return BinaryWriter(folder, dataset.info)
        case "coco":
            return CocoWriter(folder, dataset.info, files, with_instances=with_instances)
        case "coco-panoptic":
            return PanopticWriter(folder, dataset.info, dataset.colours, files)
        case "geojson":
            return GeoJsonWriter(folder, dataset.info, dataset.colours)


def _convert(
    split: str, sample: Sample, dataset: Dataset, writer: Writer, *, with_instances: bool
) -> tuple[tuple[int, int], Written]:
    """Read, check and write one sample; returns (height, width) of its image as well."""
    hw = image_size(sample.image)
    shutil.copyfile(sample.image, writer.image_folder(split) / sample.image.name)
    if sample.mask is None:
        return hw, Written()
    labels = read_mask(sample.mask)
    refuse_other_size(np.broadcast_to(np.uint8(0), (*hw, 1)), labels, sample.mask, sample.image)
    info = dataset.info
    refuse_other_ids(labels, info.classes, info.ignore_index, sample.mask)
    instances = None
    if with_instances:
        instances = read_instances(sample, hw)
        if instances is None:  # in a dataset with objects, an image without
            instances = np.zeros(hw, np.uint16)
    return hw, writer.write(Labelled(sample, split, labels, instances))
