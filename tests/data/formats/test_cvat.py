from __future__ import annotations

import warnings
from itertools import groupby
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco

from delineate.data.dataset import DatasetInfo
from delineate.data.formats.cvat import is_cvat, open_cvat
from delineate.data.formats.settings import ImportSettings
from delineate.data.formats.source import Labels, Source
from delineate.errors import DatasetError, MaskError

HW = (40, 50)
INFO = DatasetInfo(classes=("background", "car", "bus"), ignore_index=255)
META = (
    "<meta><task><id>1</id><name>a task</name><labels>"
    "<label><name>car</name><type>any</type><attributes><attribute><name>colour</name>"
    "</attribute></attributes></label><label><name>bus</name></label></labels></task></meta>"
)


def polygon(points: str = "5,5;20,5;20,15;5,15", label: str = "car", more: str = "") -> str:
    return (
        f'<polygon label="{label}" source="manual" occluded="0" points="{points}" {more}>'
        '<attribute name="colour">red</attribute></polygon>'
    )


def box(left: float, top: float, right: float, bottom: float, more: str = "") -> str:
    label = "" if "label" in more else 'label="car"'
    return f'<box {label} xtl="{left}" ytl="{top}" xbr="{right}" ybr="{bottom}" {more}></box>'


def image(*shapes: str, name: str = "a.png", more: str = "") -> str:
    body = "\n    ".join(shapes)
    return f'<image id="0" name="{name}" {more} width="{HW[1]}" height="{HW[0]}">{body}\n</image>'


def write(
    folder: Path, *images: str, files: tuple[str, ...] = ("a.png",), meta: str = META
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in files:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((*HW, 3), np.uint8)).save(file)
    path = folder / "annotations.xml"
    text = "\n  ".join(images)
    path.write_text(
        '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n'
        f"  {meta}\n  {text}\n</annotations>\n"
    )
    return path


def source(path: Path, **options: Any) -> Source:
    return open_cvat(ImportSettings(source=path, out=path / "out", **options))


def labels(path: Path, info: DatasetInfo = INFO, **options: Any) -> Labels:
    found = source(path, **options)
    return found.labels(found.items[0], HW, info)


def drawn(points: list[tuple[float, float]]) -> np.ndarray:
    """What pycocotools gives."""
    flat = [number for point in points for number in point]
    (rle,) = coco.frPyObjects([flat], *HW)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # pycocotools under numpy 2
        mask: np.ndarray = coco.decode(rle).astype(bool)
    return mask


def text_of(points: list[tuple[float, float]]) -> str:
    return ";".join(f"{x!r},{y!r}" for x, y in points)


STAR = [(25.0, 2.0), (36.0, 38.0), (4.0, 14.0), (46.0, 14.0), (14.0, 38.0)]


@pytest.mark.parametrize(
    "points",
    [
        [(3.2, 4.7), (30.9, 8.1), (18.5, 33.3)],
        [(-5.0, 10.0), (60.0, 12.5), (20.0, 70.0)],
        STAR,
    ],
)
def test_polygons_are_those_of_pycocotools(
    tmp_path: Path, points: list[tuple[float, float]]
) -> None:
    write(tmp_path, image(polygon(text_of(points))))
    found = labels(tmp_path)
    assert np.array_equal(found.classes == 1, drawn(points))
    assert found.instances is not None
    assert np.array_equal(found.instances, found.classes)


def test_a_polygon_that_crosses_itself_is_filled_by_the_even_odd_rule(tmp_path: Path) -> None:
    write(tmp_path, image(polygon(text_of(STAR))))
    found = labels(tmp_path).classes
    assert found[20, 25] == 0
    assert found[10, 25] == 1


@given(
    st.lists(st.tuples(st.floats(0, 50), st.floats(0, 40)), min_size=3, max_size=8),
)
@settings(max_examples=25, deadline=None)
def test_any_polygon_is_that_of_pycocotools(
    tmp_path_factory: pytest.TempPathFactory, points: list[tuple[float, float]]
) -> None:
    folder = tmp_path_factory.mktemp("cvat")
    write(folder, image(polygon(text_of(points))))
    assert np.array_equal(labels(folder).classes == 1, drawn(points))


def test_boxes(tmp_path: Path) -> None:
    write(tmp_path, image(box(3.4, 4.6, 20.5, 30.2)))
    wanted = drawn([(3.4, 4.6), (3.4, 30.2), (20.5, 30.2), (20.5, 4.6)])
    assert np.array_equal(labels(tmp_path).classes == 1, wanted)


def test_a_box_is_turned_clockwise_about_its_middle(tmp_path: Path) -> None:
    write(tmp_path, image(box(10, 10, 30, 20, 'rotation="90"')))
    found = labels(tmp_path).classes == 1
    assert np.array_equal(found, drawn([(15, 5), (15, 25), (25, 25), (25, 5)]))
    write(tmp_path, image(box(10, 10, 40, 14, 'rotation="30"')))
    found = labels(tmp_path).classes == 1
    assert found[18, 35]  # the right end is lower, as y points down
    assert found[6, 15]
    assert not found[18, 15]


@pytest.mark.parametrize("degrees", [0.0, 30.0])
def test_ellipses_are_those_of_opencv(tmp_path: Path, degrees: float) -> None:
    ellipse = f'<ellipse label="car" cx="20.4" cy="18.7" rx="12.6" ry="5.2" rotation="{degrees}"/>'
    write(tmp_path, image(ellipse))
    wanted = np.zeros(HW, np.uint8)
    cv2.ellipse(wanted, (20, 19), (13, 5), degrees, 0, 360, 1, -1)
    assert np.array_equal(labels(tmp_path).classes, wanted)


@given(st.integers(0, 2**32 - 1), st.integers(-3, 48), st.integers(-3, 38))
@settings(max_examples=20, deadline=None)
def test_masks_are_runs_in_a_box(
    tmp_path_factory: pytest.TempPathFactory, seed: int, left: int, top: int
) -> None:
    folder = tmp_path_factory.mktemp("cvat")
    rng = np.random.default_rng(seed)
    inside = rng.random((6, 9)) < 0.5
    runs = [len(list(run)) for _, run in groupby(inside.ravel())]
    runs = [0, *runs] if inside[0, 0] else runs
    rle = ", ".join(str(run) for run in runs)
    place = f'left="{left}" top="{top}" width="9" height="6"'
    write(folder, image(f'<mask label="car" rle="{rle}" {place}></mask>'))
    wide = np.zeros((60, 70), bool)
    wide[top + 5 : top + 11, left + 5 : left + 14] = inside
    assert np.array_equal(labels(folder).classes == 1, wide[5:45, 5:55])


def test_a_higher_z_order_covers_whatever_the_overlap_order(tmp_path: Path) -> None:
    write(
        tmp_path,
        image(
            box(10, 10, 20, 20, 'label="bus" z_order="2"'),
            box(0, 0, 30, 30, 'label="car" z_order="-1"'),
            box(15, 15, 40, 30, 'label="car"'),
        ),
    )
    for overlap in ("later", "earlier", "smaller"):
        found = labels(tmp_path, overlap=overlap)
        assert found.classes[17, 17] == 2
        assert found.instances is not None
        assert found.instances[2, 2] != found.instances[25, 25]


def test_within_one_z_order_the_overlap_order_decides(tmp_path: Path) -> None:
    write(tmp_path, image(box(0, 0, 30, 30), box(10, 10, 40, 39, 'label="bus"')))
    assert labels(tmp_path).classes[20, 20] == 2
    assert labels(tmp_path, overlap="earlier").classes[20, 20] == 1


def test_groups_of_one_label_are_one_object(tmp_path: Path) -> None:
    write(
        tmp_path,
        image(
            box(0, 0, 5, 5, 'group_id="3"'),
            box(10, 0, 15, 5, 'group_id="3"'),
            box(20, 0, 25, 5, 'label="bus" group_id="3"'),
            box(30, 0, 35, 5, 'group_id="0"'),
            box(40, 0, 45, 5, 'group_id="0"'),
        ),
    )
    found = labels(tmp_path)
    assert found.instances is not None
    assert found.instances[2, [2, 12, 22, 32, 42]].tolist() == [1, 1, 2, 3, 4]


def test_classes_are_those_of_the_task_in_its_order(tmp_path: Path) -> None:
    write(tmp_path, image(polygon(label="bike")))
    assert source(tmp_path).proposal.classes == ("background", "car", "bus", "bike")
    write(tmp_path, image(polygon(label="bus")), meta="")
    assert source(tmp_path).proposal.classes == ("background", "bus")


def test_what_has_no_area_is_noted(tmp_path: Path) -> None:
    line = '<polyline label="lane" points="1,1;2,2"></polyline>'
    point = '<points label="wheel" points="1,1"></points>'
    write(
        tmp_path,
        image(polygon(), line, line, point, '<tag label="good"/>'),
        image(name="b.png"),
        files=("a.png", "b.png"),
    )
    proposal = source(tmp_path).proposal
    assert proposal.notes == (
        "shapes without an area are no labels: 2 of <polyline>, 1 of <points>, 1 of <tag>",
        "images without shapes, which are background alone: 1",
    )
    assert proposal.classes == ("background", "car", "bus")
    assert not labels(tmp_path).classes[0].any()


def test_every_image_has_its_own_evidence(tmp_path: Path) -> None:
    first, second = image(polygon()), image(name="b.png").replace(">\n</image>", "/>")
    third = image(box(1, 1, 9, 9), name="sub/ü.png")
    write(
        tmp_path, first, second, "<!-- a comment -->", third, files=("a.png", "b.png", "sub/ü.png")
    )
    found = source(tmp_path)
    assert [item.name for item in found.items] == ["a", "b", "ü"]
    evidence = [found.evidence(item).decode().strip() for item in found.items]
    assert evidence == [first, f"{second}\n  <!-- a comment -->", third]
    counts = [int(found.labels(item, HW, INFO).classes.sum()) for item in found.items]
    assert counts == [150, 0, 64]


@pytest.mark.parametrize("folder", ["images/Train", "images", "Train", "."])
def test_images_are_found_and_subsets_are_splits(tmp_path: Path, folder: str) -> None:
    write(
        tmp_path,
        image(polygon(), more='subset="Train"'),
        image(polygon(), name="b.png", more='subset="Validation"'),
        files=(f"{folder}/a.png", "images/Validation/b.png"),
    )
    found = source(tmp_path)
    assert [(item.split, item.name) for item in found.items] == [("train", "a"), ("val", "b")]
    assert found.items[0].image == tmp_path / folder / "a.png"
    assert found.image_bytes(found.items[0]) == (tmp_path / folder / "a.png").read_bytes()


def test_images_elsewhere(tmp_path: Path) -> None:
    path = write(tmp_path / "xml", image(polygon()), files=())
    write(tmp_path / "images", files=("a.png",))
    (item,) = source(path, images=tmp_path / "images").items
    assert item.image == tmp_path / "images" / "a.png"
    assert item.where == f"{path}, image a.png"


def test_other_subsets_are_noted(tmp_path: Path) -> None:
    write(
        tmp_path,
        image(polygon(), more='subset="day1"'),
        image(polygon(), more='subset="day2"'),
        files=("images/day1/a.png", "images/day2/a.png"),
    )
    found = source(tmp_path)
    assert [(item.split, item.name) for item in found.items] == [
        ("all", "day1_a"),
        ("all", "day2_a"),
    ]
    assert found.proposal.notes == ("subsets that are no splits: day1, day2",)


def test_subsets_that_are_splits_and_others(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        image(polygon(), more='subset="train"'),
        image(polygon(), name="b.png", more='subset="default"'),
        files=("a.png", "b.png"),
    )
    with pytest.raises(DatasetError) as caught:
        source(tmp_path)
    assert str(caught.value) == (
        f"{path}: has the image b.png in the subset 'default' beside train. Move it to train, val "
        "or test in CVAT."
    )


def test_absent_and_unannotated_images(tmp_path: Path) -> None:
    path = write(tmp_path, image(polygon()), image(polygon(), name="c.png"), files=("a.png",))
    with pytest.raises(DatasetError) as caught:
        source(tmp_path)
    assert str(caught.value) == (
        f"{path}: 1 annotated image is not there: c.png. Name its folder with --images, or leave "
        "it out with --drop-unpaired."
    )
    write(tmp_path, image(polygon()), files=("b.png", "c.png"))
    with pytest.raises(DatasetError) as caught:
        source(tmp_path)
    assert str(caught.value) == (
        f"{path}: 2 images have no annotations: b.png, c.png. Annotate them, or leave them out "
        "with --drop-unpaired."
    )
    write(tmp_path, image(polygon()), image(polygon(), name="d.png"), files=())
    found = source(tmp_path, drop_unpaired=True)
    assert [item.name for item in found.items] == ["a"]
    assert {file.name for file in found.proposal.dropped} == {"b.png", "c.png", "d.png"}


def test_video_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, '<track id="0" label="car"><box frame="0"/></track>')
    assert is_cvat(path)
    with pytest.raises(DatasetError) as caught:
        source(tmp_path)
    assert str(caught.value) == (
        f"{path}: was exported as CVAT for video (it has a <track>). Export the task as CVAT for "
        "images 1.1, which has every frame by itself."
    )


def test_entities_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    path.write_text('<!DOCTYPE x [<!ENTITY lol "ha">]><annotations>&lol;</annotations>')
    with pytest.raises(DatasetError) as caught:
        source(path)
    assert str(caught.value) == (
        f"{path}: declares the entity 'lol', which CVAT never writes. Export it again, as CVAT "
        "for images 1.1."
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            b"<annotations><image",
            "is damaged XML (unclosed token: line 1, column 13). Export it again, as CVAT for "
            "images 1.1 in UTF-8.",
        ),
        (
            b"",
            "is damaged XML (no element found: line 1, column 0). Export it again, as CVAT for "
            "images 1.1 in UTF-8.",
        ),
        (
            b'<?xml version="1.0" encoding="latin-1"?><annotations>\xfc</annotations>',
            "is damaged XML (not well-formed (invalid token): line 1, column 53). Export it again, "
            "as CVAT for images 1.1 in UTF-8.",
        ),
        (
            b"<annotation><image/></annotation>",
            "is XML of <annotation>, and CVAT's is of <annotations>. Export it again, as CVAT for "
            "images 1.1.",
        ),
        (
            b'<annotations><image id="0"/></annotations>',
            "image 1 has no name. Export it again, as CVAT for images 1.1.",
        ),
        (
            b'<annotations><image name="a"><blob/></image></annotations>',
            "has a shape <blob> in the image 'a', which is none that CVAT for images 1.1 has. "
            "Delete those shapes in CVAT, or draw them as polygons.",
        ),
        (
            b'<annotations><image name="a"/><image name="a"/></annotations>',
            "has the image a twice. Export one task at a time, or give the images folders of "
            "their own.",
        ),
        (
            b'<annotations><image name="../a.png"/></annotations>',
            "names the file '../a.png', which is outside of {root}. Write paths relative to the "
            "folder of the images (--images).",
        ),
        (
            b'<annotations><image name="a.png"><box label=" "/></image></annotations>',
            "has a <box> without a label in the image 'a.png'. Give it one in CVAT, or delete it.",
        ),
    ],
)
def test_files_that_are_no_annotations(tmp_path: Path, text: bytes, message: str) -> None:
    path = tmp_path / "a.xml"
    path.write_bytes(text)
    with pytest.raises(DatasetError) as caught:
        source(path, images=tmp_path)
    assert str(caught.value) == f"{path}: {message.format(root=tmp_path)}"


def test_a_byte_order_mark(tmp_path: Path) -> None:
    path = write(tmp_path, image(polygon()))
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert labels(path).classes.sum() == 150


@pytest.mark.parametrize(
    ("bad", "place", "message"),
    [
        (
            polygon("1,2;nan,4;5,6"),
            "polygon",
            "point 2 of 3 is (nan, 4). Draw the shape again, or delete it.",
        ),
        (
            polygon("1,2;3,4"),
            "polygon",
            "is a polygon of 2 points, and an area has at least 3. Draw the shape again, or delete "
            "it.",
        ),
        (
            polygon("1,2;3"),
            "polygon",
            "has the points '1,2;3', which are no list of x,y;x,y. Draw the shape again, or export "
            "the annotations again.",
        ),
        (
            polygon("60,2;70,4;65,9"),
            "polygon",
            "reaches from (60, 2) to (70, 9), outside of the image of 50 x 40 px. Check that the "
            "annotations belong to this image; move the shape, or delete it.",
        ),
        (
            polygon(";".join(["-9e4,1", "9e4,2"] * 20)),
            "polygon",
            "has an outline of 7200040 px, and 5000000 are the most that is drawn. Draw the shape "
            "again, or delete it.",
        ),
        (
            '<box label="car" xtl="1" ytl="2" xbr="inf" ybr="4"/>',
            "box",
            "has xbr='inf', which is no number. Draw the shape again, or export the annotations "
            "again.",
        ),
        (
            '<box label="car" xtl="1" ytl="2" xbr="3"/>',
            "box",
            "has no ybr. Draw the shape again, or export the annotations again.",
        ),
        (
            '<ellipse label="car" cx="1" cy="2" rx="-3" ry="4"/>',
            "ellipse",
            "has the radii -3 and 4. Draw the shape again, or delete it.",
        ),
        (
            '<mask label="car" rle="2, 3" left="0" top="0" width="2" height="2"/>',
            "mask",
            "has runs (rle='2, 3') that do not fill its box of 2 x 2 px: they make 5. Draw the "
            "mask again, or export the annotations again.",
        ),
        (
            '<mask label="car" rle="2, 3" left="0" top="0" width="51" height="2"/>',
            "mask",
            "has a box of 51 x 2 px, larger than the image of 50 x 40. Draw the mask again, or "
            "export the annotations again.",
        ),
        (
            '<mask label="car" rle="2, x" left="0" top="0" width="2" height="2"/>',
            "mask",
            "has runs (rle='2, x') that do not fill its box of 2 x 2 px. Draw the mask again, or "
            "export the annotations again.",
        ),
    ],
)
def test_shapes_that_cannot_be_drawn(tmp_path: Path, bad: str, place: str, message: str) -> None:
    path = write(tmp_path, image(polygon(), bad))
    with pytest.raises(MaskError) as caught:
        labels(tmp_path)
    assert str(caught.value) == f"{path}, image a.png, {place} 2 of 2 (car): {message}"


def test_another_size_and_another_class(tmp_path: Path) -> None:
    path = write(tmp_path, image(polygon(label="cra")))
    found = source(tmp_path)
    with pytest.raises(MaskError, match="names the class 'cra'"):
        found.labels(found.items[0], HW, INFO)
    with pytest.raises(MaskError) as caught:
        found.labels(found.items[0], (50, 40), INFO)
    assert str(caught.value) == (
        f"{path}, image a.png: was drawn on an image of 50 x 40 px (width x height), and the image "
        "has 40 x 50. Bring back the image that was annotated, or annotate this one."
    )


def test_a_file_that_changes_during_the_import(tmp_path: Path) -> None:
    path = write(tmp_path, image(polygon()))
    found = source(tmp_path)
    path.write_text("<annotations/>")
    with pytest.raises(MaskError, match="has changed since the import began"):
        found.labels(found.items[0], HW, INFO)


def test_one_file_in_a_folder(tmp_path: Path) -> None:
    with pytest.raises(DatasetError) as caught:
        source(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: has no file of CVAT for images 1.1. Name the file that was exported."
    )
    write(tmp_path / "x", image(polygon()))
    write(tmp_path / "y", image(polygon()))
    with pytest.raises(DatasetError) as caught:
        source(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: has 2 files of CVAT for images 1.1: x/annotations.xml, y/annotations.xml. "
        "Name one file."
    )


def test_sniffing(tmp_path: Path) -> None:
    assert is_cvat(write(tmp_path, image(polygon())))
    voc = tmp_path / "voc.xml"
    voc.write_text("<annotation><folder>VOC</folder></annotation>")
    assert not is_cvat(voc)
    assert not is_cvat(tmp_path)
    assert not is_cvat(tmp_path / "absent.xml")


@pytest.mark.parametrize("name", ["/a.png", "C:/a.png", "b/../../a.png"])
def test_names_that_are_no_paths_inside_are_refused(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, image(polygon(), name=name), image(polygon(), name="x/a.png"))
    with pytest.raises(DatasetError) as caught:
        source(path)
    assert caught.value.found == f"names the file {name!r}, which is outside of {tmp_path}"


def test_accents_are_found_in_either_unicode_form(tmp_path: Path) -> None:
    path = write(tmp_path, image(polygon(), name="\u00e4.png"), files=("a\u0308.png",))
    assert [item.image for item in source(path).items] == [tmp_path / "a\u0308.png"]
