from __future__ import annotations

import numpy as np
import pytest

from delineate.data.class_map import ClassMap
from delineate.errors import SettingsError


def test_joined_renamed_and_the_rest() -> None:
    over = ClassMap.parse("car=vehicle, truck=vehicle, *=background").over(
        ("car", "sky", "truck", "road"), None
    )
    assert over.classes == ("background", "vehicle")
    assert over.ignore_index is None
    labels = np.array([[0, 1], [2, 3]], np.uint8)
    np.testing.assert_array_equal(over.apply(labels), [[1, 0], [1, 0]])
    assert over.apply(labels).dtype == np.uint8
    assert over.colours([(1, 1, 1), (2, 2, 2), (3, 3, 3), (4, 4, 4)]) == ((2, 2, 2), (1, 1, 1))
    assert over.colours(None) is None


def test_classes_that_are_not_named_stay() -> None:
    over = ClassMap.parse("b=bee").over(("background", "a", "b"), 255)
    assert (over.classes, over.ignore_index) == (("background", "a", "bee"), 255)
    labels = np.array([[0, 1], [2, 255]], np.uint8)
    np.testing.assert_array_equal(over.apply(labels), labels)


def test_ignored_classes() -> None:
    over = ClassMap.parse("b=ignore").over(("background", "a", "b"), None)
    assert (over.classes, over.ignore_index) == (("background", "a"), 255)
    np.testing.assert_array_equal(over.apply(np.array([[0, 1, 2]], np.uint8)), [[0, 1, 255]])


def test_an_ignore_index_that_is_a_class_stays_ignored() -> None:
    over = ClassMap.parse("*=thing,sky=background").over(("sky", "car", "bus", "void"), 3)
    assert over.classes == ("background", "thing")
    assert over.ignore_index == 3
    np.testing.assert_array_equal(over.apply(np.array([[0, 1, 2, 3]], np.uint8)), [[0, 1, 1, 3]])
    low = ClassMap.parse("a=z").over(("a", "nothing said", "c", "d"), 1)
    assert (low.classes, low.ignore_index) == (("z", "c", "d"), 255)
    np.testing.assert_array_equal(low.apply(np.array([[0, 1, 2, 3]], np.uint8)), [[0, 255, 1, 2]])


def test_ids_of_no_class_stay_recognisable() -> None:
    over = ClassMap.parse("a=z").over(("background", "a"), None)
    np.testing.assert_array_equal(over.apply(np.array([[0, 1, 9]], np.uint8)), [[0, 1, 65535]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "car",
            "--map: 'car' is no pair of names. Write OLD=NEW with commas between: "
            "car=vehicle,truck=vehicle,*=other.",
        ),
        ("a=", "--map: 'a=' is no pair of names. Write OLD=NEW"),
        ("a=b,a=c", "--map: 'a' is mapped twice."),
        ("bus=b", "--map: maps 'bus', and there is no such class. There are background, a, b."),
        (
            "backgroun=b",
            "--map: maps 'backgroun', and there is no such class. Did you mean background?",
        ),
        (
            "*=x",
            "--map: leaves the one class x of 3. Keep at least two, background among them.",
        ),
        ("*=void", "--map: leaves no class of 3. Keep at least two, background among them."),
    ],
)
def test_refusals(text: str, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        ClassMap.parse(text).over(("background", "a", "b"), None)
    assert str(caught.value).startswith(message)
