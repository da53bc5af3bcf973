"""Labels of an image -> pieces: one for each object, and one for the rest of each class."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt32

from delineate.data.dataset import DatasetInfo
from delineate.data.exporting.categories import has_unwritten_background
from delineate.data.exporting.writer import Labelled
from delineate.data.formats.naming import means_background
from delineate.errors import MaskError
from delineate.types import InstanceMap, LabelMap
from delineate.words import plural


@dataclass(frozen=True)
class Piece:
    """Pixels of one class and of one object or none.

    Attributes:
        class_id: the class; the ignore index for pixels that count nowhere.
        instance: the object, 0 for pixels of none.
        ignored: the pixels count nowhere.
        background: the class is the one that is not written.
    """

    class_id: int
    instance: int
    ignored: bool
    background: bool


@dataclass(frozen=True)
class Pieces:
    """The pieces of one image.

    Attributes:
        ids: (H, W) for each pixel the index of its piece in ``members``.
        members: objects by id, then the rest of each class by id; each has a pixel.
        objects_over_ignored: objects that have ignored pixels; those are in the ignored piece.
    """

    ids: UInt32[np.ndarray, "h w"]
    members: tuple[Piece, ...]
    objects_over_ignored: int

    @property
    def objects(self) -> int:
        return sum(piece.instance > 0 for piece in self.members)


def pieces_of(item: Labelled, info: DatasetInfo, format_name: str) -> Pieces:
    """Divide the pixels of one image.

    Args:
        format_name: for messages.

    Raises:
        MaskError: an object has pixels of two classes, or of the background.
    """
    labels = item.labels
    instances = item.instances
    if instances is None:
        instances = np.zeros(labels.shape, np.uint16)
    owned = instances > 0
    over_ignored = 0
    if info.ignore_index is not None:
        ignored = labels == info.ignore_index
        over_ignored = int(np.count_nonzero(np.bincount(instances[owned & ignored])))
        owned &= ~ignored
    class_of = _class_of_each(item, labels, instances * owned, info, format_name)
    top = len(class_of)
    numbers = labels.astype(np.uint32) + np.uint32(top)
    np.copyto(numbers, instances, where=owned)
    present = np.flatnonzero(np.bincount(numbers.ravel()))
    index_of = np.zeros(int(present[-1]) + 1, np.uint32)
    index_of[present] = np.arange(len(present))
    background = has_unwritten_background(info)
    members = []
    for number in present.tolist():
        class_id = int(class_of[number]) if number < top else number - top
        ignored_class = class_id == info.ignore_index
        is_rest = background and class_id == 0 and not ignored_class
        members.append(Piece(class_id, number if number < top else 0, ignored_class, is_rest))
    return Pieces(index_of[numbers], tuple(members), over_ignored)


def _class_of_each(
    item: Labelled,
    labels: LabelMap,
    instances: InstanceMap,
    info: DatasetInfo,
    format_name: str,
) -> UInt32[np.ndarray, " objects"]:
    """The class of each object by id; its length is one more than the largest id."""
    class_of = np.zeros(int(instances.max()) + 1, np.uint32)
    class_of[instances] = labels
    other = (class_of[instances] != labels) & (instances > 0)
    where = item.sample.instances or item.sample.image
    mend = "Correct the object ids, or leave them out with --no-instances."
    if other.any():
        row, column = np.argwhere(other)[0].tolist()
        number = int(instances[row, column])
        names = (info.classes[int(labels[row, column])], info.classes[int(class_of[number])])
        raise MaskError(
            f"gives object {number} pixels of two classes ({names[0]} at row {row}, column "
            f"{column}, and {names[1]}), and in {format_name} an object has one",
            where=where,
            mend=mend,
        )
    for class_id, name in enumerate(info.classes):
        if not means_background(name):
            continue
        lying = instances[(labels == class_id) & (instances > 0)]
        if lying.size:
            raise MaskError(
                f"puts object {int(lying[0])} on pixels of the class {name}, which has no objects "
                f"in {format_name}",
                where=where,
                mend=mend,
            )
    return class_of


def counts_of(pieces: Pieces) -> Counter[str]:
    """What the notes of a format with objects tell."""
    rests = sum(
        not (piece.instance or piece.ignored or piece.background) for piece in pieces.members
    )
    return Counter(objects=pieces.objects, rests=rests, over_ignored=pieces.objects_over_ignored)


def ignored_objects_note(counts: Counter[str]) -> list[str]:
    """That objects lost their ignored pixels, where some did."""
    if not counts["over_ignored"]:
        return []
    several = counts["over_ignored"] > 1
    return [
        f"{plural(counts['over_ignored'], 'object')} {'have' if several else 'has'} ignored "
        f"pixels, which are written as ignored and belong to no object."
    ]
