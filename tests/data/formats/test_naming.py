from __future__ import annotations

from pathlib import Path

import pytest

from delineate.data.dataset import DatasetInfo
from delineate.data.formats.naming import file_inside as inside
from delineate.data.formats.naming import (
    fill_id,
    id_of,
    ids_by_name,
    means_background,
    propose,
    sample_names,
)
from delineate.errors import DatasetError, MaskError


def test_a_background_comes_first_and_ignored_names_are_no_classes() -> None:
    found = propose(["car", "_background_", "void", "bus"])
    assert (found.classes, found.ignore_index) == (("_background_", "car", "bus"), 255)
    assert propose(["car"]).classes == ("background", "car")
    many = propose(["ignore", *(f"c{i}" for i in range(255))])
    assert many.ignore_index == 65535


@pytest.mark.parametrize("name", ["other", "rest", "none", "nothing"])
def test_objects_may_be_called_other(name: str) -> None:
    assert not means_background(name)
    assert propose([name, "car"]).classes == ("background", name, "car")
    assert fill_id(DatasetInfo(classes=(name, "car"))) is None


@pytest.mark.parametrize("name", ["background", "__background__", "BG", "Back-ground"])
def test_names_of_the_background(name: str) -> None:
    assert means_background(name)
    assert fill_id(DatasetInfo(classes=("car", name))) == 1


def test_ids() -> None:
    ids = ids_by_name(DatasetInfo(classes=("background", "car"), ignore_index=7))
    assert [id_of(name, ids, "f") for name in ("car", "VOID", "__ignore__")] == [1, 7, 7]
    with pytest.raises(MaskError) as caught:
        id_of("cra", ids, "a.json")
    assert str(caught.value) == (
        "a.json: names the class 'cra', which is none of background, car, __ignore__, ignore, "
        "ignored, unlabeled, unlabelled, void (near: car). Add it to --classes, or map it with "
        "--map cra=CLASS."
    )
    with pytest.raises(MaskError) as caught:
        id_of("void", {"car": 1}, "a.json")
    assert str(caught.value) == (
        "a.json: labels pixels as 'void', and there is no ignore index. Add --ignore-index 255."
    )


def test_sample_names() -> None:
    assert sample_names(["x/1.jpg", "x/2.jpg"]) == {"x/1.jpg": "1", "x/2.jpg": "2"}
    assert sample_names(["x/1.jpg", "y\\1.jpg"]) == {"x/1.jpg": "x_1", "y\\1.jpg": "y_1"}
    with pytest.raises(DatasetError) as caught:
        sample_names(["x/1.jpg", "x/1.png"])
    assert (
        str(caught.value) == "x/1.jpg and x/1.png would both be called 'x_1'. Rename one of them."
    )


@pytest.mark.parametrize("name", ["/etc/passwd", "../a.jpg", "C:\\a.jpg", "a/../../b.jpg"])
def test_names_outside(tmp_path: Path, name: str) -> None:
    with pytest.raises(DatasetError) as caught:
        inside(tmp_path, name, "a.json", follow_links=False)
    assert str(caught.value) == (
        f"a.json: names the file {name!r}, which is outside of {tmp_path}. Write paths relative "
        "to the folder of the images (--images)."
    )


def test_links(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "a.jpg").touch()
    link = tmp_path / "in/a.jpg"
    link.symlink_to(tmp_path / "a.jpg")
    assert inside(tmp_path / "in", "a.jpg", "x", follow_links=True) == link
    with pytest.raises(DatasetError) as caught:
        inside(tmp_path / "in", "a.jpg", "x", follow_links=False)
    assert str(caught.value) == (
        f"{link}: is a link that leads out of the source, to {tmp_path / 'a.jpg'}. If that is "
        "meant, add --follow-links."
    )
