from __future__ import annotations

import base64
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from delineate.data.dataset import DatasetInfo
from delineate.data.formats.labelme import is_labelme, open_labelme
from delineate.data.formats.settings import ImportSettings
from delineate.data.formats.source import Labels, Source
from delineate.data.images import decode_image
from delineate.data.masks import read_mask
from delineate.errors import DatasetError, MaskError

SHARED = Path(__file__).resolve().parents[3].parent / "shared" / "data"
HW = (40, 50)
INFO = DatasetInfo(classes=("background", "car", "bus"), ignore_index=255)
BOX = [[5.0, 5.0], [20.0, 5.0], [20.0, 15.0], [5.0, 15.0]]


def png(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def shape(
    label: str = "car", points: Any = BOX, kind: str = "polygon", **more: Any
) -> dict[str, Any]:
    return {"label": label, "points": points, "shape_type": kind, "flags": {}, **more}


def write(
    folder: Path, shapes: list[dict[str, Any]], name: str = "a", *, image: bool = True, **more: Any
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    document: dict[str, Any] = {
        "version": "5.4.1",
        "flags": {},
        "shapes": shapes,
        "imagePath": f"{name}.png",
        "imageData": None,
        "imageHeight": HW[0],
        "imageWidth": HW[1],
    }
    path = folder / f"{name}.json"
    path.write_text(json.dumps({**document, **more}))
    if image:
        (folder / f"{name}.png").write_bytes(png(np.zeros((*HW, 3), np.uint8)))
    return path


def source(folder: Path, **options: Any) -> Source:
    return open_labelme(ImportSettings(source=folder, out=folder / "out", **options))


def labels(folder: Path, info: DatasetInfo = INFO, **options: Any) -> Labels:
    found = source(folder, **options)
    return found.labels(found.items[0], HW, info)


def drawn(points: list[list[float]], kind: str) -> np.ndarray:
    """What labelme.utils.shape_to_mask gives."""
    picture = Image.fromarray(np.zeros(HW, np.uint8))
    draw = ImageDraw.Draw(picture)
    xy = [tuple(point) for point in points]
    if kind == "circle":
        (cx, cy), (px, py) = xy
        d = math.sqrt((cx - px) ** 2 + (cy - py) ** 2)
        draw.ellipse([cx - d, cy - d, cx + d, cy + d], outline=1, fill=1)
    elif kind == "rectangle":
        draw.rectangle(xy, outline=1, fill=1)
    elif kind in ("line", "linestrip"):
        draw.line(xy=xy, fill=1, width=10)
    elif kind in ("point", "points"):
        for cx, cy in xy:
            draw.ellipse([cx - 5, cy - 5, cx + 5, cy + 5], outline=1, fill=1)
    else:
        draw.polygon(xy=xy, outline=1, fill=1)
    return np.array(picture, dtype=bool)


@pytest.mark.parametrize(
    ("kind", "points"),
    [
        ("polygon", [[3.2, 4.7], [30.9, 8.1], [18.5, 33.3]]),
        ("polygon", [[-5.0, 10.0], [60.0, 12.5], [20.0, 70.0]]),
        ("polygon", [[25.0, 2.0], [36.0, 38.0], [4.0, 14.0], [46.0, 14.0], [14.0, 38.0]]),
        ("oriented_rectangle", [[10.0, 5.0], [20.0, 10.0], [15.0, 20.0], [5.0, 15.0]]),
        ("rectangle", [[3.4, 4.6], [20.5, 30.2]]),
        ("circle", [[20.3, 20.1], [27.9, 24.0]]),
        ("line", [[5.5, 5.5], [40.0, 30.0]]),
        ("linestrip", [[5.0, 5.0], [40.0, 30.0], [10.0, 35.0]]),
        ("point", [[12.5, 30.0]]),
        ("points", [[12.5, 30.0], [40.0, 4.0]]),
    ],
)
def test_shapes_are_drawn_as_labelme_draws_them(
    tmp_path: Path, kind: str, points: list[list[float]]
) -> None:
    write(tmp_path, [shape(points=points, kind=kind)])
    found = labels(tmp_path)
    assert np.array_equal(found.classes == 1, drawn(points, kind))
    assert found.instances is not None
    assert np.array_equal(found.instances, found.classes)


def test_a_polygon_that_crosses_itself_is_filled_by_the_even_odd_rule(tmp_path: Path) -> None:
    star = [[25.0, 2.0], [36.0, 38.0], [4.0, 14.0], [46.0, 14.0], [14.0, 38.0]]
    write(tmp_path, [shape(points=star)])
    found = labels(tmp_path).classes
    assert found[20, 25] == 0
    assert found[8, 25] == 1


@given(
    st.lists(st.tuples(st.floats(-20, 70), st.floats(-20, 60)), min_size=3, max_size=8).filter(
        lambda p: (
            min(x for x, _ in p) <= 50
            and max(x for x, _ in p) >= 0
            and min(y for _, y in p) <= 40
            and max(y for _, y in p) >= 0
        )
    )
)
@settings(max_examples=25, deadline=None)
def test_any_polygon_is_drawn_as_labelme_draws_it(
    tmp_path_factory: pytest.TempPathFactory, points: list[tuple[float, float]]
) -> None:
    folder = tmp_path_factory.mktemp("labelme")
    listed = [list(point) for point in points]
    write(folder, [shape(points=listed)])
    assert np.array_equal(labels(folder).classes == 1, drawn(listed, "polygon"))


def test_corners_of_a_rectangle_come_in_any_order(tmp_path: Path) -> None:
    write(tmp_path, [shape(points=[[20.5, 4.6], [3.4, 30.2]], kind="rectangle")])
    wanted = drawn([[3.4, 4.6], [20.5, 30.2]], "rectangle")
    assert np.array_equal(labels(tmp_path).classes == 1, wanted)


def test_old_files_without_a_shape_type_hold_polygons(tmp_path: Path) -> None:
    write(tmp_path, [{"label": "car", "points": BOX, "line_color": None}])
    assert np.array_equal(labels(tmp_path).classes == 1, drawn(BOX, "polygon"))


@pytest.mark.parametrize("value", [1, 255])
def test_mask_shapes(tmp_path: Path, value: int) -> None:
    inside = np.random.default_rng(0).random((4, 6)) < 0.5
    encoded = base64.b64encode(png(inside.astype(np.uint8) * value)).decode()
    write(tmp_path, [shape(points=[[10.0, 20.0], [15.0, 23.0]], kind="mask", mask=encoded)])
    wanted = np.zeros(HW, bool)
    wanted[20:24, 10:16] = inside
    assert np.array_equal(labels(tmp_path).classes == 1, wanted)


def test_groups_of_one_label_are_one_object(tmp_path: Path) -> None:
    def box(label: str, left: float, group: int | None) -> dict[str, Any]:
        points = [[left, 5.0], [left + 4, 9.0]]
        return shape(label, points, "rectangle", group_id=group)

    write(tmp_path, [box("car", 0, 1), box("car", 10, 1), box("bus", 20, 1), box("car", 30, None)])
    found = labels(tmp_path)
    assert found.instances is not None
    assert found.instances[7, [2, 12, 22, 32, 45]].tolist() == [1, 1, 2, 3, 0]
    assert found.classes[7, [2, 12, 22, 32, 45]].tolist() == [1, 1, 2, 1, 0]


@pytest.mark.parametrize(("overlap", "wanted"), [("later", 2), ("earlier", 1), ("smaller", 2)])
def test_overlap(tmp_path: Path, overlap: str, wanted: int) -> None:
    write(
        tmp_path,
        [
            shape("car", [[0.0, 0.0], [30.0, 30.0]], "rectangle"),
            shape("bus", [[10.0, 10.0], [40.0, 30.0]], "rectangle"),
        ],
    )
    found = labels(tmp_path, overlap=overlap)
    assert found.classes[20, 20] == wanted
    assert found.classes[2, 2] == 1


def test_the_smaller_object_covers_the_larger_one_before_it(tmp_path: Path) -> None:
    write(
        tmp_path,
        [
            shape("bus", [[10.0, 10.0], [14.0, 14.0]], "rectangle"),
            shape("car", [[0.0, 0.0], [30.0, 30.0]], "rectangle"),
        ],
    )
    assert labels(tmp_path, overlap="smaller").classes[12, 12] == 2
    assert labels(tmp_path).classes[12, 12] == 1


def test_background_and_ignored_areas_are_no_objects(tmp_path: Path) -> None:
    write(
        tmp_path,
        [
            shape("car", [[0.0, 0.0], [30.0, 30.0]], "rectangle"),
            shape("_background_", [[5.0, 5.0], [9.0, 9.0]], "rectangle"),
            shape("__ignore__", [[20.0, 20.0], [40.0, 39.0]], "rectangle"),
        ],
    )
    found = source(tmp_path)
    assert found.proposal.classes == ("_background_", "car")
    assert found.proposal.ignore_index == 255
    both = labels(tmp_path)
    assert both.instances is not None
    assert both.classes[[2, 7, 25], [2, 7, 25]].tolist() == [1, 0, 255]
    assert both.instances[[2, 7, 25], [2, 7, 25]].tolist() == [1, 0, 0]


def test_without_shapes_all_is_background(tmp_path: Path) -> None:
    write(tmp_path, [])
    found = labels(tmp_path, classes=INFO.classes)
    assert not found.classes.any()
    assert found.instances is None


def test_without_a_background_the_rest_is_ignored_or_refused(tmp_path: Path) -> None:
    write(tmp_path, [shape()])
    found = labels(tmp_path, DatasetInfo(classes=("car", "bus"), ignore_index=9))
    assert found.classes[30, 40] == 9
    with pytest.raises(MaskError) as caught:
        labels(tmp_path, DatasetInfo(classes=("car", "bus")))
    assert str(caught.value) == (
        f"{tmp_path / 'a.json'}: has pixels outside of all objects, and none of the classes car, "
        "bus is the background. Put background into --classes, or leave those pixels out of "
        "account with --ignore-index 255."
    )


def test_image_data_stands_in_for_an_absent_image(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (*HW, 3), np.uint8)
    encoded = base64.b64encode(png(picture)).decode()
    write(tmp_path, [shape()], image=False, imageData=encoded)
    found = source(tmp_path)
    (item,) = found.items
    assert (item.name, item.file_name, item.image) == ("a", "a.png", None)
    assert np.array_equal(decode_image(found.image_bytes(item), "a"), picture)
    assert found.evidence(item) == (tmp_path / "a.json").read_bytes()


def test_damaged_image_data(tmp_path: Path) -> None:
    path = write(tmp_path, [shape()], image=False, imageData="%%")
    found = source(tmp_path)
    with pytest.raises(DatasetError) as caught:
        found.image_bytes(found.items[0])
    assert str(caught.value) == (
        f"{path}: cannot be read as annotations: Invalid base64 encoded string - at `$.imageData`."
        " Export the annotations again."
    )


@pytest.mark.parametrize("stated", ["images\\b.png", "../sub/images/b.png", "elsewhere\\x\\a.png"])
def test_image_paths(tmp_path: Path, stated: str) -> None:
    write(tmp_path / "sub", [shape()], image=False, imagePath=stated)
    name = stated.replace("\\", "/").rsplit("/", 1)[1]
    image = tmp_path / "sub" / ("images/b.png" if name == "b.png" else name)
    image.parent.mkdir(exist_ok=True)
    image.write_bytes(png(np.zeros((*HW, 3), np.uint8)))
    (item,) = source(tmp_path).items
    assert item.image == image


def test_images_elsewhere_are_found_by_name(tmp_path: Path) -> None:
    write(tmp_path / "labels", [shape()], image=False, imagePath="/pictures/a.png")
    write(tmp_path / "images", [])
    (tmp_path / "images" / "a.json").unlink()
    (item,) = source(tmp_path / "labels", images=tmp_path / "images").items
    assert item.image == tmp_path / "images" / "a.png"


def test_splits_and_unlabelled_test_images(tmp_path: Path) -> None:
    write(tmp_path / "train", [shape()], "a")
    write(tmp_path / "val", [shape()], "a")
    write(tmp_path / "test", [], "c")
    (tmp_path / "test" / "c.json").unlink()
    found = source(tmp_path)
    listed = [(item.split, item.name, item.labelled) for item in found.items]
    assert listed == [("train", "a", True), ("val", "a", True), ("test", "c", False)]
    with pytest.raises(MaskError, match="has no annotations"):
        found.labels(found.items[2], HW, INFO)


def test_a_file_beside_the_splits(tmp_path: Path) -> None:
    write(tmp_path / "train", [shape()], "a")
    path = write(tmp_path, [shape()], "b")
    with pytest.raises(DatasetError) as caught:
        source(tmp_path)
    assert str(caught.value) == (
        f"{path}: is in none of the folders train, which hold splits. Move it into one of them."
    )


def test_absent_images_are_listed_or_left_out(tmp_path: Path) -> None:
    write(tmp_path, [shape()], "a")
    for index in range(6):
        write(tmp_path, [shape()], f"b{index}", image=False)
    with pytest.raises(DatasetError) as caught:
        source(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: 6 annotated images are not there: b0.png, b1.png, b2.png, b3.png, b4.png, "
        "... Name their folder with --images, or leave them out with --drop-unpaired."
    )
    found = source(tmp_path, drop_unpaired=True)
    assert [item.name for item in found.items] == ["a"]
    assert found.proposal.dropped == tuple(tmp_path / f"b{index}.json" for index in range(6))


def test_images_without_annotations_are_listed_or_left_out(tmp_path: Path) -> None:
    write(tmp_path, [shape()], "a")
    write(tmp_path, [], "b").unlink()
    with pytest.raises(DatasetError) as caught:
        source(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: 1 image has no annotations: b.png. Annotate it, or leave it out with "
        "--drop-unpaired."
    )
    found = source(tmp_path, drop_unpaired=True)
    assert [item.name for item in found.items] == ["a"]
    assert found.proposal.dropped == (tmp_path / "b.png",)


def test_one_file_alone(tmp_path: Path) -> None:
    path = write(tmp_path, [shape()], "a")
    write(tmp_path, [shape()], "b")
    assert [item.name for item in source(path).items] == ["a"]


def test_two_files_of_one_image(tmp_path: Path) -> None:
    first = write(tmp_path, [shape()], "a")
    second = write(tmp_path, [shape()], "b", image=False, imagePath="a.png")
    with pytest.raises(DatasetError) as caught:
        source(tmp_path)
    assert str(caught.value) == (
        f"{second}: names the image {tmp_path / 'a.png'}, and so does {first}. Keep one of the "
        "two, or correct imagePath."
    )


def test_links_that_lead_out(tmp_path: Path) -> None:
    write(tmp_path / "in", [shape()], image=False)
    write(tmp_path / "out", [shape()])
    (tmp_path / "in" / "a.png").symlink_to(tmp_path / "out" / "a.png")
    with pytest.raises(DatasetError, match="is a link that leads out of the source"):
        source(tmp_path / "in")
    (item,) = source(tmp_path / "in", follow_links=True).items
    assert item.name == "a"


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (
            shape(points=[[1.0, 2.0], [3.0, 4.0]]),
            "is a polygon of 2 points, and it takes 3 or more. Draw the shape again, or delete it.",
        ),
        (
            shape(points=[[1.0, 2.0]], kind="circle"),
            "is a circle of 1 point, and it takes 2. Draw the shape again, or delete it.",
        ),
        (
            shape(kind="heart"),
            "is of the type 'heart', which is none of polygon, oriented_rectangle, rectangle, "
            "circle, line, linestrip, point, points, mask. Draw it as a polygon, or delete it.",
        ),
        (
            shape(points=[[60.0, 2.0], [70.0, 4.0], [65.0, 9.0]]),
            "reaches from (60, 2) to (70, 9), outside of the image of 50 x 40 px. Check that the "
            "annotations belong to this image; move the shape, or delete it.",
        ),
        (
            shape(points=[[1.0, 2.0], [1e9, 4.0], [65.0, 9.0]]),
            "reaches from (1, 2) to (1e+09, 9), far outside of the image of 50 x 40 px. Check that "
            "the annotations belong to this image; move the shape, or delete it.",
        ),
        (
            shape(points=[[1.0, 2.0], [3.0, 4.0]], kind="mask"),
            "is a mask without pixels. Draw it again.",
        ),
        (
            shape(
                points=[[1.0, 2.0], [3.0, 4.0]],
                kind="mask",
                mask=base64.b64encode(png(np.ones((2, 3), np.uint8))).decode(),
            ),
            "is a mask of 3 x 2 px (width x height), and its box has 3 x 3. Draw the shape again, "
            "or delete it.",
        ),
    ],
)
def test_shapes_that_cannot_be_drawn(tmp_path: Path, bad: dict[str, Any], message: str) -> None:
    path = write(tmp_path, [shape(), bad])
    with pytest.raises(MaskError) as caught:
        labels(tmp_path)
    assert str(caught.value) == f"{path}, shape 2 (car): {message}"


def test_a_damaged_mask(tmp_path: Path) -> None:
    box = [[1.0, 2.0], [3.0, 4.0]]
    write(tmp_path, [shape(points=box, kind="mask", mask=base64.b64encode(b"GIF8").decode())])
    with pytest.raises(MaskError, match=r"shape 1 \(car\): is a GIF, not a mask"):
        labels(tmp_path)


def test_unknown_labels(tmp_path: Path) -> None:
    path = write(tmp_path, [shape("cra")])
    with pytest.raises(MaskError) as caught:
        labels(tmp_path)
    assert str(caught.value).startswith(f"{path}, shape 1 (cra): names the class 'cra'")
    assert "near: car" in str(caught.value)


def test_another_size(tmp_path: Path) -> None:
    path = write(tmp_path, [shape()], imageHeight=41)
    with pytest.raises(MaskError) as caught:
        labels(tmp_path)
    assert str(caught.value) == (
        f"{path}: was drawn on an image of 50 x 41 px (width x height), and the image has 50 x 40."
        " Bring back the image that was annotated, or annotate this one."
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '{"shapes": [{"label": "a", "points": [[NaN, 1]]}], "imagePath": "a.png"}',
            "holds NaN at byte 39, where a number is expected. Draw that shape again, or delete "
            "it.",
        ),
        (
            '{"shapes": [{"label": "a", "points": [[1, -Infinity]]}], "imagePath": "a.png"}',
            "holds Infinity at byte 43, where a number is expected. Draw that shape again, or "
            "delete it.",
        ),
        (
            '{"shapes": [{"label": "a", "points": [[1, null]]}], "imagePath": "a.png"}',
            "cannot be read as annotations: Expected `float`, got `null` - at "
            "`$.shapes[0].points[0][1]`. Export the annotations again.",
        ),
        (
            '{"shapes": [',
            "cannot be read as annotations: Input data was truncated. Export the annotations "
            "again.",
        ),
        (
            '{"images": []}',
            "cannot be read as annotations: Object missing required field `shapes`. Export the "
            "annotations again.",
        ),
    ],
)
def test_files_that_are_no_annotations(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DatasetError) as caught:
        source(tmp_path)
    assert str(caught.value) == f"{tmp_path / 'a.json'}: {message}"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{"x": ' + b"[" * 100_000, "maximum recursion depth exceeded"),
        (b'{"shapes": [{"label": "\xff"}]}', "'utf-8' codec can't decode byte 0xff"),
        (b"\x89PNG", "JSON is malformed: invalid character at byte 0"),
    ],
)
def test_hostile_files(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "a.json").write_bytes(data)
    with pytest.raises(DatasetError) as caught:
        source(tmp_path)
    assert f"a.json: cannot be read as annotations: {message}" in str(caught.value)


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(DatasetError) as caught:
        source(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: has no JSON files. Name the folder that labelme saved into."
    )


def test_sniffing(tmp_path: Path) -> None:
    path = write(tmp_path / "train", [shape()])
    (tmp_path / "other.txt").write_text("{}")
    assert is_labelme(path)
    assert is_labelme(tmp_path)
    assert not is_labelme(tmp_path / "other.txt")
    assert not is_labelme(tmp_path / "absent.json")
    path.write_text('{"images": [], "annotations": []}')
    assert not is_labelme(path)


@pytest.mark.skipif(not (SHARED / "labelme").is_dir(), reason="no shared data")
def test_the_shared_photos_agree_with_voc() -> None:
    names = (SHARED / "voc" / "class_names.txt").read_text().split("\n")
    info = DatasetInfo(classes=tuple(name for name in names if name), ignore_index=255)
    found = source(SHARED / "labelme")
    assert [item.name for item in found.items] == ["2011_000003", "2011_000006", "2011_000025"]
    for item in found.items:
        voc = read_mask(SHARED / "voc" / "SegmentationClass" / f"{item.name}.png")
        hw = (voc.shape[0], voc.shape[1])
        both = found.labels(item, hw, info)
        counted = (voc != 255) & (both.classes != 255)
        # the masks were exported by labelme; one corner differs by the version of Pillow
        assert (both.classes != voc)[counted].sum() <= 1
        assert both.instances is not None
        assert set(np.unique(both.instances[both.classes == 0])) <= {0}


@pytest.mark.parametrize("shapes", [[], [shape("_background_"), shape("__ignore__")]])
def test_a_folder_without_a_class_is_refused(tmp_path: Path, shapes: list[Any]) -> None:
    write(tmp_path, shapes)
    with pytest.raises(DatasetError) as caught:
        source(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: has no shape of any class in 1 JSON file. Label some shapes, or name the "
        "classes with --classes background,NAME."
    )


def test_a_shape_without_a_label_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, [shape(), shape(" ")])
    with pytest.raises(DatasetError) as caught:
        source(tmp_path)
    assert str(caught.value) == (
        f"{path}: shape 2 has no label. Give it one in labelme, or delete it."
    )


def test_accents_are_found_in_either_unicode_form(tmp_path: Path) -> None:
    write(tmp_path, [shape()], imagePath="\u00e4.png")
    (tmp_path / "a.png").rename(tmp_path / "a\u0308.png")
    assert [item.image for item in source(tmp_path).items] == [tmp_path / "a\u0308.png"]
