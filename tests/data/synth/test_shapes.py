"""Generated shapes: what their names say, in front of each other, with open rings and thin bars."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from delineate.data.synth import Scene, ShapesSettings
from delineate.data.synth.shapes import BAR, CIRCLE, CLASSES, RING, SQUARE, TRIANGLE


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    chosen = ShapesSettings(seed=7, instances=True)
    return [chosen.sample(index) for index in range(40)]


def lonely(scenes: list[Scene], kind: int) -> list[np.ndarray]:
    """The masks of whole objects of one class: on background alone and off the edge."""
    found = []
    for scene in scenes:
        assert scene.instances is not None
        for number in np.unique(scene.instances[scene.labels == kind]):
            mask = (scene.instances == number).astype(np.uint8)
            box = cv2.boundingRect(mask)
            x, y, width, height = box
            ids = scene.instances[max(y - 1, 0) : y + height + 1, max(x - 1, 0) : x + width + 1]
            inside = min(x, y) > 0 and x + width < 128 and y + height < 128
            if inside and set(np.unique(ids)) == {0, number}:
                found.append(mask[y : y + height, x : x + width])
    assert len(found) > 3
    return found


def test_every_class_is_drawn(scenes: list[Scene]) -> None:
    labels = np.stack([scene.labels for scene in scenes])
    assert (np.bincount(labels.ravel(), minlength=len(CLASSES)) > 300).all()
    for scene in scenes:
        assert len(np.unique(scene.labels)) >= 4


@pytest.mark.parametrize(
    ("kind", "low", "high"),
    # the share of the smallest circle around it: 1, 2 / pi = 0.64, 3 sqrt(3) / (4 pi) = 0.41
    [(CIRCLE, 0.95, 1.1), (SQUARE, 0.6, 0.75), (TRIANGLE, 0.39, 0.52)],
)
def test_areas_are_those_of_the_shape(
    scenes: list[Scene], kind: int, low: float, high: float
) -> None:
    for mask in lonely(scenes, kind):
        _, radius = cv2.minEnclosingCircle(cv2.findNonZero(mask))
        assert low < mask.sum() / (np.pi * radius**2) < high


@pytest.mark.parametrize("size", [32, 128])
def test_rings_are_open(size: int) -> None:
    chosen = ShapesSettings(size=size, seed=1, instances=True)
    holes = 0
    for index in range(40):
        scene = chosen.sample(index)
        assert scene.instances is not None
        for number in np.unique(scene.instances[scene.labels == RING]):
            mask = np.pad(scene.instances == number, 1).astype(np.uint8)
            holes += cv2.connectedComponents(1 - mask, connectivity=4)[0] > 2
    assert holes > 5


def test_some_bars_are_one_pixel_wide(scenes: list[Scene]) -> None:
    thin = 0
    for scene in scenes:
        assert scene.instances is not None
        for number in np.unique(scene.instances[scene.labels == BAR]):
            mask = (scene.instances == number).astype(np.uint8)
            _, _, width, height = cv2.boundingRect(mask)
            thin += int(mask.sum()) == max(width, height) > 20
    assert thin > 3
    assert any(mask.sum() > 4 * max(mask.shape) for mask in lonely(scenes, BAR))


def test_larger_ids_lie_in_front(scenes: list[Scene]) -> None:
    covered = 0
    for scene in scenes:
        assert scene.instances is not None
        for number in np.unique(scene.instances[scene.labels == CIRCLE]):
            mask = (scene.instances == number).astype(np.uint8)
            points = cv2.findNonZero(mask)
            hull = cv2.fillConvexPoly(np.zeros_like(mask), cv2.convexHull(points), 1)
            inside = scene.instances[(hull > 0) & (mask == 0)]
            # A covered circle is bitten into by what lies in front of it, and by nothing behind
            behind = inside[inside < number]
            covered += bool((inside > number).sum() > 20)
            assert behind.size <= 0.05 * mask.sum() or (inside > number).any()
    assert covered > 3


def test_an_object_has_one_colour_that_differs_from_the_ground(scenes: list[Scene]) -> None:
    for scene in scenes[:10]:
        assert scene.instances is not None
        ground = np.median(scene.image[scene.instances == 0], axis=0)
        for number in range(1, int(scene.instances.max()) + 1):
            pixels = scene.image[scene.instances == number].astype(float)
            if len(pixels) < 20:
                continue
            assert np.linalg.norm(np.median(pixels, axis=0) - ground) > 50
            assert pixels.std(axis=0).max() < 16


def test_hidden_objects_have_no_id(scenes: list[Scene]) -> None:
    for scene in scenes:
        assert scene.instances is not None
        ids = np.unique(scene.instances)
        assert ids.tolist() == list(range(len(ids)))
