"""Imports that are killed, run twice, or grow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from delineate.data import import_sample, importing
from delineate.data.dataset import Dataset
from delineate.data.formats.settings import ImportSettings
from delineate.data.importing import ImportReport, import_dataset
from delineate.data.journal import JOURNAL_FILE, Journal, Record, read_journal
from delineate.errors import ImageError, MaskError, OutputError

RNG = np.random.default_rng(5)


def put(source: Path, name: str) -> None:
    for kind, top in (("images", 256), ("masks", 2)):
        (source / kind).mkdir(parents=True, exist_ok=True)
        pixels = RNG.integers(0, top, (5, 7), dtype=np.uint8)
        cv2.imwrite(str(source / kind / f"{name}.png"), pixels)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for index in range(12):
        put(tmp_path / "in", f"s{index:02}")
    return tmp_path / "in"


def run(source: Path, out: Path, **options: Any) -> ImportReport:
    settings = ImportSettings(source=source, out=out, classes=("a", "b"), workers=2, **options)
    return import_dataset(settings)


def content(out: Path) -> dict[str, bytes]:
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*.*")}


class Killed(BaseException):
    """Stands for a kill: nothing sees it coming."""


def test_a_killed_import_goes_on(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tmp_path / "whole"
    run(source, whole)
    out = tmp_path / "out"

    def kill(done: int, total: int) -> None:  # noqa: ARG001
        if done == 7:
            raise Killed

    with pytest.raises(Killed):
        import_dataset(
            ImportSettings(source=source, out=out, classes=("a", "b"), workers=2), progress=kill
        )
    assert not out.exists()
    read: list[str] = []
    real = import_sample.decode_image

    def spy(data: bytes, name: str) -> Any:
        read.append(name)
        return real(data, name)

    monkeypatch.setattr(import_sample, "decode_image", spy)
    report = run(source, out)
    assert report.reused == 7
    assert len(read) == 5
    assert content(out) == content(whole)
    assert not list(tmp_path.glob(".*"))


def test_what_changed_after_a_kill_is_read_again(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def kill(done: int, total: int) -> None:
        if done == total:
            raise Killed

    with pytest.raises(Killed):
        import_dataset(ImportSettings(source=source, out=out, classes=("a", "b")), progress=kill)
    put(source, "s03")
    (source / "images/s05.png").unlink()
    (source / "masks/s05.png").unlink()
    assert run(source, out).reused == 10
    run(source, tmp_path / "whole")
    assert content(out) == content(tmp_path / "whole")


def test_other_splits_after_a_kill(source: Path, tmp_path: Path) -> None:
    def kill(done: int, total: int) -> None:
        if done == total:
            raise Killed

    settings = ImportSettings(source=source, out=tmp_path / "out", classes=("a", "b"))
    with pytest.raises(Killed):
        import_dataset(settings, progress=kill)
    assert run(source, tmp_path / "out", val_fraction=0).reused == 12
    run(source, tmp_path / "whole", val_fraction=0)
    assert content(tmp_path / "out") == content(tmp_path / "whole")
    assert sorted(p.name for p in (tmp_path / "out").iterdir() if p.is_dir()) == ["images", "masks"]


def test_other_settings_take_nothing_over(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path / "out")
    assert run(source, tmp_path / "out", update=True).reused == 12
    report = run(source, tmp_path / "out", update=True, class_map="a=x")
    assert (report.reused, report.classes) == (0, ("x", "b"))


def test_an_update_reads_what_is_new_and_keeps_the_splits(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(source, out, seed=4)
    before = {s.name: split for split, part in Dataset.open(out).splits.items() for s in part}
    for index in range(12, 24):
        put(source, f"s{index:02}")
    put(source, "s00")
    report = run(source, out, update=True, seed=9)
    assert report.reused == 11
    assert sum(report.samples.values()) == 24
    after = {s.name: split for split, part in Dataset.open(out).splits.items() for s in part}
    assert {name: after[name] for name in before} == before
    assert {"train", "val"} == {after[name] for name in set(after) - set(before)}
    for sample in (s for part in Dataset.open(out).splits.values() for s in part):
        assert sample.image.read_bytes() == (source / "images" / sample.image.name).read_bytes()


def test_groups_stay_together_through_updates(source: Path, tmp_path: Path) -> None:
    for index in range(4):
        put(source, f"t{index}_0")
    options = {"groups": "^(s|t[0-9])"}
    run(source, tmp_path / "out", **options)
    for index in range(4):
        put(source, f"t{index}_1")
    run(source, tmp_path / "out", update=True, **options)
    splits = Dataset.open(tmp_path / "out").splits
    groups = [{s.group for s in splits[name]} for name in ("train", "val")]
    assert not groups[0] & groups[1]


def test_one_new_sample_alone_goes_to_train(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path / "out")
    put(source, "z")
    run(source, tmp_path / "out", update=True)
    assert "z" in {s.name for s in Dataset.open(tmp_path / "out").split("train")}


def test_a_file_that_is_gone_from_the_dataset_is_made_again(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path / "whole")
    run(source, tmp_path / "out")
    next((tmp_path / "out/train/masks").iterdir()).unlink()
    assert run(source, tmp_path / "out", update=True).reused == 11
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_a_long_import_that_fails_keeps_what_it_has(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (source / "images/s11.png").write_bytes(b"no image at all")
    with pytest.raises(ImageError, match="s11"):
        run(source, tmp_path / "out")
    assert not list(tmp_path.glob(".*"))
    monkeypatch.setattr(importing, "_WORTH_KEEPING", 5)
    with pytest.raises(ImageError, match="s11"):
        run(source, tmp_path / "out")
    assert [p.name for p in tmp_path.glob(".*")] == [".out.part"]
    put(source, "s11")
    assert run(source, tmp_path / "out").reused == 11
    assert not list(tmp_path.glob(".*"))


def test_a_refused_update_leaves_the_dataset_as_it_was(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    run(source, out, val_fraction=0)
    before = content(out)
    monkeypatch.setattr(importing, "_WORTH_KEEPING", 1)
    put(source, "t")
    (source / "masks/s11.png").write_bytes(b"no mask at all")
    with pytest.raises(MaskError):  # by now the part folder shares files with the dataset
        run(source, out, val_fraction=0, update=True)
    with pytest.raises(MaskError):
        run(source, out, val_fraction=0, update=True, class_map="a=x,b=a")
    assert content(out) == before


def test_an_update_keeps_what_somebody_else_put_there(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(source, out, groups="^(s[0-9])")
    (out / "README.txt").write_text("ours")
    (out / "test/images").mkdir(parents=True)
    (out / "test/images/s99.png").write_bytes((source / "images/s00.png").read_bytes())
    assert run(source, out, update=True).reused == 12
    assert (out / "README.txt").read_text() == "ours"
    assert [s.name for s in Dataset.open(out).split("test")] == ["s99"]
    assert Dataset.open(out).info.groups == "^(s[0-9])"


def test_samples_stay_in_their_split_when_their_names_change(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    rng = np.random.default_rng(8)
    document: dict[str, Any] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": 1, "name": "car"}],
    }

    def add(name: str) -> None:
        file = source / "images" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(file), rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        number = len(document["images"]) + 1
        document["images"].append({"id": number, "file_name": name, "width": 4, "height": 4})
        document["annotations"].append(
            {
                "id": number,
                "image_id": number,
                "category_id": 1,
                "iscrowd": 0,
                "segmentation": [[0, 0, 2, 0, 2, 2, 0, 2]],
            }
        )
        (source / "instances.json").write_text(json.dumps(document))

    for index in range(10):
        add(f"a/{index}.png")
    settings = ImportSettings(source=source, out=out)
    import_dataset(settings)
    of = {s.image.read_bytes(): split for split, p in Dataset.open(out).splits.items() for s in p}
    add("b/1.png")
    assert import_dataset(settings.model_copy(update={"update": True})).reused == 10
    now = {s.image.read_bytes(): split for split, p in Dataset.open(out).splits.items() for s in p}
    assert {image: now[image] for image in of} == of
    assert "a_1" in {s.name for p in Dataset.open(out).splits.values() for s in p}


def test_two_imports_at_once(source: Path, tmp_path: Path) -> None:
    from delineate.data.files import staging_folder

    with staging_folder(tmp_path / "out", marker="x", keep=lambda _: False) as folder:
        with pytest.raises(OutputError) as caught:
            run(source, tmp_path / "out")
        assert folder.is_dir()
    assert str(caught.value) == (
        f"{tmp_path / 'out'}: is being written by another process. Wait for it to end."
    )


def test_a_journal_whose_last_line_was_cut_off(tmp_path: Path) -> None:
    first = Record("train", "a", "a.png", "00", "x/a.png", {0: 3, 255: 1}, 2)
    second = Record("val", "b", "b.png", "01", "x/b.png")
    with Journal(tmp_path, {"train/a": first}) as journal:
        journal.add(second)
    assert read_journal(tmp_path) == {"train/a": first, "val/b": second}
    file = tmp_path / JOURNAL_FILE
    file.write_text(file.read_text()[:-9])
    assert read_journal(tmp_path) == {"train/a": first}
    file.write_text('{"version": 99}\n')
    assert read_journal(tmp_path) == {}
    assert read_journal(tmp_path / "none") == {}
