from __future__ import annotations

from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from delineate.config import AugmentationSettings
from delineate.data.copy_paste import CopyPaste, ObjectBank, ObjectCrop, collect_objects
from delineate.data.dataset import Sample
from delineate.errors import MaskError, SettingsError

IGNORE = 255
SHARES = (0.9, 0.09, 0.01)


def colour_of(class_id: int) -> int:
    return 50 * class_id


def block(class_id: int, height: int, width: int, channels: int = 3) -> ObjectCrop:
    """An object of one colour whose lower right corner is missing."""
    shape = np.ones((height, width), bool)
    shape[height // 2 + 1 :, width // 2 + 1 :] = False
    image = np.full((height, width, channels), colour_of(class_id), np.uint8)
    return ObjectCrop(image, shape, class_id)


def paste(bank: ObjectBank, probability: float = 1.0, most: int = 3, **fields: object) -> CopyPaste:
    augmentation = AugmentationSettings.model_validate({"vertical_flip": 0.5} | fields)
    return CopyPaste(bank, probability, most, augmentation)


@given(
    seed=st.integers(0, 2**32 - 1),
    channels=st.sampled_from([1, 3, 9]),
    sizes=st.lists(st.tuples(st.integers(1, 60), st.integers(1, 60)), min_size=1, max_size=4),
    scale=st.tuples(st.floats(0.2, 3.0), st.floats(0.2, 3.0)),
)
@settings(max_examples=60, deadline=None)
def test_image_and_mask_agree_and_the_rng_is_all_that_counts(
    seed: int, channels: int, sizes: list[tuple[int, int]], scale: tuple[float, float]
) -> None:
    objects = {c: [block(c, h, w, channels) for h, w in sizes] for c in (1, 2)}
    maker = paste(ObjectBank(objects, SHARES), scale=scale)
    image = np.zeros((32, 32, channels), np.uint8)
    mask = np.zeros((32, 32), np.uint8)
    mask[:4] = IGNORE
    first = maker(image, mask, np.random.default_rng(seed))
    again = maker(image, mask, np.random.default_rng(seed))
    for a, b in zip(first, again, strict=True):
        assert np.array_equal(a, b)
    assert not image.any()  # what was given is not written to
    assert (mask[:4] == IGNORE).all()
    pasted, labels = first
    shown = np.where(labels == IGNORE, 0, labels)
    assert np.array_equal(pasted, np.repeat(shown[:, :, None] * 50, channels, axis=2))


def test_nothing_is_pasted_below_the_probability() -> None:
    maker = paste(ObjectBank({1: [block(1, 8, 8)]}, SHARES), probability=0.25)
    image, mask = np.zeros((32, 32, 3), np.uint8), np.zeros((32, 32), np.uint8)
    rng = np.random.default_rng(0)
    changed = [maker(image, mask, rng)[1].any() for _ in range(1000)]
    assert np.mean(changed) == pytest.approx(0.25, abs=0.05)


def test_rare_classes_come_by_the_inverse_square_root_of_their_share() -> None:
    bank = ObjectBank({1: [block(1, 4, 4)] * 50, 2: [block(2, 4, 4)]}, SHARES)
    rng = np.random.default_rng(0)
    drawn = Counter(bank.draw(rng).class_id for _ in range(2000))
    assert drawn[2] / drawn[1] == pytest.approx(3, rel=0.15)


def test_zoom_is_drawn_from_the_range_and_fits_the_crop() -> None:
    maker = paste(ObjectBank({1: [block(1, 10, 20)]}, SHARES), most=1, scale=(0.5, 8.0))
    rng = np.random.default_rng(0)
    widths, heights = [], []
    for _ in range(300):
        _, labels = maker(np.zeros((32, 32, 3), np.uint8), np.zeros((32, 32), np.uint8), rng)
        widths.append(int(labels.any(axis=0).sum()))
        heights.append(int(labels.any(axis=1).sum()))
    assert min(widths) == 10
    assert max(widths) == 32
    assert max(heights) == 16


def test_an_id_that_a_byte_cannot_hold_makes_the_mask_wider() -> None:
    shares = [1 / 301] * 301
    one = block(1, 8, 8)
    maker = paste(ObjectBank({300: [ObjectCrop(one.image, one.shape, 300)]}, shares), most=1)
    image, mask = np.zeros((32, 32, 3), np.uint8), np.zeros((32, 32), np.uint8)
    _, labels = maker(image, mask, np.random.default_rng(0))
    assert labels.dtype == np.uint16
    assert set(np.unique(labels)) == {0, 300}


class Scene:
    """Samples with object ids in files, images and masks in memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pairs: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self.samples: list[Sample] = []

    def add(self, name: str, mask: np.ndarray, ids: np.ndarray | None) -> None:
        file = None if ids is None else self.folder / f"{name}.png"
        if file is not None:
            cv2.imwrite(str(file), ids.astype(np.uint16))
        image = np.repeat(np.where(mask == IGNORE, 0, mask)[:, :, None] * 50, 3, axis=2)
        self.pairs[name] = image.astype(np.uint8), mask
        self.samples.append(Sample(name, Path(f"{name}.jpg"), None, None, file))

    def read(self, sample: Sample) -> tuple[np.ndarray, np.ndarray]:
        return self.pairs[sample.name]

    def bank(self, largest_px: int = 64, **options: int) -> ObjectBank:
        return collect_objects(
            self.samples,
            self.read,
            shares=SHARES,
            ignore_index=IGNORE,
            largest_px=largest_px,
            **options,
        )


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def with_square(y: int, x: int, side: int, class_id: int) -> tuple[np.ndarray, np.ndarray]:
    mask, ids = np.zeros((2000, 40), np.uint8), np.zeros((2000, 40), np.uint16)
    mask[y : y + side, x : x + side] = class_id
    ids[y : y + side, x : x + side] = 7
    return mask, ids


def drawn(bank: ObjectBank) -> list[ObjectCrop]:
    rng = np.random.default_rng(0)
    found = {id(one): one for one in (bank.draw(rng) for _ in range(200))}
    return list(found.values())


def test_objects_are_cut_out_with_the_class_of_most_of_their_pixels(scene: Scene) -> None:
    mask, ids = with_square(1020, 3, 9, 2)  # on two strips
    mask[1020, 3:12] = 1
    ids[1028, 11] = 0
    ids[5, 30] = 65535
    mask[5, 30] = 1
    scene.add("a", mask, ids)
    scene.add("without", mask, None)
    bank = scene.bank()
    assert len(bank) == 2
    large = next(one for one in drawn(bank) if one.class_id == 2)
    assert large.shape.shape == (9, 9)
    assert large.shape.sum() == 80
    assert not large.shape[8, 8]
    assert np.array_equal(large.image, scene.pairs["a"][0][1020:1029, 3:12])
    small = next(one for one in drawn(bank) if one.class_id == 1)
    assert small.shape.shape == (1, 1)


def test_ignored_and_too_large_objects_are_left_out(scene: Scene) -> None:
    for name, (side, class_id) in {"a": (9, IGNORE), "b": (20, 1), "c": (9, 1)}.items():
        scene.add(name, *with_square(0, 0, side, class_id))
    bank = scene.bank(largest_px=19)
    assert [one.shape.shape for one in drawn(bank)] == [(9, 9)]


def test_memory_is_bounded_and_shared_by_the_classes(scene: Scene) -> None:
    for number in range(20):
        scene.add(f"a{number:02}", *with_square(number, 0, 10, 1))  # of 400 bytes
    scene.add("rare", *with_square(0, 0, 10, 2))
    bank = scene.bank(limit_bytes=3 * 1300)
    assert Counter(one.class_id for one in drawn(bank)) == {1: 3, 2: 1}
    again = scene.bank(limit_bytes=3 * 1300)
    for one, other in zip(drawn(bank), drawn(again), strict=True):
        assert np.array_equal(one.image, other.image)


def test_without_object_ids_it_says_what_to_add(scene: Scene) -> None:
    scene.add("a", np.zeros((8, 8), np.uint8), None)
    with pytest.raises(SettingsError) as caught:
        scene.bank()
    assert str(caught.value) == (
        "sampling.copy_paste: objects cannot be pasted: no image of train has object ids. "
        "Add train/instances/NAME.png (16-bit grey, 0 for no object), or set it to 0."
    )


def test_no_usable_object_is_refused(scene: Scene) -> None:
    scene.add("a", *with_square(0, 0, 20, 1))
    with pytest.raises(SettingsError) as caught:
        scene.bank(largest_px=16)
    assert str(caught.value) == (
        "sampling.copy_paste: objects cannot be pasted: none in train is labelled and at most "
        "16 px long. Make crop_px larger, or set it to 0."
    )


def test_object_ids_of_another_size_are_refused(scene: Scene) -> None:
    scene.add("a", np.zeros((8, 8), np.uint8), np.ones((8, 9), np.uint16))
    with pytest.raises(MaskError, match=r"a\.png: is 9 x 8 pixels"):
        scene.bank()
