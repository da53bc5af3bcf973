from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from delineate.data.dataset import Dataset, read_pair
from delineate.planning.fingerprint import Fingerprint
from delineate.planning.simple import SimpleMethod, advice, simple_methods

Make = Callable[..., Fingerprint]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, make_dataset: Callable[..., Path]) -> Dataset:
    path = make_dataset(tmp_path_factory.mktemp("data") / "data", classes=("background", "disc"))
    return Dataset.open(path)


def tried(data: Dataset, print_: Fingerprint) -> list[SimpleMethod]:
    read = partial(read_pair, info=data.info)
    return simple_methods(data.split("train"), data.split("val"), read, print_, None)


def test_discs_of_another_colour_need_no_network(data: Dataset, make_fingerprint: Make) -> None:
    found = tried(data, make_fingerprint())
    assert {method.name for method in found} == {"a table of colours", "Otsu's threshold"}
    assert found[0].miou >= found[1].miou
    assert found[0].miou > 0.85
    assert found[0].ms > 0
    [said] = advice(found, make_fingerprint())
    assert said.startswith(f"The task is simple: {found[0].name} alone reaches ")


def test_images_that_thresholds_do_not_take(data: Dataset, make_fingerprint: Make) -> None:
    print_ = make_fingerprint()
    wide = replace(print_, look=replace(print_.look, dtype="uint16"))
    assert tried(data, wide) == []
    read = partial(read_pair, info=data.info)
    assert simple_methods(data.split("train"), [], read, print_, None) == []


@pytest.mark.parametrize(("labelled", "count"), [(19, 1), (20, 0)])
def test_few_labels(make_fingerprint: Make, labelled: int, count: int) -> None:
    weak = [SimpleMethod("a table of colours", 0.4, 1.0)]
    said = advice(weak, make_fingerprint(labelled=labelled))
    assert len(said) == count
    if said:
        assert said[0].startswith(
            "19 labelled images are few for a network: a table of colours reaches 0.40 mIoU"
        )


def test_nothing_to_say(make_fingerprint: Make) -> None:
    assert advice([], make_fingerprint()) == ()
