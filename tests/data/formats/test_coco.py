"""COCO JSON -> labels, equal to pycocotools in every pixel."""

from __future__ import annotations

import json
import unicodedata
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco

from delineate.data.dataset import DatasetInfo
from delineate.data.formats import coco_runs
from delineate.data.formats.coco import is_coco, open_coco
from delineate.data.formats.settings import ImportSettings
from delineate.data.formats.source import Source
from delineate.errors import DatasetError, ImageError, MaskError

SHARED = Path(__file__).resolve().parents[3].parent / "shared" / "data"
HW = (20, 30)
CATEGORIES = [{"id": 1, "name": "cell"}, {"id": 2, "name": "nucleus"}]
TRIANGLE = [[2, 2, 10, 2, 2, 10]]


def image(index=1, name="one.png", hw=HW):
    return {"id": index, "file_name": name, "height": hw[0], "width": hw[1]}


def annotation(segmentation, index=1, image_id=1, category=1, **more):
    return {
        "id": index,
        "image_id": image_id,
        "category_id": category,
        "segmentation": segmentation,
        **more,
    }


def document(*annotations, images=None, categories=CATEGORIES):
    return {
        "images": [image()] if images is None else images,
        "categories": categories,
        "annotations": list(annotations),
    }


def write(folder, content, name="labels.json", hw=HW):
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    if isinstance(content, dict):
        for entry in content.get("images", []):
            picture = folder / entry["file_name"]
            picture.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(picture), np.zeros((*hw, 3), np.uint8))
    return file


def opened(source, **more):
    return open_coco(ImportSettings(source=source, out=Path("out"), **more))


def info_of(source):
    return DatasetInfo(classes=source.proposal.classes, ignore_index=source.proposal.ignore_index)


def labels_of(source, index=0, hw=HW, info=None):
    return source.labels(source.items[index], hw, info or info_of(source))


def mask_of(segmentation, hw):
    """As COCO.annToMask."""
    if isinstance(segmentation, list):
        packed = coco.merge(coco.frPyObjects(segmentation, *hw))
    elif isinstance(segmentation["counts"], list):
        packed = coco.frPyObjects(segmentation, *hw)
    else:
        packed = segmentation
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # pycocotools 2.0.11 with NumPy 2
        return coco.decode(packed).astype(bool)


def paint(objects, order, hw):
    """(classes, instances) with one mask for each object, the slow way."""
    classes, instances = np.zeros(hw, np.uint8), np.zeros(hw, np.uint16)
    for index in order:
        category, segmentation, number = objects[index]
        mask = mask_of(segmentation, hw)
        classes[mask], instances[mask] = category, number
    return classes, instances


def error_of(kind, call, *arguments, **more):
    with pytest.raises(kind) as caught:
        call(*arguments, **more)
    return caught.value


coordinates = st.one_of(
    st.floats(-8, 40, allow_nan=False, width=32),
    st.integers(-3, 33).map(float),
    st.sampled_from([0.0, 19.5, 20.0, 29.5, 30.0, 10.25]),
)


@st.composite
def polygons(draw):
    kind = draw(st.sampled_from(["free", "tiny", "collinear"]))
    if kind == "tiny":
        x, y = draw(coordinates), draw(coordinates)
        shifts = draw(st.lists(st.floats(-1, 1, width=32), min_size=6, max_size=6))
        return [base + shift for base, shift in zip([x, y] * 3, shifts, strict=True)]
    if kind == "collinear":
        x, y = draw(coordinates), draw(coordinates)
        return [value for step in range(3) for value in (x + 2.0 * step, y + 3.0 * step)]
    points = draw(st.lists(st.tuples(coordinates, coordinates), min_size=3, max_size=9))
    return [value for point in points for value in point]


def rle(mask, kind):
    packed = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    if kind == "packed":
        return {"size": list(mask.shape), "counts": packed["counts"].decode()}
    flat = mask.T.reshape(-1)
    edges = np.flatnonzero(np.diff(flat, prepend=False)).tolist()
    return {"size": list(mask.shape), "counts": np.diff([0, *edges, flat.size]).tolist()}


masks = hnp.arrays(bool, HW, elements=st.booleans(), fill=st.booleans())
segmentations = st.one_of(
    st.lists(polygons(), min_size=1, max_size=3),
    st.builds(rle, masks, st.sampled_from(["packed", "plain"])),
)


@settings(max_examples=120, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 2), segmentations), min_size=1, max_size=6),
    st.sampled_from(["later", "earlier", "smaller"]),
)
def test_every_pixel_is_that_of_pycocotools(tmp_path_factory, drawn, overlap):
    folder = tmp_path_factory.mktemp("coco")
    file = write(
        folder,
        document(*(annotation(s, i, category=c) for i, (c, s) in enumerate(drawn))),
    )
    found = labels_of(opened(file, overlap=overlap))
    objects = [(c, s, i + 1) for i, (c, s) in enumerate(drawn)]
    order = list(range(len(objects)))
    if overlap == "earlier":
        order.reverse()
    if overlap == "smaller":
        order.sort(key=lambda i: -int(mask_of(objects[i][1], HW).sum()))
    classes, instances = paint(objects, order, HW)
    np.testing.assert_array_equal(found.classes, classes)
    np.testing.assert_array_equal(found.instances, instances)
    assert found.classes.dtype == np.uint8
    assert found.instances.dtype == np.uint16


@pytest.mark.parametrize("kind", ["packed", "plain"])
def test_large_rle_with_holes_and_long_runs(tmp_path, kind):
    rng = np.random.default_rng(0)
    mask = np.zeros((700, 900), bool)
    mask[10:690, 50:800] = True
    mask[100:600, 300:500] = rng.random((500, 200)) < 0.3
    file = write(
        tmp_path, document(annotation(rle(mask, kind)), images=[image(hw=mask.shape)]), hw=(2, 2)
    )
    found = labels_of(opened(file), hw=mask.shape)
    np.testing.assert_array_equal(found.classes, mask)
    np.testing.assert_array_equal(found.instances, mask)


def test_pixels_are_painted_in_order_when_they_come_in_several_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(coco_runs, "_PAINTED_AT_ONCE", 7)
    boxes = [[[1, 1, 15, 1, 15, 15, 1, 15]], [[5, 5, 25, 5, 25, 19, 5, 19]]]
    file = write(tmp_path, document(annotation(boxes[0], 1), annotation(boxes[1], 2, category=2)))
    classes, instances = paint([(1, boxes[0], 1), (2, boxes[1], 2)], [0, 1], HW)
    found = labels_of(opened(file))
    np.testing.assert_array_equal(found.classes, classes)
    np.testing.assert_array_equal(found.instances, instances)


def test_an_image_without_annotations_is_background(tmp_path):
    file = write(tmp_path, document())
    found = labels_of(opened(file))
    assert not found.classes.any()
    assert found.instances is None


def test_crowds_lie_below_and_are_no_objects(tmp_path):
    crowd = rle(np.ones(HW, bool), "plain")
    file = write(
        tmp_path,
        document(annotation(TRIANGLE, 1), annotation(crowd, 2, category=2, iscrowd=1)),
    )
    inside = mask_of(TRIANGLE, HW)
    for overlap in ("later", "earlier", "smaller"):
        found = labels_of(opened(file, overlap=overlap))
        np.testing.assert_array_equal(found.classes, np.where(inside, 1, 2))
        np.testing.assert_array_equal(found.instances, inside)
    source = opened(file, crowd="ignore")
    assert source.proposal.ignore_index == 255
    assert source.proposal.notes == ("crowds, which lie below all objects and are ignored: 1",)
    np.testing.assert_array_equal(labels_of(source).classes, np.where(inside, 1, 255))
    error = error_of(
        MaskError, labels_of, source, info=DatasetInfo(classes=("background", "cell", "nucleus"))
    )
    assert str(error) == (
        f"{file}, image 1 (one.png), annotation 2: is a crowd that is to be ignored, and there is "
        "no ignore index. Add --ignore-index 255."
    )


def test_background_and_ignored_areas_are_no_objects(tmp_path):
    categories = [{"id": 0, "name": "_background_"}, {"id": 4, "name": "__ignore__"}, *CATEGORIES]
    file = write(
        tmp_path,
        document(
            annotation(rle(np.ones(HW, bool), "packed"), 1, category=4),
            annotation([[0, 0, 30, 0, 30, 10, 0, 10]], 2, category=0),
            annotation(TRIANGLE, 3),
            categories=categories,
        ),
    )
    source = opened(file)
    assert source.proposal.classes == ("_background_", "cell", "nucleus")
    assert source.proposal.ignore_index == 255
    expected = np.full(HW, 255)
    expected[mask_of([[0, 0, 30, 0, 30, 10, 0, 10]], HW)] = 0
    expected[mask_of(TRIANGLE, HW)] = 1
    found = labels_of(source)
    np.testing.assert_array_equal(found.classes, expected)
    np.testing.assert_array_equal(found.instances, mask_of(TRIANGLE, HW))
    other = DatasetInfo(classes=("cell", "background"), ignore_index=9)
    swapped = labels_of(source, info=other).classes
    np.testing.assert_array_equal(swapped, np.select([expected == 255, expected == 1], [9, 0], 1))


def test_classes_of_the_user(tmp_path):
    file = write(tmp_path, document(annotation(TRIANGLE), annotation(TRIANGLE, 2, category=2)))
    source = opened(file)
    error = error_of(MaskError, labels_of, source, info=DatasetInfo(classes=("background", "cell")))
    assert str(error) == (
        f"{file}, image 1 (one.png), annotation 2: names the class 'nucleus', which is none of "
        "background, cell. Add it to --classes, or map it with --map nucleus=CLASS."
    )
    no_background = DatasetInfo(classes=("nucleus", "cell"))
    error = error_of(MaskError, labels_of, source, info=no_background)
    assert str(error) == (
        f"{file}, image 1 (one.png): has pixels outside of all objects, and none of the classes "
        "nucleus, cell is the background. Put background into --classes, or leave those pixels "
        "out of account with --ignore-index 255."
    )
    everything = document(annotation(rle(np.ones(HW, bool), "plain"), category=2))
    source = opened(write(tmp_path, everything))
    assert not labels_of(source, info=no_background).classes.any()


def test_more_than_256_classes_take_16_bits(tmp_path):
    categories = [{"id": i, "name": f"c{i}"} for i in range(300)]
    file = write(tmp_path, document(annotation(TRIANGLE, category=299), categories=categories))
    found = labels_of(opened(file))
    np.testing.assert_array_equal(found.classes, 300 * mask_of(TRIANGLE, HW).astype(np.uint16))
    assert found.classes.dtype == np.uint16
    crowd = document(annotation(TRIANGLE, category=9, iscrowd=True), categories=categories)
    assert opened(write(tmp_path, crowd), crowd="ignore").proposal.ignore_index == 65535


@pytest.mark.parametrize("empty", [[], None])
def test_empty_segmentations_are_counted(tmp_path, empty):
    boxed = annotation(TRIANGLE, 3)
    del boxed["segmentation"]
    file = write(tmp_path, document(annotation(TRIANGLE, 1), annotation(empty, 2), boxed))
    source = opened(file)
    assert source.proposal.notes == ("annotations without a segmentation, which label no pixel: 2",)
    np.testing.assert_array_equal(labels_of(source).instances, mask_of(TRIANGLE, HW))
    file = write(tmp_path, document(annotation(empty, 2)))
    error = error_of(DatasetError, opened, file)
    assert str(error) == (
        f"{file}: has 1 annotations and none of them has a segmentation, only boxes. Give "
        "annotations with polygons or RLE."
    )


POINTS = "Draw it again, or delete it."
NUMBERS = (
    "Write polygons as lists of finite numbers x, y, x, y, ...; or an RLE with size and counts."
)
FILL = "has an RLE whose counts do not fill 30 x 20 px (width x height). Encode the mask with "
FILL += "pycocotools.mask.encode."


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ([[1, 1, 5, 5]], f": has a polygon of 2 points, and an area has 3. {POINTS}"),
        ([TRIANGLE[0], []], f": has a polygon of 0 points, and an area has 3. {POINTS}"),
        (
            [[1, 1, 5, 5, 9, 9, 3]],
            f": has a polygon of 7 numbers, and points have two each. {POINTS}",
        ),
        (
            [[1, 1, 5, None, 9, 9]],
            f", segmentation[0][3]: has a segmentation that cannot be read: expected `float`, got "
            f"`null`. {NUMBERS}",
        ),
        (
            [[1, 1, 5, "5", 9, 9]],
            f", segmentation[0][3]: has a segmentation that cannot be read: expected `float`, got "
            f"`str`. {NUMBERS}",
        ),
        (
            7,
            ": has a segmentation that cannot be read: expected `object | array`, got `int`. "
            + NUMBERS,
        ),
        (
            [[1, 1, 5, 1e300, 9, 9]],
            ": has the coordinate 1e+300, far outside of the image of 30 x 20 px. Check that the "
            "annotations belong to this image; move it, or delete it.",
        ),
        (
            [[0, 0, 90_000, 90_000] * 30],
            ": has an outline of 10620000 px, and 5000000 are the most that is drawn. Store it as "
            "RLE.",
        ),
        (
            {"size": [30, 20], "counts": [600]},
            ": has an RLE of size [30, 20] (height, width), and the image is [20, 30]. Take the "
            "RLE and the image at one size.",
        ),
        ({"size": [20, 30], "counts": [599]}, f": {FILL}"),
        ({"size": [20, 30], "counts": []}, f": {FILL}"),
        ({"size": [20, 30], "counts": [601, -1]}, f": {FILL}"),
        ({"size": [20, 30], "counts": [600, 10**30]}, f": {FILL}"),
        ({"size": [20, 30], "counts": ""}, f": {FILL}"),
        ({"size": [20, 30], "counts": "hb0 "}, f": {FILL}"),
        ({"size": [20, 30], "counts": "ha0"}, f": {FILL}"),
        ({"size": [20, 30], "counts": "Zc0O"}, f": {FILL}"),
    ],
)
def test_bad_segmentations_name_their_annotation(tmp_path, segmentation, message):
    packed = rle(np.eye(*HW, dtype=bool), "packed")
    file = write(
        tmp_path,
        document(annotation(packed, 5), annotation(TRIANGLE, 6), annotation(segmentation, 17)),
    )
    error = error_of(MaskError, labels_of, opened(file))
    assert str(error) == f"{file}, image 1 (one.png), annotation 17{message}"


def test_number_beyond_floats(tmp_path):
    content = json.dumps(document(annotation(TRIANGLE, 17))).replace("[[2,", "[[1e999,")
    write(tmp_path, document())
    file = write(tmp_path, content)
    error = error_of(MaskError, labels_of, opened(file))
    assert str(error) == (
        f"{file}, image 1 (one.png), annotation 17, segmentation[0][0]: has a segmentation that "
        f"cannot be read: number out of range. {NUMBERS}"
    )


def test_image_of_another_size_than_annotated(tmp_path):
    source = opened(write(tmp_path, document()))
    error = error_of(MaskError, labels_of, source, hw=(30, 20))
    assert str(error) == (
        f"{tmp_path / 'labels.json'}, image 1 (one.png): is 30 x 20 pixels (width x height) by "
        "the JSON, and the image is 20 x 30. Use the images that were annotated, not resized or "
        "rotated."
    )


COCO_FILE = "A COCO file is one object with images, annotations and categories."


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", ": is empty (0 bytes). Export the annotations again."),
        ("[]", f": is no COCO file: expected `object`, got `array`. {COCO_FILE}"),
        ("{}", f": is no COCO file: object missing required field `images`. {COCO_FILE}"),
        ('{"images": [', ": cannot be read as annotations: Input data was truncated."),
        (
            '{"images": [{"id": 1, "file_name": 3}]}',
            f", $.images[0].file_name: is no COCO file: expected `str`, got `int`. {COCO_FILE}",
        ),
        (
            '{"images": [{"id": 99999999999999999999, "file_name": "a"}]}',
            ", $.images[0].id: is no COCO file: expected `int` <= 9223372036854775807. "
            + COCO_FILE,
        ),
        (
            '{"images": [], "annotations": [{"segmentation": [[1, NaN]]}]}',
            ": holds NaN at byte 53, where a number is expected. Draw that shape again, or delete "
            "it.",
        ),
        (
            '{"images": [], "annotations": [{"segmentation": [[1, -Infinity]]}]}',
            ": holds Infinity at byte 54, where a number is expected. Draw that shape again, or "
            "delete it.",
        ),
        ('{"images": []}', ": names no images."),
    ],
)
def test_files_that_are_no_coco(tmp_path, content, message):
    file = write(tmp_path, content)
    error = error_of(DatasetError, opened, file)
    assert str(error).startswith(f"{file}{message}")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            document(annotation(TRIANGLE, 4, image_id=8)),
            ", annotation 4: belongs to image 8, which images does not name. Add the image, or "
            "delete its annotations.",
        ),
        (
            document(annotation(TRIANGLE, 4, category=8)),
            ", annotation 4: has the category 8, which categories does not name. Add the category "
            "with its name.",
        ),
        (
            document(annotation(TRIANGLE, 4), annotation(TRIANGLE, 4)),
            ": has two annotations of the id 4. Give each annotation an id of its own.",
        ),
        (
            document(images=[image(), image(name="two.png")]),
            ": has 2 images of the id 1 (one.png, two.png). Give each image an id of its own.",
        ),
        (
            document(categories=[{"id": 3}]),
            ": category 3 has no name. Give it one in categories.",
        ),
        (
            document(categories=[*CATEGORIES, {"id": 1, "name": "cyst"}]),
            ": category 1 is called 'cell' in one place and in another 'cyst'. Give each category "
            "one id and one name in all files.",
        ),
        (
            {"images": [image()], "categories": CATEGORIES},
            ": has no annotations. Give a file with annotations. One of a test split may have "
            "none: its name has test in it.",
        ),
    ],
)
def test_files_that_contradict_themselves(tmp_path, content, message):
    file = write(tmp_path, content)
    assert str(error_of(DatasetError, opened, file)) == f"{file}{message}"


def test_images_are_found_in_the_usual_places(tmp_path):
    names = ["one.png", "deep/two.png", "three.png", "four.png", "five.png"]
    content = document(images=[image(i, name) for i, name in enumerate(names)])
    (tmp_path / "labels").mkdir()
    file = tmp_path / "labels" / "instances_train2017.json"
    file.write_text(json.dumps(content))
    root = tmp_path / "labels"
    places = ["one.png", "two.png", "images/three.png", "JPEGImages/four.png"]
    for place in [*places, "train2017/five.png"]:
        write(root, document(images=[image(name=place)]), "other.txt")
    items = opened(file).items
    assert [item.image.relative_to(root).as_posix() for item in items] == [
        *places,
        "train2017/five.png",
    ]
    assert {item.split for item in items} == {"all"}


def test_official_layout_gives_splits(tmp_path):
    for split, name in (("train2017", "a.jpg"), ("val2017", "b.jpg")):
        write(tmp_path / split, document(images=[image(name=name)]), "x.txt")
        content = document(annotation(TRIANGLE), images=[image(name=name)])
        (tmp_path / "annotations").mkdir(exist_ok=True)
        for kind in ("instances", "captions"):
            file = tmp_path / "annotations" / f"{kind}_{split}.json"
            file.write_text(json.dumps(content))
    write(tmp_path / "test2017", document(images=[image(name="c.jpg")]), "x.txt")
    info = {"images": [image(name="c.jpg")], "categories": CATEGORIES}
    (tmp_path / "annotations" / "image_info_test2017.json").write_text(json.dumps(info))
    source = opened(tmp_path)
    assert isinstance(source, Source)
    assert [(i.name, i.file_name, i.split, i.labelled) for i in source.items] == [
        ("c", "c.jpg", "test", False),
        ("a", "a.jpg", "train", True),
        ("b", "b.jpg", "val", True),
    ]
    assert source.proposal.notes == ("not read: captions_train2017.json, captions_val2017.json",)
    assert source.image_bytes(source.items[1]) == (tmp_path / "train2017/a.jpg").read_bytes()


def test_a_folder_for_each_split(tmp_path):
    for split in ("train", "valid"):
        write(tmp_path / split, document(), "_annotations.coco.json")
    assert {item.split for item in opened(tmp_path).items} == {"train", "val"}


def test_folders_that_say_too_little(tmp_path):
    error = error_of(DatasetError, opened, tmp_path)
    assert str(error) == (
        f"{tmp_path}: holds no COCO annotations (looked for annotations/*.json, *.json and "
        "*/*.json). Name the JSON file itself, and the folder of images with --images."
    )
    write(tmp_path, document(), "train.json")
    write(tmp_path, document(), "more.json")
    error = error_of(DatasetError, opened, tmp_path)
    assert str(error) == (
        f"{tmp_path}: holds train.json, which is train, and more.json, whose name gives no split. "
        "Put train, val or test into each name, or import one file."
    )


def test_absent_images(tmp_path):
    file = write(tmp_path, document(annotation(TRIANGLE), images=[image(), image(2, "two.png")]))
    (tmp_path / "two.png").unlink()
    error = error_of(DatasetError, opened, file)
    assert str(error) == (
        f"{file}: 1 annotated image is not there: two.png. Name its folder with --images, or "
        "leave it out with --drop-unpaired."
    )
    source = opened(file, drop_unpaired=True)
    assert [item.name for item in source.items] == ["one"]
    assert source.proposal.dropped == (tmp_path / "two.png",)
    (tmp_path / "one.png").unlink()
    error = error_of(DatasetError, opened, file, drop_unpaired=True)
    assert str(error) == (
        f"{file}: none of the annotated images is there. Name their folder with --images."
    )
    assert isinstance(error_of(ImageError, source.image_bytes, source.items[0]), ImageError)


def test_images_that_no_file_names_are_told(tmp_path):
    file = write(tmp_path, document())
    cv2.imwrite(str(tmp_path / "spare.png"), np.zeros((2, 2), np.uint8))
    assert opened(file).proposal.notes == (
        "in no annotation file, and not imported: 1 image (spare.png)",
    )


@pytest.mark.parametrize("name", ["", ".", "a\0", "a" * 5000, "no/such.png"])
def test_names_that_no_file_has(tmp_path, name):
    file = tmp_path / "labels.json"
    file.write_text(json.dumps(document(images=[image(name=name)])))
    error = error_of(DatasetError, opened, file)
    assert error.found == f"1 annotated image is not there: {name}"


@pytest.mark.parametrize(
    "content",
    [
        b'{"images": [{"id": 1, "file_name": "\xff"}]}',
        b'{"images": [], "annotations": [{"segmentation": ' + b"[" * 100_000,
    ],
)
def test_bytes_that_no_decoder_takes(tmp_path, content):
    file = tmp_path / "labels.json"
    file.write_bytes(content)
    error = error_of(DatasetError, opened, file)
    assert error.found.startswith("cannot be read as annotations: ")
    assert error.where == str(file)


@pytest.mark.parametrize("name", ["/etc/a.png", "../a.png", "C:\\a.png"])
def test_images_outside_are_refused(tmp_path, name):
    (tmp_path / "labels.json").write_text(json.dumps(document(images=[image(name=name)])))
    error = error_of(DatasetError, opened, tmp_path / "labels.json")
    assert error.found.startswith(f"names the file {name!r}, which is outside of ")


def test_links_that_lead_out_are_refused(tmp_path):
    file = write(tmp_path / "in", document())
    (tmp_path / "in" / "one.png").rename(tmp_path / "one.png")
    (tmp_path / "in" / "one.png").symlink_to(tmp_path / "one.png")
    error = error_of(DatasetError, opened, file)
    assert error.mend == "If that is meant, add --follow-links."
    assert len(opened(file, follow_links=True).items) == 1


def test_files_that_disagree_name_both(tmp_path):
    one = write(tmp_path, document(annotation(TRIANGLE)), "train.json")
    two = write(tmp_path, document(annotation(TRIANGLE)), "val.json")
    assert [item.split for item in opened(tmp_path).items] == ["train", "val"]
    write(tmp_path, document(annotation([[0, 0, 9, 0, 9, 9]], 7)), "val.json")
    assert str(error_of(DatasetError, opened, tmp_path)) == (
        f"{two}, image 1 (one.png): is also in {one}, image 1 (one.png), and has other "
        "annotations here. Keep the image in one of them."
    )
    write(tmp_path, document(annotation(TRIANGLE), images=[image(hw=(21, 30))]), "val.json")
    assert str(error_of(DatasetError, opened, tmp_path)) == (
        f"{two}, image 1 (one.png): is also in {one}, image 1 (one.png), and is 30 x 20 pixels "
        "there and 30 x 21 here. Keep the image in one of them."
    )
    write(tmp_path, document(categories=[{"id": 2, "name": "cyst"}]), "val.json")
    assert str(error_of(DatasetError, opened, tmp_path)) == (
        f"{two}: category 2 is called 'nucleus' in train.json and here 'cyst'. Give each category "
        "one id and one name in all files."
    )


def test_one_image_twice_in_a_split_is_one_item(tmp_path):
    write(tmp_path, document(annotation(TRIANGLE)), "train_a.json")
    write(tmp_path, document(annotation(TRIANGLE)), "train_b.json")
    source = opened(tmp_path)
    assert len(source.items) == 1
    assert source.proposal.notes == ("named twice, and imported once: 1 image",)


def test_categories_of_one_name_are_one_class(tmp_path):
    categories = [{"id": 9, "name": "cell"}, *CATEGORIES]
    source = opened(
        write(tmp_path, document(annotation(TRIANGLE, category=9), categories=categories))
    )
    assert source.proposal.classes == ("background", "cell", "nucleus")
    assert source.proposal.notes == ("categories of one name are one class: cell",)


def test_evidence_differs_with_what_labels_the_image(tmp_path):
    def evidence(*annotations, categories=CATEGORIES):
        source = opened(write(tmp_path, document(*annotations, categories=categories)))
        return source.evidence(source.items[0])

    first = evidence(annotation(TRIANGLE))
    assert evidence(annotation(TRIANGLE)) == first
    others = [
        evidence(),
        evidence(annotation([[2, 2, 10, 2, 2, 11]])),
        evidence(annotation(TRIANGLE, category=2)),
        evidence(annotation(TRIANGLE, iscrowd=1)),
        evidence(annotation(TRIANGLE), annotation(TRIANGLE, 2)),
        evidence(annotation(TRIANGLE), categories=[CATEGORIES[0]]),
    ]
    assert len({first, *others}) == 7


def test_sniffing(tmp_path):
    assert is_coco(write(tmp_path, document(annotation(TRIANGLE))))
    assert is_coco(tmp_path)
    padded = json.dumps({"info": " " * 200_000, **document(annotation(TRIANGLE))})
    assert is_coco(write(tmp_path, padded, "late.json"))
    for other in ("[]", '{"shapes": [], "imagePath": "a"}', '{"segments_info": [], "images": []}'):
        assert not is_coco(write(tmp_path, other, "other.json"))
    assert not is_coco(tmp_path / "absent.json")


def independent(annotations, names, hw):
    """The union of annToMask in the order of the file, crowds first."""
    objects = sorted(annotations, key=lambda a: not a["iscrowd"])
    classes, owner = np.zeros(hw, int), np.zeros(hw, int)
    for entry in objects:
        mask = mask_of(entry["segmentation"], hw)
        classes[mask] = names.index(entry["category_id"])
        owner[mask] = 0 if entry["iscrowd"] else 1 + annotations.index(entry)
    return classes, owner


@pytest.mark.parametrize(
    ("file", "images", "first"),
    [
        ("coco/annotations.json", "coco", []),
        ("coco_panoptic/panoptic_coco_detection_format.json", "coco_panoptic/input_images", [None]),
    ],
)
def test_shared_photos_equal_pycocotools(file, images, first):
    if not SHARED.is_dir():
        pytest.skip("no shared data beside the checkout")
    content = json.loads((SHARED / file).read_text())
    source = opened(SHARED / file, images=SHARED / images)
    names = [*first, *(category["id"] for category in content["categories"])]
    assert len(source.items) == len(content["images"])
    for index, entry in enumerate(content["images"]):
        hw = (entry["height"], entry["width"])
        own = [a for a in content["annotations"] if a["image_id"] == entry["id"]]
        classes, owner = independent(own, names, hw)
        found = labels_of(source, index, hw)
        np.testing.assert_array_equal(found.classes, classes)
        pairs = set(zip(found.instances.ravel().tolist(), owner.ravel().tolist(), strict=True))
        assert len(pairs) == len(np.unique(owner)) == len(np.unique(found.instances))
        assert (0, 0) in pairs


def test_the_file_of_the_whole_name_is_taken_before_one_of_its_last_part(tmp_path):
    file = write(tmp_path, document(images=[image(name="1.png")]))
    file.write_text(json.dumps(document(images=[image(name="a/1.png")])))
    right = tmp_path / "images/a/1.png"
    right.parent.mkdir(parents=True)
    cv2.imwrite(str(right), np.zeros((*HW, 3), np.uint8))
    assert [item.image for item in opened(file).items] == [right]
    right.unlink()
    assert [item.image for item in opened(file).items] == [tmp_path / "1.png"]


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_accents_are_found_in_either_unicode_form(tmp_path, forms):
    said, there = (unicodedata.normalize(form, "\u00e4.png") for form in forms)
    file = write(tmp_path, document(images=[image(name=there)]))
    file.write_text(json.dumps(document(images=[image(name=said)])))
    assert [item.image for item in opened(file).items] == [tmp_path / there]


def test_whole_numbers_written_as_floats_or_text(tmp_path):
    images = [{"id": "1", "file_name": "one.png", "width": 30.0, "height": 20.0}]
    content = document(annotation(TRIANGLE, image_id=1.0, category=1.0), images=images)
    source = opened(write(tmp_path, content))
    assert labels_of(source).classes.any()
    images[0]["width"] = 30.5
    with pytest.raises(DatasetError) as caught:
        opened(write(tmp_path, content))
    assert caught.value.found == "is no COCO file: expected `int | null`, got `float`"
