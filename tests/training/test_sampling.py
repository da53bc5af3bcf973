"""Which crops come out: balanced over classes, with objects, from seed and index alone."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from delineate.config import AugmentationSettings, Plan
from delineate.data.augment import Augmentation, as_augmentation
from delineate.data.class_index import ClassIndex, count_classes
from delineate.data.dataset import Dataset, Sample, read_pair
from delineate.errors import SettingsError
from delineate.training.sampling import balanced_choice, copy_paste, crop_maker
from delineate.training.stream import SampleStream

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
CLASSES = ("sky", "road", "car")
IGNORE = 255
STILL = AugmentationSettings(
    scale=(0.7, 1.4), rotation=1, rotation_degrees=45, elastic=0, colour=0, blur=0, noise=0
)


class Streets:
    """Twelve images of sky and road; two of them have a car of four pixels."""

    def __init__(self, folder: Path | None = None) -> None:
        self.samples = []
        for number in range(12):
            instances = None
            if folder is not None and number < 6:
                instances = folder / f"{number}.png"
                ids = np.where(self._mask(number) == 2, 9, 0)
                ids[:8, :8] = number  # of sky; none in the first
                cv2.imwrite(str(instances), ids.astype(np.uint16))
            self.samples.append(Sample(str(number), Path(f"{number}.jpg"), None, None, instances))
        counts = {s: count_classes(self.read(s)[1], 3, IGNORE) for s in self.samples}
        self.index = ClassIndex(CLASSES, counts, IGNORE)

    @staticmethod
    def _mask(number: int) -> np.ndarray:
        mask = np.zeros((70, 90), np.uint8)
        mask[40:] = 1
        if number in (2, 5):
            mask[60:62, 3:5] = 2
        return mask

    def read(self, sample: Sample) -> tuple[np.ndarray, np.ndarray]:
        mask = self._mask(int(sample.name))
        return np.repeat(mask[:, :, None] * 50, 3, axis=2), mask

    def stream(self, share: float, **options: object) -> SampleStream:
        augment = Augmentation(STILL, 32, IGNORE)
        maker = crop_maker(self.read, augment, index=self.index, **options)
        choose = balanced_choice(self.index, share)
        return SampleStream(self.samples, maker, 200, seed=3, choose=choose)


def test_balanced_crops_hold_every_class_alike() -> None:
    batch = Streets().stream(1.0).batch(0)
    holding = [set(np.unique(mask)) for mask in batch.masks]
    cars = np.mean([2 in ids for ids in holding])
    assert cars == pytest.approx(1 / 3, abs=0.12)
    for name, ids in zip(batch.names, holding, strict=True):
        assert (2 in ids) <= (name in ("2", "5"))


def test_without_balance_a_rare_class_is_rare() -> None:
    streets = Streets()
    assert balanced_choice(streets.index, 0.0) is None
    batch = streets.stream(0.0).batch(0)
    assert set(Counter(batch.names).values()) == {16, 17}
    assert np.mean([(mask == 2).any() for mask in batch.masks]) < 0.1


def test_a_share_of_the_crops_is_balanced() -> None:
    streets = Streets()
    choose = balanced_choice(streets.index, 0.25)
    assert choose is not None
    rng = np.random.default_rng(0)
    chosen = [choose(streets.samples[0], rng) for _ in range(2000)]
    asked = [one for one in chosen if one.class_id is not None]
    assert len(asked) / 2000 == pytest.approx(0.25, abs=0.04)
    assert {one.sample.name for one in chosen if one.class_id is None} == {"0"}
    for class_id in range(3):
        share = np.mean([one.class_id == class_id for one in asked])
        assert share == pytest.approx(1 / 3, abs=0.08)


def test_the_class_that_was_asked_for_is_shown() -> None:
    streets = Streets()
    maker = crop_maker(streets.read, Augmentation(STILL, 32, IGNORE), index=streets.index)
    for seed in range(200):
        rng = np.random.default_rng(seed)
        sample, class_id = streets.index.draw(rng)
        _, mask = maker(sample, rng, class_id)
        assert (mask == class_id).any()


def test_labels_are_needed_to_balance() -> None:
    with pytest.raises(SettingsError) as caught:
        balanced_choice(ClassIndex(CLASSES, {}), 0.5)
    assert str(caught.value) == (
        "sampling.balanced: crops cannot be balanced: no pixel of train has a class. "
        "Label some images, or set it to 0."
    )


def plan(share: float, **augmentation: object) -> Plan:
    return Plan.model_validate(
        {
            "crop_px": 32,
            "sampling": {"copy_paste": share, "copy_paste_objects": 2},
            "augmentation": STILL.model_dump() | augmentation,
        }
    )


def test_objects_are_pasted_and_image_and_mask_agree(tmp_path: Path) -> None:
    streets = Streets(tmp_path)
    index = streets.index
    paste = copy_paste(plan(1.0, scale=(1.0, 1.0)), streets.samples, streets.read, index, IGNORE)
    assert paste is not None
    assert len(paste.bank) == 7  # two cars and five pieces of sky
    plain, pasted = streets.stream(0.0).batch(0), streets.stream(0.0, paste=paste).batch(0)
    again = streets.stream(0.0, paste=paste).batch(0)
    assert np.array_equal(pasted.images, again.images)
    assert np.array_equal(pasted.masks, again.masks)
    changed = plain.masks != pasted.masks
    assert changed.any(axis=(1, 2)).mean() > 0.7
    assert np.mean([(mask == 2).any() for mask in pasted.masks]) > 0.5
    assert (pasted.images[changed] == 50 * pasted.masks[changed][:, None]).all()


def test_pasted_objects_get_the_light_of_their_crop(tmp_path: Path) -> None:
    streets = Streets(tmp_path)
    dark = {"scale": (1.0, 1.0), "rotation": 0.0, "colour": 1.0, "hue": 0.0, "contrast": 0.0}
    wanted = plan(1.0, **dark)
    paste = copy_paste(wanted, streets.samples, streets.read, streets.index, IGNORE)
    augment = Augmentation(wanted.augmentation, 32, IGNORE)
    maker = crop_maker(streets.read, augment, paste=paste)
    for seed in range(20):
        image, mask = maker(streets.samples[0], np.random.default_rng(seed), None)
        for class_id in np.unique(mask):
            assert len(np.unique(image[mask == class_id])) == 1


def test_nothing_is_collected_where_pasting_is_off() -> None:
    streets = Streets()
    assert copy_paste(plan(0.0), streets.samples, streets.read, streets.index, IGNORE) is None
    with pytest.raises(SettingsError, match="no image of train has object ids"):
        copy_paste(plan(0.1), streets.samples, streets.read, streets.index, IGNORE)


def test_an_augmentation_of_the_users_own_is_cropped_as_it_likes(tmp_path: Path) -> None:
    streets = Streets(tmp_path)
    own = as_augmentation(lambda image, mask: {"image": image[:32, :32], "mask": mask[:32, :32]})
    sample = streets.samples[2]
    _, mask = crop_maker(streets.read, own, index=streets.index)(
        sample, np.random.default_rng(0), 2
    )
    assert not mask.any()  # sky, though a car was asked for
    paste = copy_paste(plan(1.0), streets.samples, streets.read, streets.index, IGNORE)
    maker = crop_maker(streets.read, own, paste=paste)
    found = [maker(sample, np.random.default_rng(seed), None)[1] for seed in range(20)]
    assert any((mask == 2).any() for mask in found)


@pytest.mark.skipif(not (SHARED / "camvid").exists(), reason="needs the shared CamVid")
def test_rare_classes_of_camvid_are_seen_more_often() -> None:
    data = Dataset.open(SHARED / "camvid")
    samples = data.split("train")[::12]
    info = data.info
    masks = {sample: read_pair(sample, info)[1] for sample in samples}
    counts = {s: count_classes(m, len(info.classes), info.ignore_index) for s, m in masks.items()}
    index = ClassIndex(info.classes, counts, info.ignore_index)
    augment = Augmentation(AugmentationSettings(elastic=0), 128, info.ignore_index)
    maker = crop_maker(lambda one: read_pair(one, info), augment, index=index)
    bicyclist = info.classes.index("bicyclist")
    shares = []
    for share in (0.0, 1.0):
        choose = balanced_choice(index, share)
        batch = SampleStream(samples, maker, 60, 0, choose=choose).batch(0)
        shares.append(np.mean([(mask == bicyclist).any() for mask in batch.masks]))
    assert shares[1] > shares[0]
