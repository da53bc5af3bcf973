"""COCO panoptic PNG and JSON -> labels."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from delineate.data.dataset import DatasetInfo
from delineate.data.formats.coco_panoptic import is_coco_panoptic, open_coco_panoptic
from delineate.data.formats.settings import ImportSettings
from delineate.data.formats.source import Source
from delineate.errors import DatasetError, MaskError

SHARED = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "coco_panoptic"
HW = (6, 8)
CATEGORIES = [
    {"id": 1, "name": "person", "isthing": 1},
    {"id": 7, "name": "sky", "isthing": 0},
]
AGAIN = "Export the PNG and the JSON together again."
# rows: two people, a crowd of ids over 255 and over 65535, sky, and void
IDS = np.array([300, 300, 70_000, 5, 9, 0])[:, None].repeat(8, axis=1)
SEGMENTS = [
    {"id": 300, "category_id": 1},
    {"id": 70_000, "category_id": 1, "iscrowd": 0},
    {"id": 5, "category_id": 1, "iscrowd": 1},
    {"id": 9, "category_id": 7},
]


def write(folder, *, ids=IDS, segments=SEGMENTS, categories=CATEGORIES, name="panoptic.json"):
    content = {
        "images": [{"id": 4, "file_name": "one.jpg", "height": HW[0], "width": HW[1]}],
        "categories": categories,
        "annotations": [{"image_id": 4, "file_name": "one.png", "segments_info": segments}],
    }
    cv2.imwrite(str(folder / "one.jpg"), np.zeros((*HW, 3), np.uint8))
    png = folder / name.removesuffix(".json") / "one.png"
    png.parent.mkdir(exist_ok=True)
    colours = np.stack([ids & 255, ids >> 8 & 255, ids >> 16], axis=2)
    Image.fromarray(colours.astype(np.uint8)).save(png)
    return dump(folder / name, content)


def dump(file, content):
    file.write_text(json.dumps(content))
    return file


def changed(file, **fields):
    return dump(file, json.loads(file.read_text()) | fields)


def opened(source, **more):
    return open_coco_panoptic(ImportSettings(source=source, out=Path("out"), **more))


def labels_of(source, index=0, hw=HW, **fields):
    proposal = source.proposal
    info = {"classes": proposal.classes, "ignore_index": proposal.ignore_index} | fields
    return source.labels(source.items[index], hw, DatasetInfo(**info))


def error_of(kind, call, *arguments, **more):
    with pytest.raises(kind) as caught:
        call(*arguments, **more)
    return str(caught.value)


def test_things_are_objects_and_stuff_and_crowds_are_not(tmp_path):
    source = opened(write(tmp_path))
    assert isinstance(source, Source)
    assert source.proposal.classes == ("background", "person", "sky")
    assert source.proposal.ignore_index == 255
    assert source.proposal.notes == ("pixels of the id 0 (void) are ignored",)
    found = labels_of(source)
    assert (found.classes == found.classes[:, :1]).all()
    assert found.classes[:, 0].tolist() == [1, 1, 1, 1, 2, 255]
    assert found.instances[:, 7].tolist() == [1, 1, 2, 0, 0, 0]
    ignored = labels_of(opened(write(tmp_path), crowd="ignore"))
    assert ignored.classes[:, 3].tolist() == [1, 1, 1, 255, 2, 255]


def test_every_pixel_keeps_its_segment(tmp_path):
    ids = np.random.default_rng(0).choice([3, 256, 65_536, 16_777_215], HW)
    segments = [{"id": int(i), "category_id": 1} for i in np.unique(ids)[::-1]]
    found = labels_of(opened(write(tmp_path, ids=ids, segments=segments)))
    _, expected = np.unique(ids, return_inverse=True)
    np.testing.assert_array_equal(found.instances, expected.reshape(HW) + 1)
    assert (found.classes == 1).all()


def test_void_needs_an_ignore_index(tmp_path):
    file = write(tmp_path)
    assert error_of(MaskError, labels_of, opened(file), ignore_index=None) == (
        f"{tmp_path / 'panoptic' / 'one.png'}: has 8 pixels of no segment (id 0), and there is no "
        "ignore index. Add --ignore-index 255."
    )
    full = opened(write(tmp_path, ids=np.full(HW, 9), segments=[SEGMENTS[3]]))
    found = labels_of(full, ignore_index=None)
    assert (found.classes == 2).all()
    assert found.instances is None


def test_segments_of_png_and_json_must_be_the_same(tmp_path):
    png = tmp_path / "panoptic" / "one.png"
    source = opened(write(tmp_path, segments=SEGMENTS[:-1]))
    assert error_of(MaskError, labels_of, source) == (
        f"{png}: has 8 pixels of the segment 9, which segments_info does not name. {AGAIN}"
    )
    source = opened(write(tmp_path, segments=[SEGMENTS[1], SEGMENTS[3]]))
    assert error_of(MaskError, labels_of, source) == (
        f"{png}: has 16 pixels of the segment 300, which segments_info does not name (2 such "
        f"segments in all). {AGAIN}"
    )
    more = [{"id": 77, "category_id": 7}, {"id": 16_777_215, "category_id": 7}]
    source = opened(write(tmp_path, segments=[*SEGMENTS, more[0]]))
    assert error_of(MaskError, labels_of, source) == (
        f"{png}: has no pixel of the segment 77, which segments_info names. {AGAIN}"
    )
    source = opened(write(tmp_path, segments=[*SEGMENTS, *more]))
    assert error_of(MaskError, labels_of, source) == (
        f"{png}: has no pixel of the segments 77, 16777215, which segments_info names. {AGAIN}"
    )


@pytest.mark.parametrize(
    ("segments", "message"),
    [
        ([SEGMENTS[0], SEGMENTS[0]], f": has two segments of the id 300. {AGAIN}"),
        (
            [{"id": 0, "category_id": 1}],
            ": has a segment of the id 0, and a PNG holds 1 to 16777215 (0 is no segment). "
            + AGAIN,
        ),
        (
            [{"id": 3, "category_id": 2}],
            ", segment 3: has the category 2, which categories does not name. Add the category "
            "with its name.",
        ),
    ],
)
def test_bad_segments(tmp_path, segments, message):
    file = write(tmp_path, segments=segments)
    assert error_of(DatasetError, opened, file) == f"{file}, annotation of image 4{message}"


def test_png_of_another_kind(tmp_path):
    file = write(tmp_path)
    png = tmp_path / "panoptic" / "one.png"
    Image.fromarray(np.zeros(HW, np.uint8)).save(png)
    assert error_of(MaskError, labels_of, opened(file)) == (
        f"{png}: has 1 channel of uint8, and segment ids are stored in 3 of uint8. Write id = R + "
        "256 G + 65536 B."
    )
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(png)
    assert error_of(MaskError, labels_of, opened(file)) == (
        f"{png}: is 4 x 4 pixels (width x height), and its image is 8 x 6. Export the segments at "
        "8 x 6, without interpolation."
    )
    png.write_bytes(b"\x89PNG\r\n\x1a\n")
    assert error_of(MaskError, labels_of, opened(file)) == (
        f"{png}: is a PNG without a header. Fetch or export the file again."
    )


def test_absent_png(tmp_path):
    file = write(tmp_path)
    (tmp_path / "panoptic").rename(tmp_path / "elsewhere")
    assert error_of(DatasetError, opened, file) == (
        f"{file}: names PNGs of segments that are not there, 1 of 1: one.png. Name their folder "
        "with --masks, or leave them out with --drop-unpaired."
    )
    assert labels_of(opened(file, masks=tmp_path / "elsewhere")).classes[0, 0] == 1
    assert "none of the annotated images" in error_of(
        DatasetError, opened, file, drop_unpaired=True
    )


def test_ids_that_do_not_fit(tmp_path):
    file = write(tmp_path)
    content = json.loads(file.read_text())
    (annotation,) = content["annotations"]
    (image,) = content["images"]
    assert error_of(DatasetError, opened, changed(file, annotations=[annotation] * 2)) == (
        f"{file}: has two annotations of the image 4. Keep one of them."
    )
    other = annotation | {"image_id": 5}
    assert error_of(DatasetError, opened, changed(file, annotations=[other])) == (
        f"{file}, annotation of image 5: belongs to an image that images does not name. Add the "
        "image, or delete its annotation."
    )
    two = [image, image | {"id": 5, "file_name": "two.jpg"}]
    changed(file, annotations=[annotation], images=two)
    assert error_of(DatasetError, opened, file) == (
        f"{file}: 1 image has no annotations: two.jpg. Annotate it, or leave it out with "
        "--drop-unpaired."
    )
    source = opened(file, drop_unpaired=True)
    assert [item.name for item in source.items] == ["one"]
    assert source.proposal.dropped == (tmp_path / "two.jpg",)
    bare = [{"id": 1, "name": "person"}]
    assert error_of(DatasetError, opened, changed(file, categories=bare)) == (
        f"{file}, $.categories[0]: is no COCO file: object missing required field `isthing`. A "
        "COCO file is one object with images, annotations and categories."
    )
    changed(file, annotations=None, categories=CATEGORIES)
    assert error_of(DatasetError, opened, file) == (
        f"{file}: has no annotations. Give a file with annotations. One of a test split may have "
        "none: its name has test in it."
    )


def test_a_folder_of_splits(tmp_path):
    for name in ("panoptic_train2017.json", "panoptic_val2017.json"):
        write(tmp_path, name=name)
    assert is_coco_panoptic(tmp_path)
    source = opened(tmp_path)
    assert [(item.name, item.split) for item in source.items] == [("one", "train"), ("one", "val")]
    write(tmp_path, name="panoptic_val2017.json", segments=[SEGMENTS[0] | {"category_id": 7}])
    assert "has other annotations here" in error_of(DatasetError, opened, tmp_path)


def test_evidence_differs_with_what_labels_the_image(tmp_path):
    def evidence(**more):
        source = opened(write(tmp_path, **more))
        return source.evidence(source.items[0])

    first = evidence()
    assert evidence() == first
    others = [
        evidence(ids=IDS[::-1]),
        evidence(segments=[*SEGMENTS[:3], SEGMENTS[3] | {"category_id": 1}]),
        evidence(categories=[CATEGORIES[0], CATEGORIES[1] | {"isthing": 1}]),
    ]
    assert len({first, *others}) == 4


def test_shared_photos_equal_what_numpy_reads():
    if not SHARED.is_dir():
        pytest.skip("no shared data beside the checkout")
    file = SHARED / "panoptic_examples.json"
    content = json.loads(file.read_text())
    source = opened(file, images=SHARED / "input_images")
    names = {category["id"]: category["name"] for category in content["categories"]}
    things = {category["id"] for category in content["categories"] if category["isthing"]}
    assert [item.name for item in source.items] == ["000000142238", "000000439180"]
    for index, annotation in enumerate(content["annotations"]):
        with Image.open(SHARED / "panoptic_examples" / annotation["file_name"]) as picture:
            ids = np.array(picture).astype(np.int64) @ [1, 256, 65_536]
        found = labels_of(source, index, ids.shape)
        classes, objects = np.full(ids.shape, 255), 0
        for segment in annotation["segments_info"]:
            inside = ids == segment["id"]
            classes[inside] = source.proposal.classes.index(names[segment["category_id"]])
            own = np.unique(found.instances[inside])
            assert len(own) == 1
            counted = segment["category_id"] in things and not segment["iscrowd"]
            assert (own[0] > 0) == counted
            objects += counted
            if counted:
                np.testing.assert_array_equal(found.instances == own[0], inside)
        np.testing.assert_array_equal(found.classes, classes)
        assert found.instances.max() == objects > 0


def test_images_of_a_test_file_without_annotations_are_unlabelled(tmp_path):
    folder = tmp_path / "annotations"
    folder.mkdir()
    write(folder, name="panoptic_train.json")
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
    (folder / "one.jpg").rename(tmp_path / "train/one.jpg")
    cv2.imwrite(str(tmp_path / "test/two.jpg"), np.zeros((*HW, 3), np.uint8))
    categories = [{"id": 1, "name": "person"}, {"id": 99, "name": "boat"}]
    images = [{"id": 5, "file_name": "two.jpg", "height": HW[0], "width": HW[1]}]
    dump(folder / "image_info_test.json", {"images": images, "categories": categories})
    source = opened(tmp_path)
    found = [(item.name, item.split, item.labelled) for item in source.items]
    assert sorted(found) == [("one", "train", True), ("two", "test", False)]
    assert source.proposal.classes == ("background", "person", "sky")
