"""Objects cut out of training images and pasted into other crops.

After Ghiasi et al. 2021, Simple Copy-Paste (arXiv:2012.07177): objects come with a random flip and
zoom of their own, at a random place, over whatever is there. Edges are hard, because blending
made no difference there, and so image and mask agree in every pixel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
from jaxtyping import Bool, Shaped, UInt

from delineate.config import AugmentationSettings
from delineate.data.dataset import Sample, read_instances
from delineate.data.parallel import ordered_map
from delineate.errors import SettingsError
from delineate.types import Image, InstanceMap, LabelMap

BANK_BYTES = 256 * 2**20  # of objects kept in memory, at most
_STRIP_ROWS = 1024
_ORDER_SEED = 0


@dataclass(frozen=True)
class ObjectCrop:
    """An object in its bounding box.

    Attributes:
        image: (H, W, C), as read.
        shape: (H, W), the pixels of the object.
        class_id: the class that most of them have.
    """

    image: Image
    shape: Bool[np.ndarray, "h w"]
    class_id: int

    @property
    def nbytes(self) -> int:
        return int(self.image.nbytes + self.shape.nbytes)

    @property
    def longest_px(self) -> int:
        return int(max(self.shape.shape))


class ObjectBank:
    """Objects by class, drawn by class first.

    Args:
        objects: of each class that has any.
        shares: of the pixels, by class id; a class is drawn in proportion to the inverse square
            root of its share.
    """

    def __init__(
        self, objects: Mapping[int, Sequence[ObjectCrop]], shares: Sequence[float]
    ) -> None:
        self._objects = [objects[class_id] for class_id in sorted(objects)]
        weights = [1 / math.sqrt(max(shares[class_id], 1e-12)) for class_id in sorted(objects)]
        self._weights = np.array(weights) / sum(weights)

    def __len__(self) -> int:
        return sum(len(objects) for objects in self._objects)

    def draw(self, rng: np.random.Generator) -> ObjectCrop:
        """A class by its weight, then one of its objects, evenly."""
        objects = self._objects[int(rng.choice(len(self._objects), p=self._weights))]
        return objects[int(rng.integers(len(objects)))]


def collect_objects(
    samples: Sequence[Sample],
    read: Callable[[Sample], tuple[Image, LabelMap]],
    *,
    shares: Sequence[float],
    ignore_index: int | None,
    largest_px: int,
    limit_bytes: int = BANK_BYTES,
) -> ObjectBank:
    """Cut the objects out of the samples that have object ids.

    Every class may fill an even part of the memory; samples are read in a fixed random order, so
    that a full part holds objects of all kinds of images. All object ids are read and checked.
    Objects most of whose pixels are ignored, and those larger than ``largest_px``, are left out.

    Args:
        samples: those without object ids are passed over.
        read: gives image and mask of a sample.
        shares: of the pixels, by class id.
        ignore_index: id of pixels that count nowhere, or None.
        largest_px: longest side of an object's bounding box.
        limit_bytes: memory of all objects.

    Raises:
        SettingsError: no sample has object ids, or no object is small enough.
        MaskError: object ids cannot be read or do not fit their image.
    """
    having = [sample for sample in samples if sample.instances is not None]
    if not having:
        raise SettingsError(
            "objects cannot be pasted: no image of train has object ids",
            where="sampling.copy_paste",
            mend="Add train/instances/NAME.png (16-bit grey, 0 for no object), or set it to 0.",
        )
    kept: dict[int, list[ObjectCrop]] = {}
    left = dict.fromkeys(range(len(shares)), limit_bytes // len(shares))
    order = np.random.default_rng(_ORDER_SEED).permutation(len(having))
    cut = partial(_objects_of, read=read, ignore_index=ignore_index, largest_px=largest_px)
    for found in ordered_map(cut, (having[index] for index in order)):
        for one in found:
            if one.nbytes <= left[one.class_id]:
                left[one.class_id] -= one.nbytes
                kept.setdefault(one.class_id, []).append(one)
            else:
                left[one.class_id] = 0  # full: smaller ones must not be all that still comes in
    if not kept:
        raise SettingsError(
            f"objects cannot be pasted: none in train is labelled and at most {largest_px} px long",
            where="sampling.copy_paste",
            mend="Make crop_px larger, or set it to 0.",
        )
    return ObjectBank(kept, shares)


def _objects_of(
    sample: Sample,
    read: Callable[[Sample], tuple[Image, LabelMap]],
    ignore_index: int | None,
    largest_px: int,
) -> list[ObjectCrop]:
    image, mask = read(sample)
    ids = read_instances(sample, (mask.shape[0], mask.shape[1]))
    found: list[ObjectCrop] = []
    if ids is None:
        return found
    for number, box in _boxes(ids):
        shape = ids[box] == number
        if max(shape.shape) > largest_px:
            continue
        class_id = int(np.bincount(mask[box][shape]).argmax())
        if class_id != ignore_index:
            found.append(ObjectCrop(image[box].copy(), shape, class_id))
    return found


def _boxes(ids: InstanceMap) -> Iterator[tuple[int, tuple[slice, slice]]]:
    """Each object id and its bounding box, by strips, so that memory does not grow with area."""
    largest = int(ids.max(initial=0)) + 1
    low = np.full((2, largest), max(ids.shape), np.int64)
    high = np.full((2, largest), -1, np.int64)
    for top in range(0, len(ids), _STRIP_ROWS):
        strip = ids[top : top + _STRIP_ROWS]
        places = np.nonzero(strip)
        numbers = strip[places]
        for axis, place in enumerate(places):
            along = place + top if axis == 0 else place
            np.minimum.at(low[axis], numbers, along)
            np.maximum.at(high[axis], numbers, along)
    for number in np.flatnonzero(high[0] >= 0):
        y, x = (slice(int(low[axis, number]), int(high[axis, number]) + 1) for axis in (0, 1))
        yield int(number), (y, x)


@dataclass(frozen=True)
class CopyPaste:
    """Pastes objects into a crop, sometimes.

    Attributes:
        bank: what is pasted.
        probability: that any are.
        most: objects pasted at most; from 1 on each number is as likely.
        augmentation: zoom and flips of an object are drawn as those of a crop.
    """

    bank: ObjectBank
    probability: float
    most: int
    augmentation: AugmentationSettings

    def __call__(
        self,
        image: Shaped[np.ndarray, "h w c"],
        mask: UInt[np.ndarray, "h w"],
        rng: np.random.Generator,
    ) -> tuple[Shaped[np.ndarray, "h w c"], UInt[np.ndarray, "h w"]]:
        """The crop, or a copy of it with objects.

        Objects lie wholly inside the crop. What they cover takes their pixels and their class,
        ignored pixels too, because what is shown there is then known.

        Args:
            image: (H, W, C) of the dtype and channels of the objects.
            mask: (H, W) class ids.
            rng: the only source of randomness.
        """
        if rng.random() >= self.probability:
            return image, mask
        image, mask = image.copy(), mask.copy()
        for _ in range(int(rng.integers(1, self.most + 1))):
            one = self._changed(self.bank.draw(rng), min(mask.shape), rng)
            if one.class_id > np.iinfo(mask.dtype).max:
                mask = mask.astype(np.uint16)
            height, width = one.shape.shape
            top = int(rng.integers(mask.shape[0] - height + 1))
            left = int(rng.integers(mask.shape[1] - width + 1))
            place = np.s_[top : top + height, left : left + width]
            image[place][one.shape] = one.image[one.shape]
            mask[place][one.shape] = one.class_id
        return image, mask

    def _changed(self, one: ObjectCrop, side: int, rng: np.random.Generator) -> ObjectCrop:
        """Zoomed and flipped; the zoom is drawn on a logarithmic scale, and fits ``side``."""
        settings = self.augmentation
        high = min(max(settings.scale), side / one.longest_px)
        low = min(min(settings.scale), high)
        zoom = low * (high / low) ** rng.random()
        flip_y = rng.random() < settings.vertical_flip
        flip_x = rng.random() < settings.horizontal_flip
        height, width = (min(max(1, round(length * zoom)), side) for length in one.shape.shape)
        image, shape = one.image, one.shape
        if (height, width) != shape.shape:
            size = (width, height)
            image = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
            image = image.reshape(height, width, -1)  # OpenCV drops a single channel
            small = cv2.resize(shape.view(np.uint8), size, interpolation=cv2.INTER_NEAREST_EXACT)
            shape = small.astype(bool)
        step = np.s_[:: -1 if flip_y else 1, :: -1 if flip_x else 1]
        return ObjectCrop(image[step], shape[step], one.class_id)
