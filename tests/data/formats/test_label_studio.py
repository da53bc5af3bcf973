from __future__ import annotations

import json
import math
import warnings
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco

from delineate.data.dataset import DatasetInfo
from delineate.data.formats.drawing import cropped
from delineate.data.formats.label_studio import is_label_studio, open_label_studio
from delineate.data.formats.settings import ImportSettings
from delineate.data.formats.source import Labels, Source
from delineate.errors import DatasetError, MaskError

HW = (40, 50)
INFO = DatasetInfo(classes=("background", "car", "bus"), ignore_index=255)
TRIANGLE = [[10.0, 10.0], [60.0, 12.5], [20.0, 80.0]]


def region(kind: str, labels: list[str] | None = None, **value: Any) -> dict[str, Any]:
    named = {kind: ["car"] if labels is None else labels}
    return {
        "id": value.pop("id", "r1"),
        "type": kind,
        "from_name": "label",
        "to_name": "image",
        "original_width": HW[1],
        "original_height": HW[0],
        "image_rotation": value.pop("image_rotation", 0),
        "value": {**value, **named},
    }


def polygon(points: Any = TRIANGLE, labels: list[str] | None = None, **more: Any) -> dict[str, Any]:
    return region("polygonlabels", labels, points=points, closed=True, **more)


def rectangle(x: float, y: float, width: float, height: float, **more: Any) -> dict[str, Any]:
    return region("rectanglelabels", x=x, y=y, width=width, height=height, **more)


def annotation(*regions: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"id": 9, "completed_by": 1, "result": list(regions), "was_cancelled": False, **more}


def task(*annotations: dict[str, Any], image: str = "a.png", **more: Any) -> dict[str, Any]:
    return {
        "id": 1,
        "data": {"image": image},
        "annotations": list(annotations),
        "predictions": [{"result": [polygon(labels=["guess"])]}],
        **more,
    }


def write(folder: Path, *tasks: Any, files: tuple[str, ...] = ("a.png",)) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in files:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((*HW, 3), np.uint8)).save(file)
    path = folder / "export.json"
    path.write_text(json.dumps(list(tasks)))
    return path


def source(path: Path, **options: Any) -> Source:
    return open_label_studio(ImportSettings(source=path, out=path / "out", **options))


def labels(path: Path, info: DatasetInfo = INFO, **options: Any) -> Labels:
    found = source(path, **options)
    return found.labels(found.items[0], HW, info)


def drawn(percent: list[list[float]]) -> np.ndarray:
    """What pycocotools gives for corners in percent."""
    flat = [
        number / 100 * side for pair in percent for number, side in zip(pair, (50, 40), strict=True)
    ]
    (rle,) = coco.frPyObjects([flat], *HW)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # pycocotools under numpy 2
        mask: np.ndarray = coco.decode(rle).astype(bool)
    return mask


def encode(mask: np.ndarray, sizes: tuple[int, ...] = (3, 4, 8, 16), word: int = 8) -> list[int]:
    """rle-pack: the encoder of the format, written from its description."""
    values = np.repeat(mask.ravel().astype(int) * ((1 << word) - 1), 4)
    bits = f"{len(values):032b}{word - 1:05b}" + "".join(f"{size - 1:04b}" for size in sizes)
    runs = [(value, len(list(run))) for value, run in groupby(values.tolist())]
    for value, length in runs:
        left = length
        while left:
            which = next((i for i, size in enumerate(sizes) if left <= 1 << size), 3)
            some = min(left, 1 << sizes[which])
            head = "0" if some <= 4 else "1"  # a few values one by one
            body = f"{value:0{word}b}" * (some if head == "0" else 1)
            bits += f"{head}{which:02b}{some - 1:0{sizes[which]}b}{body}"
            left -= some
    bits += "0" * (-len(bits) % 8)
    return [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]


def test_polygons_are_those_of_pycocotools(tmp_path: Path) -> None:
    star = [[50.0, 5.0], [72.0, 95.0], [8.0, 35.0], [92.0, 35.0], [28.0, 95.0]]
    for points in (TRIANGLE, star, [[-10.0, 10.0], [110.0, 30.0], [40.0, 150.0]]):
        write(tmp_path, task(annotation(polygon(points))))
        found = labels(tmp_path)
        assert np.array_equal(found.classes == 1, drawn(points))
        assert found.instances is not None
        assert np.array_equal(found.instances, found.classes)
    write(tmp_path, task(annotation(polygon(star))))
    assert labels(tmp_path).classes[20, 25] == 0  # even-odd: the middle of a star is outside


def test_rectangles(tmp_path: Path) -> None:
    write(tmp_path, task(annotation(rectangle(10, 20, 40, 50))))
    wanted = drawn([[10, 20], [10, 70], [50, 70], [50, 20]])
    assert np.array_equal(labels(tmp_path).classes == 1, wanted)


def test_a_rectangle_is_turned_clockwise_about_its_first_corner(tmp_path: Path) -> None:
    # 20 x 10 px at (20, 10), turned by 90 degrees: down from there, and to the left
    write(tmp_path, task(annotation(rectangle(40, 25, 40, 25, rotation=90))))
    found = labels(tmp_path).classes == 1
    assert np.array_equal(found[10:30, 10:20], np.ones((20, 10), bool))
    assert found.sum() == 200


@pytest.mark.parametrize("degrees", [0.0, 40.0])
def test_ellipses_have_the_pixels_whose_middles_are_inside(tmp_path: Path, degrees: float) -> None:
    ellipse = region("ellipselabels", x=50, y=50, radiusX=30, radiusY=20, rotation=degrees)
    write(tmp_path, task(annotation(ellipse)))
    y, x = np.mgrid[:40, :50] + 0.5
    turn = (x - 25 + 1j * (y - 20)) * np.exp(-1j * math.radians(degrees))
    wanted = (turn.real / 15) ** 2 + (turn.imag / 8) ** 2 <= 1
    assert np.array_equal(labels(tmp_path).classes == 1, wanted)


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([0.02, 0.5, 0.98]),
    st.sampled_from([(3, 4, 8, 16), (1, 2, 5, 12), (16, 3, 1, 2)]),
    st.sampled_from([8, 1, 16]),
)
@settings(max_examples=25, deadline=None)
def test_brushes(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    share: float,
    sizes: tuple[int, ...],
    word: int,
) -> None:
    folder = tmp_path_factory.mktemp("brush")
    mask = np.random.default_rng(seed).random(HW) < share
    brush = region("brushlabels", rle=encode(mask, sizes, word), format="rle")
    write(folder, task(annotation(brush)))
    assert np.array_equal(labels(folder).classes == 1, mask)


def test_only_alpha_counts(tmp_path: Path) -> None:
    # one block that repeats a value for each of 4 channels: red 255 and alpha 0, for all pixels
    count = HW[0] * HW[1] * 4
    bits = f"{count:032b}00111" + "0010" * 4
    for _ in range(HW[0] * HW[1]):
        bits += "000" + "011" + "11111111" + "00000000" * 3
    bits += "0" * (-len(bits) % 8)
    rle = [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]
    write(tmp_path, task(annotation(region("brushlabels", rle=rle, format="rle"))))
    assert not labels(tmp_path).classes.any()


def test_regions_cover_each_other_in_the_stated_order(tmp_path: Path) -> None:
    bus = region("rectanglelabels", ["bus"], x=20, y=25, width=60, height=60)
    write(tmp_path, task(annotation(rectangle(0, 0, 50, 50), bus)))
    assert labels(tmp_path).classes[15, 15] == 2
    assert labels(tmp_path, overlap="earlier").classes[15, 15] == 1
    found = labels(tmp_path).instances
    assert found is not None
    assert found[[2, 15], [2, 15]].tolist() == [1, 2]


def test_a_shape_and_its_label_in_two_results(tmp_path: Path) -> None:
    shape = {**polygon(), "type": "polygon", "value": {"points": TRIANGLE}}
    label = {**polygon(), "type": "labels", "value": {"points": TRIANGLE, "labels": ["car"]}}
    write(tmp_path, task(annotation(shape, label)))
    found = labels(tmp_path)
    assert np.array_equal(found.classes == 1, drawn(TRIANGLE))
    assert found.instances is not None
    assert found.instances.max() == 1


def test_what_is_no_area_is_noted(tmp_path: Path) -> None:
    choice = {"type": "choices", "value": {"choices": ["good"]}}
    point = region("keypointlabels", x=5, y=5, width=1)
    relation = {"type": "relation", "from_id": "a", "to_id": "b"}
    write(tmp_path, task(annotation(polygon(), choice, point, point, relation)))
    proposal = source(tmp_path).proposal
    assert proposal.notes == (
        "only polygons, rectangles, ellipses and brushes are labels, not 1 of choices, "
        "2 of keypointlabels, 1 of relation",
    )
    assert proposal.classes == ("background", "car")
    assert np.array_equal(labels(tmp_path).classes == 1, drawn(TRIANGLE))


def test_the_last_annotation_that_was_not_cancelled_is_used(tmp_path: Path) -> None:
    write(
        tmp_path,
        task(
            annotation(rectangle(0, 0, 10, 10), updated_at="2024-05-01T00:00:00Z"),
            annotation(polygon(), updated_at="2024-06-01T00:00:00Z"),
            annotation(rectangle(0, 0, 10, 10), updated_at="2024-03-01T00:00:00Z"),
            annotation(
                rectangle(0, 0, 9, 9), updated_at="2024-07-01T00:00:00Z", was_cancelled=True
            ),
        ),
    )
    found = source(tmp_path)
    assert found.proposal.notes == (
        "annotations not used, because their task has a later one: 2",
        "cancelled annotations, which are no labels: 1",
    )
    assert np.array_equal(labels(tmp_path).classes == 1, drawn(TRIANGLE))
    assert json.loads(found.evidence(found.items[0])) == [polygon()]


def test_an_annotation_without_regions_is_background_alone(tmp_path: Path) -> None:
    write(tmp_path, task(annotation()))
    found = labels(tmp_path)
    assert not found.classes.any()
    assert found.instances is None


@pytest.mark.parametrize(
    ("address", "file"),
    [
        ("/data/upload/3/1a2b3c4d-a.png", "a.png"),
        ("/data/upload/3/1a2b3c4d-a.png", "1a2b3c4d-a.png"),
        ("https://host/1a2b3c4d-a%20b.png", "a b.png"),
        ("/data/local-files/?d=set/sub/a%20b.png", "sub/a b.png"),
        ("/data/local-files/?d=C%3A%5Cset%5Ca.png", "a.png"),
        ("https://host/x/sub/a.png?sign=1", "sub/a.png"),
        ("s3://bucket/x/a.png", "a.png"),
        ("../../a.png", "a.png"),
    ],
)
def test_images_are_found_by_their_address(tmp_path: Path, address: str, file: str) -> None:
    path = write(tmp_path / "json", task(annotation(), image=address), files=())
    write(tmp_path / "images", files=(file,))
    found = source(path, images=tmp_path / "images")
    (item,) = found.items
    assert item.image == tmp_path / "images" / file
    assert item.name == Path(file).stem
    assert item.where == f"{path}, task 1"
    assert found.image_bytes(item) == item.image.read_bytes()


def test_the_image_may_have_another_name_in_the_data(tmp_path: Path) -> None:
    data = {"text": "a scan", "number": 3, "scan": "a.png"}
    write(tmp_path, task(annotation(), data=data))
    assert [item.name for item in source(tmp_path).items] == ["a"]
    path = write(tmp_path, task(annotation(), data={"text": "a scan"}))
    with pytest.raises(DatasetError) as caught:
        source(tmp_path)
    assert str(caught.value) == (
        f"{path}: task 1 has no image in its data (text). Give each task one image, under the name "
        "image."
    )
    write(tmp_path, task(annotation(), data={"left": "a.png", "right": "b.png"}))
    with pytest.raises(DatasetError, match=r"has several images in its data \(left, right\)"):
        source(tmp_path)


def test_links_that_lead_out(tmp_path: Path) -> None:
    write(tmp_path / "out")
    write(tmp_path / "in", task(annotation()), files=())
    (tmp_path / "in" / "a.png").symlink_to(tmp_path / "out" / "a.png")
    with pytest.raises(DatasetError, match="is a link that leads out of the source"):
        source(tmp_path / "in")


def test_absent_and_unlabelled_images(tmp_path: Path) -> None:
    path = write(tmp_path, task(annotation(polygon()), image="/data/upload/1/x.png"), files=())
    assert source(tmp_path, drop_unpaired=True).proposal.dropped == (tmp_path / "x.png",)
    with pytest.raises(DatasetError) as caught:
        source(tmp_path)
    assert str(caught.value) == (
        f"{path}: 1 annotated image is not there: /data/upload/1/x.png. Name its folder with "
        "--images, or leave it out with --drop-unpaired."
    )
    tasks = [task(annotation()), task(image="b.png"), task(annotation(), image="d.png")]
    path = write(tmp_path, *tasks, files=("a.png", "b.png", "c.png", "d.png"))
    with pytest.raises(DatasetError) as caught:
        source(tmp_path)
    assert str(caught.value) == (
        f"{path}: 2 images have no annotations: b.png, c.png. Annotate them, or leave them out "
        "with --drop-unpaired."
    )
    found = source(tmp_path, drop_unpaired=True)
    assert [item.name for item in found.items] == ["a", "d"]
    assert found.proposal.dropped == (tmp_path / "b.png", tmp_path / "c.png")


def test_two_tasks_of_one_image(tmp_path: Path) -> None:
    path = write(tmp_path, task(annotation()), task(annotation(), id=2))
    with pytest.raises(DatasetError) as caught:
        source(tmp_path)
    assert str(caught.value) == (
        f"{path}: task 2 names the image a.png, which another task has already. Keep one of the "
        "two tasks."
    )


def minimal(*regions: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "image": "/data/upload/1/1a2b3c4d-a.png",
        "id": 1,
        "label": list(regions),
        "annotator": 1,
        "annotation_id": 5,
        "updated_at": "2024-05-01T00:00:00Z",
        "lead_time": 3.5,
        **more,
    }


def test_the_minimal_export(tmp_path: Path) -> None:
    size = {"original_width": HW[1], "original_height": HW[0]}
    first = minimal({"points": TRIANGLE, "polygonlabels": ["bus"], **size})
    later = {"updated_at": "2024-06-01T00:00:00Z", "annotation_id": 6}
    brush = {"rle": encode(drawn(TRIANGLE)), "format": "rle", "brushlabels": ["car"], **size}
    path = write(tmp_path, first, minimal(label=[], tag=[brush], **later))
    assert is_label_studio(path)
    found = source(tmp_path)
    assert [item.name for item in found.items] == ["a"]
    assert found.proposal.notes == ("annotations not used, because their task has a later one: 1",)
    assert np.array_equal(labels(tmp_path).classes == 1, drawn(TRIANGLE))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (
            polygon([[1.0, 2.0], [3.0, 4.0]]),
            " (car): is a polygon of 2 points, and an area has at least 3. Draw the shape again, "
            "or delete it.",
        ),
        (
            polygon([[200.0, 2.0], [300.0, 4.0], [250.0, 50.0]]),
            " (car): reaches from (100, 0.8) to (150, 20), outside of the image of 50 x 40 px. "
            "Check that the annotations belong to this image; move the shape, or delete it.",
        ),
        (polygon(labels=[]), ": has no label. Give the region one label."),
        (
            polygon(labels=["car", "bus"]),
            ": has the labels car, bus. Give the region one label.",
        ),
        (
            polygon(image_rotation=90),
            " (car): was drawn on the image turned by 90 degrees. Turn the image file itself, and "
            "annotate it unturned.",
        ),
        (
            {**polygon(), "original_width": 51},
            " (car): was drawn on an image of 51 x 40 px (width x height), and the image has "
            "50 x 40. Bring back the image that was annotated, or annotate this one.",
        ),
        (
            region("rectanglelabels", x=5, y=5, width=5),
            " (car): has no coordinates that are known. Draw it again as a polygon.",
        ),
        (
            region("rectanglelabels", x=5),
            " (car): has no coordinates that are known. Draw it again as a polygon.",
        ),
        (
            region("ellipselabels", x=5, y=5, radiusX=0, radiusY=5),
            " (car): has the radii 0 and 2 px. Draw it again, or delete it.",
        ),
        (
            region("brushlabels", rle=[0, 0, 256]),
            " (car): is a brush mask that is no list of bytes. Export the annotations again.",
        ),
        (
            region("brushlabels", rle=encode(np.ones(HW))[:-3]),
            " (car): is a brush mask that ends early, after 7 bytes. Paint it again, or export "
            "the annotations again.",
        ),
        (
            region("brushlabels", rle=encode(np.ones((2, 3)))),
            " (car): is a brush mask of 24 values, and 50 x 40 px have 8000. Paint it again, or "
            "export the annotations again.",
        ),
    ],
)
def test_regions_that_cannot_be_drawn(tmp_path: Path, bad: dict[str, Any], message: str) -> None:
    good = rectangle(0, 0, 10, 10, id="r0")
    path = write(tmp_path, task(annotation(good, bad)))
    with pytest.raises(MaskError) as caught:
        labels(tmp_path)
    assert str(caught.value) == f"{path}, task 1, region 2{message}"


def test_a_run_that_goes_beyond_the_image(tmp_path: Path) -> None:
    bits = f"{8000:032b}00111" + "1111" * 4 + "100" + "1" * 16 + "11111111"
    bits += "0" * (-len(bits) % 8)
    rle = [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]
    write(tmp_path, task(annotation(region("brushlabels", rle=rle))))
    with pytest.raises(MaskError, match="of at least 65536 values, and 50 x 40 px have 8000"):
        labels(tmp_path)


def test_unknown_labels(tmp_path: Path) -> None:
    path = write(tmp_path, task(annotation(polygon(labels=["cra"]))))
    with pytest.raises(MaskError) as caught:
        labels(tmp_path)
    assert str(caught.value).startswith(f"{path}, task 1, region 1 (cra): names the class 'cra'")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty (0 bytes). Export the annotations again."),
        (
            '[{"annotations": [{"result": [NaN]}]}]',
            "holds NaN at byte 30, where a number is expected. Draw that shape again, or delete "
            "it.",
        ),
        (
            '[{"annotations": [',
            "cannot be read as annotations: Input data was truncated. Export the annotations "
            "again.",
        ),
        (
            '{"images": []}',
            "cannot be read as annotations: Expected `array`, got `object`. Export the annotations "
            "again.",
        ),
        (
            '[{"id": 1}]',
            "entry 1 has neither annotations nor annotation_id. Export from Label Studio as JSON "
            "or JSON-MIN.",
        ),
    ],
)
def test_files_that_are_no_annotations(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(DatasetError) as caught:
        source(path)
    assert str(caught.value) == f"{path}: {message}"


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ([3], "Expected `object`, got `int` - at `$[0]`"),
        ([polygon([[1, "x"]])], "Expected `float`, got `str` - at `$.points[0][1]`"),
    ],
)
def test_regions_of_other_values(tmp_path: Path, result: list[Any], message: str) -> None:
    path = write(tmp_path, task({"result": result}))
    with pytest.raises(DatasetError) as caught:
        source(tmp_path)
    assert str(caught.value) == (
        f"{path}, task 1: cannot be read as annotations: {message}. Export the annotations again."
    )


def test_sniffing(tmp_path: Path) -> None:
    assert is_label_studio(write(tmp_path, task(annotation(polygon()))))
    assert not is_label_studio(tmp_path)
    assert not is_label_studio(tmp_path / "absent.json")
    coco_file = tmp_path / "coco.json"
    coco_file.write_text('{"images": [], "annotations": [], "result": 1}')
    assert not is_label_studio(coco_file)


def on(to_name: str, **more: Any) -> dict[str, Any]:
    return {**polygon(**more), "to_name": to_name}


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (("image", "image2"), "image and image2"),
        (("left", "right"), "left and right"),
        (("image2",), "image2"),
    ],
)
def test_regions_on_another_image_of_the_task_are_refused(
    tmp_path: Path, names: tuple[str, ...], found: str
) -> None:
    data = {"image": "a.png", "image2": "b.png"}
    path = write(tmp_path, task(annotation(*(on(name) for name in names)), data=data))
    with pytest.raises(DatasetError) as caught:
        source(path)
    assert str(caught.value) == (
        f"{path}: task 1 has regions on {found}, and one image of a task is read. Make each image "
        "a task of its own in Label Studio."
    )


def test_a_second_image_without_regions_is_no_matter(tmp_path: Path) -> None:
    data = {"image": "a.png", "preview": "small.png"}
    for name in ("image", "img"):
        path = write(tmp_path / name, task(annotation(on(name)), data=data))
        assert labels(path).classes.any()


def test_the_minimal_export_of_several_images_is_refused(tmp_path: Path) -> None:
    flat = {"points": TRIANGLE, "polygonlabels": ["car"]}
    entry = {"id": 1, "annotation_id": 2, "image": "a.png", "image2": "b.png", "label": [flat]}
    path = write(tmp_path, entry)
    with pytest.raises(DatasetError) as caught:
        source(path)
    assert str(caught.value) == (
        f"{path}: task 1 has several images (image, image2), and does not say which of them its "
        "regions are on. Export as JSON and not as JSON-MIN."
    )


def test_what_may_be_null(tmp_path: Path) -> None:
    shape = rectangle(10, 10, 40, 50, image_rotation=None, rotation=None)
    path = write(tmp_path, task(annotation(shape, updated_at=None)))
    assert labels(path).classes.sum() == 400
    flat = {**shape["value"], "original_width": None, "image_rotation": None}
    entry = {"id": 1, "annotation_id": 2, "updated_at": None, "image": "a.png", "label": [flat]}
    assert labels(write(tmp_path, entry)).classes.sum() == 400


@pytest.mark.parametrize("box", [(slice(3, 9), slice(40, 50)), (slice(0, 0), slice(0, 0))])
def test_masks_are_kept_as_their_bounding_box(box: tuple[slice, slice]) -> None:
    mask = np.zeros(HW, bool)
    mask[box] = True
    patch = cropped(mask)
    assert patch.mask.all()
    assert patch.mask.shape == mask[box].shape
    assert patch.top_left == (box[0].start, box[1].start)


def test_accents_are_found_in_either_unicode_form(tmp_path: Path) -> None:
    path = write(
        tmp_path, task(annotation(polygon()), image="/x/\u00e4.png"), files=("a\u0308.png",)
    )
    assert [item.image for item in source(path).items] == [tmp_path / "a\u0308.png"]
