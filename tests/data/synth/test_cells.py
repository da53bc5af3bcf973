"""Generated cells: touching ones are told apart, each is one piece, and the mask fits the light."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from jaxtyping import UInt8

from delineate.data.synth import CellsSettings, Scene
from delineate.data.synth.microscope import CellField, photograph_cells


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    chosen = CellsSettings(seed=7, instances=True)
    return [chosen.sample(index) for index in range(24)]


def objects(scene: Scene) -> np.ndarray:
    assert scene.instances is not None
    return scene.instances


def contrast(scene: Scene) -> float:
    """How much brighter cells are than the rest, grey values."""
    grey = scene.image.astype(float).max(2)
    return float(grey[scene.labels > 0].mean() - grey[scene.labels == 0].mean())


def test_each_cell_is_one_piece(scenes: list[Scene]) -> None:
    for scene in scenes:
        ids = objects(scene)
        for number in range(1, int(ids.max()) + 1):
            count, _ = cv2.connectedComponents((ids == number).astype(np.uint8), connectivity=4)
            assert count == 2


def test_clusters_touch_and_are_told_apart(scenes: list[Scene]) -> None:
    touching = [s for s in scenes if cv2.connectedComponents(s.labels)[0] - 1 < objects(s).max()]
    assert len(touching) > len(scenes) / 2


def test_sizes_and_numbers_vary(scenes: list[Scene]) -> None:
    counts = [int(objects(scene).max()) for scene in scenes]
    sizes = [np.median(np.bincount(objects(scene).ravel())[1:]) for scene in scenes]
    assert max(counts) > 5 * min(counts)
    assert max(sizes) > 5 * min(sizes)
    assert min(sizes) > 60
    shares = [float(scene.labels.mean()) for scene in scenes]
    assert 0.02 < min(shares) < max(shares) < 0.6


def test_most_shine_on_a_dark_ground_and_some_are_dark_on_a_pale_one(scenes: list[Scene]) -> None:
    shining = [scene for scene in scenes if contrast(scene) > 0]
    assert 0.5 < len(shining) / len(scenes) < 0.95
    for scene in scenes:
        ground = float(np.median(scene.image[scene.labels == 0]))
        assert ground < 60 if contrast(scene) > 0 else ground > 120
        assert abs(contrast(scene)) > 8


def test_the_light_ends_where_the_mask_does(scenes: list[Scene]) -> None:
    # Of sharp pictures: half way across the outline the light is half way too
    for scene in scenes:
        near = cv2.dilate(scene.labels, np.ones((3, 3), np.uint8)) - scene.labels
        far = 1 - cv2.dilate(scene.labels, np.ones((25, 25), np.uint8))
        inner = cv2.erode(scene.labels, np.ones((5, 5), np.uint8))
        if not far.sum() or not inner.sum():
            continue
        grey = scene.image.astype(float).max(2) * np.sign(contrast(scene))
        beside, outside, inside = (grey[part > 0].mean() for part in (near, far, inner))
        assert (beside - outside) / (inside - outside) < 0.6


def test_specks_lie_away_from_cells_too() -> None:
    ids = np.zeros((256, 256), np.uint16)
    ids[118:138, 118:138] = 1
    field = CellField(ids, 10.0, np.array([1.0, 10.0]))
    with_specks = 0
    for seed in range(12):
        grey = photograph_cells(np.random.default_rng(seed), field).max(2).astype(np.float32)
        rough = np.abs(grey - cv2.GaussianBlur(grey, (0, 0), 6))
        rough[90:166, 90:166] = 0
        with_specks += bool(rough.max() > 12 * rough.mean())
    assert with_specks >= 3


def test_noise_is_in_every_picture(scenes: list[Scene]) -> None:
    def steps(image: UInt8[np.ndarray, "h w 3"]) -> float:
        return float(np.abs(np.diff(image.max(2).astype(float), axis=1)).mean())

    assert all(steps(scene.image) > 0.2 for scene in scenes)


def test_a_large_field_has_more_cells_of_the_same_size() -> None:
    small, large = (CellsSettings(size=side, seed=3, instances=True) for side in (128, 512))
    cells = objects(large.sample(0))
    assert int(cells.max()) > 4 * int(objects(small.sample(0)).max())
