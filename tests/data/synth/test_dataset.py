"""What every generated dataset promises: the same bytes, exact masks, no empty image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from delineate.config import checked
from delineate.data.dataset import Dataset, read_instances, read_pair
from delineate.data.synth import (
    CellsSettings,
    ShapesSettings,
    SynthSettings,
    TissueSettings,
    synthesise,
)
from delineate.errors import OutputError, SettingsError

KINDS: list[type[SynthSettings]] = [TissueSettings, CellsSettings, ShapesSettings]
every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)


def files(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


@every_kind
def test_a_dataset_is_canonical_and_read_back_exactly(
    kind: type[SynthSettings], tmp_path: Path
) -> None:
    chosen = kind(n=5, size=96, seed=3, val_fraction=0.4, instances=True)
    seen: list[tuple[int, int]] = []
    synthesise(tmp_path / "d", chosen, on_progress=lambda done, n: seen.append((done, n)))
    assert seen == [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]
    dataset = Dataset.open(tmp_path / "d")
    assert dataset.info == chosen.info
    name = kind.kind
    assert [s.name for s in dataset.split("train")] == [f"{name}-0000{i}" for i in range(3)]
    assert [s.group for s in dataset.split("val")] == [f"{name}-00003", f"{name}-00004"]
    for index, sample in enumerate([*dataset.split("train"), *dataset.split("val")]):
        image, labels = read_pair(sample, dataset.info)
        expected = chosen.sample(index)
        np.testing.assert_array_equal(image, expected.image)
        np.testing.assert_array_equal(labels, expected.labels)
        np.testing.assert_array_equal(read_instances(sample, (96, 96)), expected.instances)
        assert sample.mask is not None
        assert sample.instances is not None
        with Image.open(sample.mask) as mask, Image.open(sample.instances) as ids:
            assert (mask.mode, ids.mode) == ("P", "I;16")


@every_kind
def test_instances_are_written_only_when_asked_for(
    kind: type[SynthSettings], tmp_path: Path
) -> None:
    synthesise(tmp_path / "plain", kind(n=2, size=64))
    synthesise(tmp_path / "more", kind(n=2, size=64, instances=True))
    plain, more = files(tmp_path / "plain"), files(tmp_path / "more")
    assert {name for name in more if "/instances/" not in name} == plain.keys()
    assert len(more) == len(plain) + 2
    assert plain.items() <= more.items()


@every_kind
def test_the_same_seed_gives_the_same_bytes(kind: type[SynthSettings], tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        synthesise(tmp_path / name, kind(n=2, size=80, seed=seed, instances=True))
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert files(tmp_path / "a") != files(tmp_path / "c")


@every_kind
def test_an_image_depends_on_the_seed_and_its_number_alone(kind: type[SynthSettings]) -> None:
    few, many = kind(n=2, size=64, seed=9), kind(n=50, size=64, seed=9, val_fraction=0.9)
    many.sample(0)
    for index in (1, 0):
        one, other = few.sample(index), many.sample(index)
        np.testing.assert_array_equal(one.image, other.image)
        np.testing.assert_array_equal(one.labels, other.labels)
    assert (few.sample(0).image != few.sample(1).image).any()


@every_kind
@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**40), st.integers(0, 10**5), st.integers(64, 160))
def test_every_image_shows_something(
    kind: type[SynthSettings], seed: int, index: int, size: int
) -> None:
    scene = kind(size=size, seed=seed, instances=True).sample(index)
    assert scene.image.shape == (size, size, 3)
    assert scene.image.dtype == np.uint8
    assert scene.image.std() > 1.5
    assert scene.labels.dtype == np.uint8
    assert 0 < scene.labels.max() < len(kind.classes)
    ids = scene.instances
    assert ids is not None
    assert ids.dtype == np.uint16
    assert set(np.unique(ids)) | {0} == set(range(int(ids.max()) + 1))
    for number in range(1, int(ids.max()) + 1):
        assert len(np.unique(scene.labels[ids == number])) == 1


@pytest.mark.parametrize("kind", [CellsSettings, ShapesSettings], ids=lambda kind: kind.kind)
def test_objects_are_all_that_is_no_background(kind: type[SynthSettings]) -> None:
    for index in range(5):
        scene = kind(instances=True).sample(index)
        assert scene.instances is not None
        np.testing.assert_array_equal(scene.instances > 0, scene.labels > 0)


@pytest.mark.parametrize(
    ("n", "val_fraction", "val"),
    [(60, 0.25, 15), (2, 0.01, 1), (2, 0.99, 1), (1, 0.25, 0), (4, 0.0, 0), (4, 1.0, 4)],
)
def test_a_split_is_empty_only_when_asked(n: int, val_fraction: float, val: int) -> None:
    assert CellsSettings(n=n, val_fraction=val_fraction).val == val


def test_all_images_can_go_to_val(tmp_path: Path) -> None:
    synthesise(tmp_path / "t", TissueSettings(n=2, size=64, val_fraction=1.0, held_out=True))
    assert list(Dataset.open(tmp_path / "t").splits) == ["val"]


def test_an_existing_folder_is_kept_unless_forced(tmp_path: Path) -> None:
    out, one = tmp_path / "t", ShapesSettings(n=1)
    out.mkdir()
    (out / "mine.txt").write_text("kept")
    with pytest.raises(OutputError) as caught:
        synthesise(out, one)
    assert str(caught.value) == f"{out}: exists already. Name another, or add --force."
    with pytest.raises(OutputError, match=r"is a folder without dataset\.yaml"):
        synthesise(out, one, force=True)
    assert files(out) == {"mine.txt": b"kept"}
    (out / "dataset.yaml").touch()
    synthesise(out, one, force=True)
    assert "mine.txt" not in files(out)


def test_nothing_is_left_when_it_is_interrupted(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        assert (done, total) == (1, 2)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        synthesise(tmp_path / "t", ShapesSettings(n=2), on_progress=stop)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("kind", "values", "found"),
    [
        (TissueSettings, {"n": 0}, "n: Input should be greater than or equal to 1 (found 0)."),
        (
            CellsSettings,
            {"size": 9},
            "size: Input should be greater than or equal to 64 (found 9).",
        ),
        (
            CellsSettings,
            {"seed": -1},
            "seed: Input should be greater than or equal to 0 (found -1).",
        ),
        (
            ShapesSettings,
            {"size": 8},
            "size: Input should be greater than or equal to 32 (found 8).",
        ),
        (ShapesSettings, {"held_out": 1}, "held_out: Extra inputs are not permitted (found 1)."),
    ],
)
def test_wrong_numbers_are_refused_by_name(
    kind: type[SynthSettings], values: dict[str, object], found: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        checked(kind, values, f"synth {kind.kind}")
    assert str(caught.value) == f"synth {kind.kind}: {found}"
