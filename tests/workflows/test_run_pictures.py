from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from delineate.data.dataset import Sample
from delineate.workflows.run_pictures import (
    RunPictures,
    filmstrips,
    legend,
    most_spread,
    picture_steps,
    told,
)

SORTED = st.lists(st.integers(0, 10_000), min_size=1, max_size=40, unique=True).map(sorted)


def pictures(run: Path, *, side: int = 40, count: int = 9) -> RunPictures:
    val = [Sample(str(i), Path(f"{i}.png"), Path(f"{i}.png"), None) for i in range(count)]

    def read(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
        mask = np.zeros((side, side + 20), np.uint8)
        mask[side // 2 - 4 : side // 2] = 1
        return np.full((side, side + 20, 3), 20 * int(sample.name), np.uint8), mask

    return RunPictures(
        run,
        val,
        read,
        classes=("background", "cell"),
        colours=((0, 0, 0), (255, 0, 0)),
        ignore_index=None,
    )


def everywhere(image: np.ndarray) -> np.ndarray:
    return np.ones(image.shape[:2], np.uint8)


def test_images_are_spread_over_the_split_and_truth_is_drawn(tmp_path: Path) -> None:
    pictures(tmp_path).begin()
    images = [cv2.imread(str(tmp_path / f"samples/{i}-image.jpg")) for i in range(4)]
    assert [round(float(image.mean()) / 20) for image in images] == [1, 3, 5, 7]
    truth = cv2.imread(str(tmp_path / "samples/1-truth.jpg"))
    assert truth.shape == (40, 60, 3)
    assert truth[18, 30, 2] > 120  # OpenCV's order: red comes last
    assert np.abs(truth[5].astype(int) - images[1][5]).max() <= 3
    assert legend(tmp_path) == {"cell": (255, 0, 0)}


def test_a_split_of_one_image_is_shown_once(tmp_path: Path) -> None:
    pictures(tmp_path, count=1).begin()
    assert len(list((tmp_path / "samples").glob("*-image.jpg"))) == 1


def test_of_a_large_image_the_middle_is_predicted(tmp_path: Path) -> None:
    sizes = []

    def predict(image: np.ndarray) -> np.ndarray:
        sizes.append(image.shape)
        return everywhere(image)

    pictures(tmp_path, side=1500, count=1).add(1, predict, valid={1}, best=1)
    assert sizes == [(1024, 1024, 3)]
    assert cv2.imread(str(tmp_path / "samples/0-00000001.jpg")).shape == (300, 300, 3)


def test_pictures_of_a_life_before_a_resume_go_away(tmp_path: Path) -> None:
    following = pictures(tmp_path)
    for step in (10, 20, 30):
        following.add(step, everywhere, valid={10, 20, 30}, best=10)
    following.add(25, everywhere, valid={10, 20, 25}, best=10)
    assert picture_steps(tmp_path / "samples") == [10, 20, 25]


def test_a_long_training_keeps_few_pictures(tmp_path: Path) -> None:
    following = pictures(tmp_path, count=1)
    for step in range(1, 41):
        following.add(step, everywhere, valid=range(1, step + 1), best=min(step, 2))
    kept = picture_steps(tmp_path / "samples")
    assert len(kept) == 12
    assert {1, 2, 40} <= set(kept)


def test_the_strip_tells_the_story(tmp_path: Path) -> None:
    assert filmstrips(tmp_path, {}, None) == ""
    following = pictures(tmp_path)
    following.begin()
    for step in (10, 20, 30, 40):
        following.add(step, everywhere, valid={10, 20, 30, 40}, best=30)
    html = filmstrips(tmp_path, {10: 0.25, 30: 0.5}, 30)
    assert html.count("<img") == 4 * (2 + 4)
    assert "step <strong>30</strong>, best<br>mIoU 0.500" in html
    (tmp_path / "samples/2-00000010.jpg").unlink()
    assert filmstrips(tmp_path, {}, None).count("<img") == 4 * (2 + 3) - 1


@settings(max_examples=50, deadline=None)
@given(steps=SORTED, most=st.integers(3, 12), data=st.data())
def test_first_last_and_best_always_stay(steps: list[int], most: int, data: st.DataObject) -> None:
    best = data.draw(st.sampled_from(steps))
    kept = most_spread(steps, most, best)
    assert len(kept) == min(len(steps), most)
    assert kept == sorted(set(kept))
    assert {steps[0], steps[-1], best} <= set(kept) <= set(steps)


@settings(max_examples=50, deadline=None)
@given(steps=SORTED)
def test_five_steps_are_told_at_most(steps: list[int]) -> None:
    found = told(steps, steps[len(steps) // 2])
    assert 1 <= len(found) <= 5
    assert {steps[0], steps[-1], steps[len(steps) // 2]} <= set(found) <= set(steps)
    assert told([], None) == []
