"""Which crops training sees: balanced over classes, with pasted objects."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from delineate.config import Plan
from delineate.data.augment import Augmentation, SampleAugmentation
from delineate.data.class_index import ClassIndex
from delineate.data.copy_paste import CopyPaste, collect_objects
from delineate.data.dataset import Sample
from delineate.errors import SettingsError
from delineate.evaluation.evaluate import Read
from delineate.training.stream import Choice, Choose, Crop, MakeCrop


def crop_maker(
    read: Read,
    augmentation: SampleAugmentation,
    *,
    index: ClassIndex | None = None,
    paste: CopyPaste | None = None,
) -> MakeCrop:
    """Reading, augmentation and pasting in one: sample in, crop out.

    Pasted objects get the light of the crop they are pasted into. With an augmentation of the
    user's own they are pasted after it, and a crop need not hold the class that was asked for:
    then balance is over samples alone.

    Args:
        read: gives image and mask of a sample.
        augmentation: ours or a user's.
        index: finds pixels of a class; without it no crop is laid around one.
        paste: pastes objects, if any are wanted.
    """

    def make(sample: Sample, rng: np.random.Generator, class_id: int | None) -> Crop:
        image, mask = read(sample)
        if not isinstance(augmentation, Augmentation):
            found = augmentation(image=image, mask=mask, rng=rng)
            crop = found["image"], found["mask"]
            return crop if paste is None else paste(*crop, rng)
        anchor = None
        if index is not None and class_id is not None:
            anchor = index.pixel(sample, mask, class_id, rng)
        crop = augmentation.move(image, mask, rng, anchor)
        if paste is not None:
            crop = paste(*crop, rng)
        return augmentation.relight(crop[0], rng), crop[1]

    return make


def balanced_choice(index: ClassIndex, share: float) -> Choose | None:
    """Classes evenly, for a share of the crops (``sampling.balanced``); None where it is 0.

    A relative of nnU-Net's oversampling of foreground (Isensee et al. 2021): a class is drawn
    evenly from those that train has, then a sample that holds it; :func:`crop_maker` draws the
    pixel. The other crops are of the sample whose turn it is.

    Raises:
        SettingsError: train has no labelled pixel.
    """
    if share == 0:
        return None
    if not index.present:
        raise SettingsError(
            "crops cannot be balanced: no pixel of train has a class",
            where="sampling.balanced",
            mend="Label some images, or set it to 0.",
        )

    def choose(turn: Sample, rng: np.random.Generator) -> Choice:
        return Choice(*index.draw(rng)) if rng.random() < share else Choice(turn)

    return choose


def copy_paste(
    plan: Plan, train: Sequence[Sample], read: Read, index: ClassIndex, ignore_index: int | None
) -> CopyPaste | None:
    """Pasting as the plan has it, with objects of ``train``; None where it is off.

    Raises:
        SettingsError: no sample has object ids, or no object fits into a crop.
        MaskError: object ids cannot be read or do not fit their image.
    """
    settings = plan.sampling
    if settings.copy_paste == 0:
        return None
    bank = collect_objects(
        train,
        read,
        shares=index.shares,
        ignore_index=ignore_index,
        largest_px=int(plan.crop_px / min(plan.augmentation.scale)),
    )
    return CopyPaste(bank, settings.copy_paste, settings.copy_paste_objects, plan.augmentation)
