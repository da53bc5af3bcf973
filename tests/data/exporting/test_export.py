from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from delineate.data.dataset import Dataset, read_instances
from delineate.data.export_record import EXPORT_FILE, read_export_record
from delineate.data.exporting.export import export_dataset
from delineate.data.exporting.settings import ExportFormat, ExportSettings
from delineate.data.masks import read_mask
from delineate.errors import DatasetError, MaskError, OutputError

FORMATS = get_args(ExportFormat)
CLASSES = ("background", "cell", "wall")


@pytest.fixture
def dataset(write: Callable[..., Path]) -> Path:
    rng = np.random.default_rng(3)
    labels = {}
    objects = {}
    for number in range(6):
        key = f"{'train' if number < 4 else 'val'}/s{number}"
        labels[key] = np.where(rng.random((9, 11)) < 0.1, 255, rng.integers(0, 3, (9, 11)))
        objects[key] = np.where(labels[key] == 1, 500 + np.arange(11) // 4, 0)
    return write(labels, CLASSES, ignore=255, objects=objects)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


@pytest.mark.parametrize("label_format", FORMATS)
def test_any_number_of_workers_writes_the_same(
    dataset: Path, tmp_path: Path, label_format: ExportFormat
) -> None:
    written = []
    for workers in (1, 3):
        out = tmp_path / f"out{workers}"
        seen: list[tuple[int, int]] = []
        settings = ExportSettings(dataset=dataset, out=out, format=label_format, workers=workers)
        report = export_dataset(settings, progress=lambda done, total: seen.append((done, total)))  # noqa: B023
        assert seen == [(done, 6) for done in range(1, 7)]
        assert report.samples == {"train": 4, "val": 2}
        written.append(contents(out))
    assert written[0] == written[1]
    record = read_export_record(tmp_path / "out1")
    assert record is not None
    assert (record.format, record.images) == (label_format, {"train": 4, "val": 2})
    assert (record.classes, record.ignore_index) == (CLASSES, 255)
    assert record.objects == (label_format != "binary")
    assert record.object_count == report.objects
    pictures = [data for name, data in written[0].items() if Path(name).stem == "s5"]
    assert (dataset / "val/images/s5.png").read_bytes() in pictures


def test_class_id_is_the_dataset_again(dataset: Path, tmp_path: Path) -> None:
    export_dataset(ExportSettings(dataset=dataset, out=tmp_path / "out", format="class-id"))
    before, after = Dataset.open(dataset), Dataset.open(tmp_path / "out")
    assert after.info == before.info
    for split, samples in before.splits.items():
        for old, new in zip(samples, after.split(split), strict=True):
            assert old.mask is not None
            assert new.mask is not None
            assert np.array_equal(read_mask(old.mask), read_mask(new.mask))
            one, other = read_instances(old, (9, 11)), read_instances(new, (9, 11))
            assert one is not None
            assert other is not None
            assert np.array_equal(one, other)


def test_one_split(dataset: Path, tmp_path: Path) -> None:
    settings = ExportSettings(dataset=dataset, out=tmp_path / "o", format="coco", splits=("val",))
    assert export_dataset(settings).samples == {"val": 2}
    assert not (tmp_path / "o/train").exists()
    wrong = settings.model_copy(update={"out": tmp_path / "p", "splits": ("valid",)})
    with pytest.raises(DatasetError) as caught:
        export_dataset(wrong)
    assert str(caught.value) == (
        f"{dataset}: has no split 'valid'. Use one of: train (4 images), val (2 images)."
    )


def test_a_mask_that_is_missing_is_named(dataset: Path, tmp_path: Path) -> None:
    (dataset / "train/masks/s2.png").unlink()
    with pytest.raises(MaskError) as caught:
        export_dataset(ExportSettings(dataset=dataset, out=tmp_path / "out", format="coco"))
    assert str(caught.value) == (
        f"{dataset}/train/images/s2.png: has no mask, as 1 of the 4 samples of train. Add "
        "masks/s2.png beside the folder images, or remove the image."
    )


@pytest.mark.parametrize("label_format", FORMATS)
def test_nothing_is_left_of_an_export_that_fails(
    dataset: Path, tmp_path: Path, label_format: ExportFormat
) -> None:
    (dataset / "val/masks/s5.png").write_bytes((dataset / "val/images/s5.png").read_bytes())
    with pytest.raises(MaskError, match="8-bit RGB PNG"):
        export_dataset(ExportSettings(dataset=dataset, out=tmp_path / "out", format=label_format))
    assert [file.name for file in tmp_path.iterdir()] == ["dataset"]


def test_a_mask_of_another_size_is_refused(
    write: Callable[..., Path], dataset: Path, tmp_path: Path
) -> None:
    wide = np.zeros((2, 3))
    write({"train/s0": wide}, CLASSES)
    picture = (dataset / "train/images/s1.png").read_bytes()
    (dataset / "train/images/s0.png").write_bytes(picture)
    with pytest.raises(MaskError) as caught:
        export_dataset(ExportSettings(dataset=dataset, out=tmp_path / "out", format="coco"))
    assert str(caught.value) == (
        f"{dataset}/train/masks/s0.png: is 3 x 2 pixels (width x height), and its image s0.png is "
        "11 x 9. Export the mask at 11 x 9, without interpolation."
    )


def test_only_an_export_is_replaced(dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    settings = ExportSettings(dataset=dataset, out=out, format="coco")
    export_dataset(settings)
    with pytest.raises(OutputError, match="exists already"):
        export_dataset(settings)
    export_dataset(settings.model_copy(update={"format": "voc", "force": True}))
    assert (out / "SegmentationClass").is_dir()
    assert not (out / "annotations").exists()
    (out / EXPORT_FILE).unlink()
    with pytest.raises(OutputError, match=f"is a folder without {EXPORT_FILE}"):
        export_dataset(settings.model_copy(update={"force": True}))


@pytest.mark.parametrize("inside", ["", "coco", ".."])
def test_the_dataset_is_never_replaced(dataset: Path, inside: str) -> None:
    out = dataset / inside
    with pytest.raises(OutputError) as caught:
        export_dataset(ExportSettings(dataset=dataset, out=out, format="coco", force=True))
    assert str(caught.value) == (
        f"{out}: is, holds or lies in the dataset {dataset}. Name a folder outside of it."
    )
    assert Dataset.open(dataset).info.classes == CLASSES
