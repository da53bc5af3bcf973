from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage.measure import label, regionprops

from delineate.data.dataset import Dataset, read_pair
from delineate.data.statistics import describe
from delineate.data.statistics.distributions import (
    area_histogram,
    distribution,
    equivalent_diameters,
    kept_area,
    percentiles,
    value_histogram,
)
from delineate.data.statistics.measure import borders, measure_labels, ridge_thickness
from delineate.errors import DatasetError, MaskError

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
IGNORE = 255
MASKS = hnp.arrays(np.uint8, (9, 11), elements=st.sampled_from([0, 1, 2, IGNORE]))


def write(
    folder: Path,
    name: str,
    image: np.ndarray,
    mask: np.ndarray | None,
    instances: np.ndarray | None = None,
) -> None:
    for kind, pixels in (("images", image), ("masks", mask), ("instances", instances)):
        if pixels is None:
            continue
        (folder / kind).mkdir(parents=True, exist_ok=True)
        if pixels.dtype == np.float32:
            tifffile.imwrite(folder / kind / f"{name}.tif", pixels)
        else:
            cv2.imwrite(str(folder / kind / f"{name}.png"), pixels)


def info(folder: Path, text: str) -> Path:
    (folder / "dataset.yaml").write_text(text)
    return folder


@pytest.fixture
def by_hand(tmp_path: Path) -> Path:
    """Two tiny images whose figures can be counted on the fingers."""
    mask = np.array(
        [
            [0, 0, 0, 0, 0, 0],
            [0, 1, 1, 0, 2, 2],
            [0, 1, 1, 0, 2, 2],
            [0, 0, 0, 1, 255, 255],
        ],
        np.uint8,
    )
    write(tmp_path / "train", "a_1", np.full((4, 6), 10, np.uint8) + mask % 255, mask)
    write(tmp_path / "val", "b_1", np.full((3, 5), 30, np.uint8), np.zeros((3, 5), np.uint8))
    return info(
        tmp_path,
        "classes: [background, cell, vessel]\nignore_index: 255\npixel_size_um: 0.5\n"
        "groups: '^([a-z]+)_'\n",
    )


def test_figures_counted_by_hand(by_hand: Path) -> None:
    found = describe(by_hand)
    train, val = found.splits
    assert (found.classes, found.ignore_index) == (("background", "cell", "vessel"), 255)
    assert (train.name, train.images, train.labelled_images) == ("train", 1, 1)
    assert (train.labelled_pixels, train.ignored_pixels) == (22, 2)
    assert train.ignored_share == 2 / 24
    assert [c.pixels for c in train.classes] == [13, 5, 4]
    assert [c.pixel_share for c in train.classes] == [13 / 22, 5 / 22, 4 / 22]
    assert train.groups == {"a": 1}
    assert train.near_empty == ()
    assert val.near_empty == ("val/b_1",)
    assert found.whole.near_empty == ("val/b_1",)
    assert [c.image_share for c in found.whole.classes] == [1.0, 0.5, 0.5]
    assert [(s.height_px, s.width_px, s.images) for s in found.whole.sizes] == [
        (3, 5, 1),
        (4, 6, 1),
    ]
    assert (found.whole.height_px.minimum, found.whole.height_px.maximum) == (3.0, 4.0)
    # class 1: a square and, over the corner, the single pixel: one object of five pixels
    cell, vessel = train.classes[1].objects, train.classes[2].objects
    assert cell is not None
    assert vessel is not None
    assert (cell.count, cell.area_px.median, cell.at_edge) == (1, 5.0, 1)
    assert (vessel.count, vessel.area_px.median, vessel.at_edge) == (1, 4.0, 1)
    assert vessel.area_um2 is not None
    assert vessel.area_um2.median == 4 * 0.25
    assert vessel.equivalent_diameter_px.median == pytest.approx(2 * math.sqrt(4 / math.pi))
    assert vessel.equivalent_diameter_um is not None
    assert vessel.equivalent_diameter_um.median == pytest.approx(math.sqrt(4 / math.pi))
    assert train.objects_from == "components"
    assert train.classes[0].objects is None
    assert train.classes[0].thickness_px is None
    thickness = train.classes[2].thickness_px
    assert thickness is not None
    assert (thickness.minimum, thickness.maximum) == (2.0, 2.0)
    assert train.classes[2].thickness_um is not None
    assert train.classes[2].thickness_um.median == 1.0
    # pairs of neighbours, counted in the drawing above
    assert [(b.first, b.second, b.length_px, b.images) for b in train.borders] == [
        (0, 1, 10, 1),
        (0, 2, 4, 1),
    ]


def test_intensity_by_hand(by_hand: Path) -> None:
    train, val = describe(by_hand).splits
    everything, foreground = train.pixel_types[0].intensity
    assert (train.pixel_types[0].channels, train.pixel_types[0].dtype) == (1, "uint8")
    assert (everything.region, everything.count) == ("all", 24)
    assert everything.mean == pytest.approx((15 * 10 + 5 * 11 + 4 * 12) / 24)
    assert (foreground.region, foreground.count) == ("foreground", 9)
    assert foreground.mean == pytest.approx((5 * 11 + 4 * 12) / 9)
    assert (foreground.minimum, foreground.median, foreground.maximum) == (11.0, 11.0, 12.0)
    assert [c.region for c in val.pixel_types[0].intensity] == ["all"]
    assert (val.pixel_types[0].intensity[0].std, val.pixel_types[0].intensity[0].mean) == (0, 30)


def test_instances_are_the_objects_where_there_are_any(tmp_path: Path) -> None:
    mask = np.array([[1, 1, 1, 1], [0, 0, 2, 1], [0, 0, 2, 9]], np.uint8)
    ids = np.array([[300, 300, 7, 7], [0, 0, 7, 7], [0, 0, 7, 2]], np.uint16)
    image = np.zeros((3, 4, 3), np.uint8)
    write(tmp_path, "a", image, mask, ids)
    found = describe(info(tmp_path, "classes: [background, a, b]\nignore_index: 9\n")).whole
    assert found.name == "all"
    assert found.objects_from == "instances"
    assert found.objects_ignored == 1
    objects = found.classes[1].objects
    assert objects is not None
    assert (objects.count, objects.area_px.minimum, objects.area_px.maximum) == (2, 2.0, 5.0)
    assert (objects.at_edge, objects.most_in_one_image, objects.images) == (2, 2, 1)
    assert found.classes[2].objects is None
    write(tmp_path, "b", image, mask)
    assert describe(tmp_path).whole.objects_from == "both"


@settings(max_examples=40, deadline=None)
@given(MASKS)
def test_components_agree_with_scikit_image(mask: np.ndarray) -> None:
    found = measure_labels(mask, None, frozenset({0}), IGNORE)
    assert 0 not in found.objects
    for class_id in (1, 2):
        regions = regionprops(label(mask == class_id, connectivity=2))
        areas = sorted(int(region.area) for region in regions)
        edge = sum(
            r.bbox[0] == 0 or r.bbox[1] == 0 or r.bbox[2] == 9 or r.bbox[3] == 11 for r in regions
        )
        objects = found.objects.get(class_id)
        assert sorted(objects.areas_px if objects else []) == areas
        assert (objects.at_edge if objects else 0) == edge


@settings(max_examples=40, deadline=None)
@given(MASKS, hnp.arrays(np.uint16, (9, 11), elements=st.sampled_from([0, 1, 2, 500])))
def test_instances_agree_with_a_plain_loop(mask: np.ndarray, ids: np.ndarray) -> None:
    found = measure_labels(mask, ids, frozenset(), IGNORE)
    expected: dict[int, list[int]] = {}
    ignored = 0
    for object_id in set(ids[ids > 0].tolist()):
        inside = mask[ids == object_id]
        voting = inside[inside != IGNORE]
        if voting.size == 0:
            ignored += 1
            continue
        expected.setdefault(int(np.bincount(voting).argmax()), []).append(inside.size)
    areas = {class_id: sorted(one.areas_px) for class_id, one in found.objects.items()}
    assert areas == {class_id: sorted(listed) for class_id, listed in expected.items()}
    assert found.objects_ignored == ignored


@settings(max_examples=40, deadline=None)
@given(MASKS)
def test_borders_agree_with_a_plain_loop(mask: np.ndarray) -> None:
    expected: dict[tuple[int, int], int] = {}
    for row in range(9):
        for column in range(11):
            for other in ((row + 1, column), (row, column + 1)):
                if other[0] == 9 or other[1] == 11:
                    continue
                low, high = sorted((int(mask[row, column]), int(mask[other])))
                if low != high and high != IGNORE:
                    expected[low, high] = expected.get((low, high), 0) + 1
    assert borders(mask, IGNORE) == expected


@pytest.mark.parametrize("width", [1, 2, 3, 4, 7, 10])
def test_a_bar_is_as_thick_as_it_is(width: int) -> None:
    found = ridge_thickness(np.ones((width, 40), np.uint8))
    assert found.keys() == {4 * width}
    middle = np.zeros((40, 40), np.uint8)
    middle[5 : 5 + width, 3:37] = 1
    assert ridge_thickness(middle).keys() == {4 * width}
    assert ridge_thickness(np.ascontiguousarray(middle.T)).keys() == {4 * width}


def test_a_disc_is_at_its_thickest_as_thick_as_its_diameter() -> None:
    rows, columns = np.mgrid[:101, :101]
    disc = (((rows - 50) ** 2 + (columns - 50) ** 2) <= 40**2).astype(np.uint8)
    found = ridge_thickness(disc)
    assert max(found) / 4 == pytest.approx(2 * math.sqrt(disc.sum() / math.pi), abs=1.5)


def test_a_rough_outline_does_not_count() -> None:
    bar = np.zeros((40, 200), np.uint8)
    bar[10:30, 10:190] = 1
    bar[9, 10:190:3] = 1
    bar[30, 11:190:5] = 1
    assert min(ridge_thickness(bar)) >= 4 * 20
    bar[20, 190:] = 1  # and a long thin part does
    found = ridge_thickness(bar)
    # ten pixels but for the two next to the bar; the doubled ridge has four pixels for each
    assert (min(found), found[4]) == (4, 4 * 8)


def test_a_large_region_is_measured_to_half_a_pixel() -> None:
    long = np.zeros((3000, 1500), np.uint8)
    long[1000:1009] = 1
    assert ridge_thickness(long).keys() == {38}  # 9.5 px for 9


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 60000), min_size=1, max_size=40))
def test_percentiles_are_those_of_numpy(values: list[int]) -> None:
    counts = {value: values.count(value) for value in values}
    percents = (0.0, 0.5, 5.0, 25.0, 50.0, 99.5, 100.0)
    assert percentiles(counts, percents) == pytest.approx(np.percentile(values, percents).tolist())
    found = distribution(counts, 0.5)
    assert found.mean == pytest.approx(np.mean(values) / 2)
    assert found.count == len(values)
    diameters = equivalent_diameters(counts)
    assert diameters.mean == pytest.approx(np.mean(2 * np.sqrt(np.array(values) / np.pi)))
    histogram = area_histogram(counts)
    assert sum(histogram.counts) == len(values)
    assert histogram.edges[0] <= min(values) < histogram.edges[1]
    assert histogram.edges[-2] <= max(values) < histogram.edges[-1]
    assert list(histogram.counts) == np.histogram(values, histogram.edges)[0].tolist()


def test_bins_of_areas_and_values() -> None:
    histogram = area_histogram({1: 1, 2: 1, 5: 2, 12: 1})
    assert histogram.edges == (1, 2, 3, 4, 6, 8, 12, 16)
    assert histogram.counts == (1, 1, 0, 2, 0, 0, 1)
    assert value_histogram({0: 1, 3: 2, 255: 4}, 0, 255, 64).edges[:3] == (0.0, 4.0, 8.0)
    assert value_histogram({7: 5, 8: 1, 20: 9}, 7, 9, 64).counts == (5, 1, 0)


@given(st.integers(0, 2**40))
def test_large_areas_are_rounded_by_a_thousandth(area: int) -> None:
    kept = kept_area(area)
    assert kept == area if area < 65536 else area * 0.999 < kept <= area


def random_dataset(folder: Path) -> Path:
    rng = np.random.default_rng(5)
    for index in range(9):
        split = "val" if index % 3 == 0 else "train"
        hw = (20 + index, 30)
        mask = rng.choice(np.array([0, 1, 2, 3, 255], np.uint8), hw)
        image: np.ndarray = rng.integers(0, 255, (*hw, 3), dtype=np.uint8)
        if index == 4:
            image = rng.normal(0, 1, hw).astype(np.float32)
        if index == 5:
            image = rng.integers(0, 65535, hw, dtype=np.uint16)
        write(folder / split, f"s{index}", image, None if index == 7 else mask)
    return info(folder, "classes: [background, a, b, c, never]\nignore_index: 255\n")


def test_any_number_of_workers_gives_the_same(tmp_path: Path) -> None:
    folder = random_dataset(tmp_path)
    told: list[tuple[int, int]] = []
    one = describe(folder, workers=1, progress=lambda done, total: told.append((done, total)))
    assert one == describe(folder, workers=4)
    assert told == [(done, 9) for done in range(1, 10)]
    document = one.to_dict()
    assert json.loads(json.dumps(document)) == json.loads(json.dumps(document))
    assert document["whole"]["images"] == 9


def test_mixed_and_unlabelled_images(tmp_path: Path) -> None:
    found = describe(random_dataset(tmp_path))
    whole = found.whole
    assert (whole.images, whole.labelled_images) == (9, 8)
    assert [(k.channels, k.dtype, k.images) for k in whole.pixel_types] == [
        (3, "uint8", 7),
        (1, "float32", 1),
        (1, "uint16", 1),
    ]
    never = whole.classes[4]
    assert (never.pixels, never.images, never.objects, never.thickness_px) == (0, 0, None, None)
    assert whole.groups is None
    for index, one in enumerate(whole.classes):
        assert one.pixels == sum(split.classes[index].pixels for split in found.splits)
    shown = {example.class_id for example in found.examples}
    assert shown == {1, 2, 3}
    assert all(len([e for e in found.examples if e.class_id == i]) == 4 for i in shown)


def test_without_any_mask(tmp_path: Path) -> None:
    write(tmp_path, "a", np.zeros((4, 5), np.uint8), None)
    found = describe(info(tmp_path, "classes: [background, a]\n"))
    assert (found.whole.labelled_images, found.whole.objects_from) == (0, None)
    assert found.whole.ignored_share == 0.0
    assert found.examples == ()


def test_only_ignored_pixels_are_near_empty(tmp_path: Path) -> None:
    write(tmp_path, "a", np.zeros((4, 5), np.uint8), np.full((4, 5), 7, np.uint8))
    found = describe(info(tmp_path, "classes: [background, a]\nignore_index: 7\n")).whole
    assert (found.near_empty, found.labelled_pixels) == (("all/a",), 0)
    assert found.ignored_share == 1.0


def test_bad_datasets_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError) as absent:
        describe(tmp_path / "none")
    assert str(absent.value) == f"{tmp_path / 'none'}: no such folder."
    write(tmp_path, "a", np.zeros((4, 5), np.uint8), np.full((4, 5), 3, np.uint8))
    info(tmp_path, "classes: [background, a]\n")
    with pytest.raises(MaskError) as other:
        describe(tmp_path)
    assert str(other.value) == (
        f"{tmp_path / 'masks' / 'a.png'}: has the id 3 (20 pixels), and the classes go from 0 to "
        "1. If it means void, set ignore_index: 3; otherwise name 4 classes."
    )
    write(tmp_path, "a", np.zeros((4, 5), np.uint8), np.zeros((4, 5), np.uint8))
    write(tmp_path, "a", np.zeros((4, 5), np.uint8), None, np.zeros((4, 4), np.uint16))
    with pytest.raises(MaskError, match="is 4 x 4 pixels"):
        describe(tmp_path)


@pytest.mark.skipif(not (SHARED / "camvid").is_dir(), reason="no shared data")
def test_shares_of_camvid(tmp_path: Path) -> None:
    """Twenty of its images, against a plain loop."""
    data = Dataset.open(SHARED / "camvid")
    chosen = data.split("val")[::3]
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    (tmp_path / "dataset.yaml").write_bytes((data.path / "dataset.yaml").read_bytes())
    counts = np.zeros(256, np.int64)
    images = np.zeros(256, np.int64)
    values: list[Any] = []
    for sample in chosen:
        assert sample.mask is not None
        (tmp_path / "images" / sample.image.name).write_bytes(sample.image.read_bytes())
        (tmp_path / "masks" / sample.mask.name).write_bytes(sample.mask.read_bytes())
        image, mask = read_pair(sample, data.info)
        for class_id in range(12):
            n = int((mask == class_id).sum())
            counts[class_id] += n
            images[class_id] += n > 0
        values.append(image.reshape(-1, 3))
    found = describe(tmp_path).whole
    assert [one.pixels for one in found.classes] == counts[:11].tolist()
    assert [one.images for one in found.classes] == images[:11].tolist()
    assert found.ignored_pixels == counts[11]
    shares = [one.pixel_share for one in found.classes]
    assert shares == pytest.approx((counts[:11] / counts[:11].sum()).tolist())
    pixels = np.concatenate(values)
    every = found.pixel_types[0].intensity
    assert [c.mean for c in every] == pytest.approx(pixels.mean(axis=0).tolist())
    assert [c.std for c in every] == pytest.approx(pixels.std(axis=0).tolist())
    assert [c.p99_5 for c in every] == np.percentile(pixels, 99.5, axis=0).tolist()
