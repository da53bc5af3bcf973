"""Label maps -> COCO RLE -> label maps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco

from delineate.data.rle import encode_rle, label_map_to_coco, rle_to_labels
from delineate.errors import MaskError


@st.composite
def label_maps(draw):
    shape = draw(hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=24))
    dtype = draw(st.sampled_from([np.uint8, np.uint16]))
    largest = draw(st.sampled_from([1, 3, 255] if dtype == np.uint8 else [1, 3, 400]))
    return draw(hnp.arrays(dtype, shape, elements=st.integers(0, largest)))


def names(k):
    return [f"class {index}" for index in range(k)]


@settings(deadline=None)
@given(label_maps())
def test_regions_give_the_label_map_back(labels):
    regions = label_map_to_coco(labels, names(401))
    found = rle_to_labels(regions, labels.shape)
    np.testing.assert_array_equal(found, labels)
    assert found.dtype == (np.uint8 if labels.max() < 256 else np.uint16)


@settings(deadline=None)
@given(label_maps())
def test_regions_are_what_pycocotools_says_of_each_mask(labels):
    regions = label_map_to_coco(labels, names(401))
    assert [region["class_id"] for region in regions] == np.unique(labels).tolist()
    for region in regions:
        mask = np.asfortranarray(labels == region["class_id"]).astype(np.uint8)
        packed = coco.encode(mask)
        assert region["segmentation"] == {
            "size": list(labels.shape),
            "counts": packed["counts"].decode(),
        }
        assert region["segmentation"] == encode_rle(labels, region["class_id"])
        assert region["area_px"] == mask.sum()
        # not coco.toBbox: a run over a column's end makes that one start at the top
        rows, columns = np.nonzero(mask)
        left, top = columns.min(), rows.min()
        width, height = columns.max() - left + 1, rows.max() - top + 1
        assert region["bbox"] == [left, top, width, height]
        assert region["class"] == f"class {region['class_id']}"


def test_large_map_with_long_and_negative_differences():
    labels = np.zeros((700, 900), np.uint8)
    labels[100:400, 200:700] = 1
    labels[:, 800:] = 2
    labels[5, 5] = 3
    regions = label_map_to_coco(labels, names(4))
    np.testing.assert_array_equal(rle_to_labels(regions, labels.shape), labels)
    assert regions[1]["bbox"] == [200, 100, 500, 300]


def test_background_is_left_out_and_filled_in():
    labels = np.array([[0, 1], [2, 2]], np.uint8)
    regions = label_map_to_coco(labels, names(3), skip_background=True)
    assert [region["class_id"] for region in regions] == [1, 2]
    np.testing.assert_array_equal(rle_to_labels(regions, (2, 2)), labels)
    np.testing.assert_array_equal(rle_to_labels(regions, (2, 2), fill=9), [[9, 1], [2, 2]])
    np.testing.assert_array_equal(rle_to_labels([], (2, 3), fill=300), np.full((2, 3), 300))


def test_an_absent_class_is_an_empty_mask():
    rle = encode_rle(np.zeros((3, 2), np.uint8), 7)
    assert rle == {"size": [3, 2], "counts": "6"}


def test_a_class_without_a_name_is_refused():
    with pytest.raises(MaskError) as caught:
        label_map_to_coco(np.array([[0, 5]], np.uint8), names(2))
    assert str(caught.value) == (
        "label map: holds class id 5, and there are names for 0 to 1. "
        "Name at least 6 classes, or map the id to one of them."
    )


def region(class_id, counts, size=(4, 4)):
    rle = {"size": list(size), "counts": counts}
    return {"class_id": class_id, "class": "", "area_px": 0, "bbox": [], "segmentation": rle}


def test_regions_that_overlap_are_refused():
    labels = np.eye(4, dtype=np.uint8)
    one = label_map_to_coco(labels, names(2))[1]
    with pytest.raises(MaskError) as caught:
        rle_to_labels([one, {**one, "class_id": 2}], (4, 4))
    assert str(caught.value) == (
        "regions: class_id 2 overlaps another region at row 0, column 0. "
        "A label map holds one class for each pixel: give each pixel to one region."
    )


def test_a_region_of_another_size_is_refused():
    with pytest.raises(MaskError) as caught:
        rle_to_labels([region(1, "`0", (4, 4))], (5, 4))
    assert str(caught.value) == (
        "region 0 (class_id 1): has size [4, 4] (height, width), and the image [5, 4]. "
        "Take the RLE and the size from the same image."
    )


@pytest.mark.parametrize(
    "counts",
    [
        "",
        "5",
        "0",
        "oooo",
        "P",
        "o" * 50,
        "\0\0",
        "räksmörgås",
        "1111111111111111111",
        "O@",
        None,
        [16],
    ],
)
def test_damaged_counts_are_refused(counts):
    with pytest.raises(MaskError) as caught:
        rle_to_labels([region(1, counts)], (4, 4))
    assert str(caught.value) == (
        "region 0 (class_id 1): holds counts that are no compressed RLE of 4 x 4 px. "
        "Encode the mask with pycocotools.mask.encode."
    )


@given(st.text("0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[]^_`abcdefghijklmno", max_size=40))
def test_any_counts_are_read_or_refused(counts):
    try:
        labels = rle_to_labels([region(1, counts)], (4, 4))
    except MaskError as error:
        assert "no compressed RLE" in str(error)  # noqa: PT017
    else:
        assert labels.shape == (4, 4)
        assert labels.max() <= 1
