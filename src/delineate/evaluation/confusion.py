"""Counts of (true class, predicted class), added up image by image in constant memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt, UInt8

from delineate.errors import MaskError, ModelError, SettingsError
from delineate.types import LabelMap

# A quarter of a megapixel: its 64-bit copy inside np.bincount stays in the processor's cache,
# and the extra memory does not grow with the image.
_CHUNK_PX = 1 << 18
_BYTE = 256


class Confusion:
    """A streaming confusion matrix.

    Pixels whose true class is ``ignore_index`` count nowhere, whether that index is one of the
    classes or lies outside them.

    Attributes:
        classes: class names by id, K of them.
        ignore_index: the id in the truth that is not counted, or None.
        counts: (K, K) int64, pixels; rows are the truth, columns the prediction.
    """

    def __init__(self, classes: Sequence[str], ignore_index: int | None = None) -> None:
        self.classes = tuple(classes)
        self.ignore_index = ignore_index
        self.counts: Int64[np.ndarray, "k k"] = np.zeros((len(classes), len(classes)), np.int64)

    def update(
        self,
        truth: UInt[np.ndarray, "h w"],
        labels: UInt[np.ndarray, "_ _"],
        where: str | Path | None = None,
    ) -> None:
        """Count one image.

        Args:
            truth: (H, W) true class ids or ``ignore_index``, uint8 or wider.
            labels: (H, W) predicted class ids, uint8 or wider.
            where: the image, for the message of an error.

        Raises:
            MaskError: the sizes differ, or the truth holds an id that is no class.
            ModelError: the prediction holds an id that is no class (on any pixel, ignored
                ones too: a network that gives it has other classes than these).
        """
        if truth.shape != labels.shape:
            raise MaskError(
                f"the mask has {truth.shape[1]} x {truth.shape[0]} pixels (width x height) and "
                f"the prediction {labels.shape[1]} x {labels.shape[0]}",
                where=where,
                mend="Both must have the size of the image.",
            )
        # Both ways only read; nothing is counted when an id is wrong.
        if truth.dtype == np.uint8 and labels.dtype == np.uint8:
            self.counts += self._count_bytes(truth, labels, where)
        else:
            self.counts += self._count_any(truth, labels, where)

    def _count_bytes(
        self, truth: UInt8[np.ndarray, "h w"], labels: UInt8[np.ndarray, "h w"], where: object
    ) -> Int64[np.ndarray, "k k"]:
        """One pass over the pixels: every id, ignored or wrong ones too, has a cell in a table
        of 256 x 256, so that what has to be left out or refused is seen there."""
        table = np.zeros(_BYTE * _BYTE, np.int64)
        truth_px, labels_px = truth.ravel(), labels.ravel()
        for start in range(0, truth_px.size, _CHUNK_PX):
            chunk = slice(start, start + _CHUNK_PX)
            code = np.left_shift(truth_px[chunk], 8, dtype=np.uint16)
            code |= labels_px[chunk]
            table += np.bincount(code, minlength=table.size)
        return self._counted_part(table.reshape(_BYTE, _BYTE), where)

    def _counted_part(
        self, table: Int64[np.ndarray, "256 256"], where: object
    ) -> Int64[np.ndarray, "k k"]:
        k = len(self.classes)
        self._check_labels(np.flatnonzero(table[:, k:].any(axis=0)) + k, where)
        if self.ignore_index is not None and self.ignore_index < _BYTE:
            table[self.ignore_index] = 0
        self._check_truth(np.flatnonzero(table[k:].any(axis=1)) + k, where)
        counts = np.zeros_like(self.counts)
        counts[:_BYTE, :_BYTE] = table[:k, :k]
        return counts

    def _count_any(
        self, truth: UInt[np.ndarray, "h w"], labels: UInt[np.ndarray, "h w"], where: object
    ) -> Int64[np.ndarray, "k k"]:
        """The way for more than 256 classes, and for byte maps stored wider."""
        k = len(self.classes)
        self._check_labels(np.unique(labels[labels >= k]), where)
        if self.ignore_index is not None:
            counted = truth != self.ignore_index
            truth, labels = truth[counted], labels[counted]
        self._check_truth(np.unique(truth[truth >= k]), where)
        truth_px, labels_px = truth.ravel(), labels.ravel()
        counts = np.zeros(k * k, np.int64)
        for start in range(0, truth_px.size, _CHUNK_PX):
            chunk = slice(start, start + _CHUNK_PX)
            code = truth_px[chunk].astype(np.int64) * k + labels_px[chunk].astype(np.int64)
            counts += np.bincount(code, minlength=counts.size)
        return counts.reshape(k, k)

    def _check_labels(self, wrong: np.ndarray, where: object) -> None:
        if wrong.size:
            raise ModelError(
                f"the prediction holds class {_ids(wrong)}, and there are {len(self.classes)} "
                f"classes (0 to {len(self.classes) - 1})",
                where=_place(where),
                mend="Evaluate with the classes that the network was trained on.",
            )

    def _check_truth(self, wrong: np.ndarray, where: object) -> None:
        if wrong.size:
            ignored = (
                "there is no ignore_index"
                if self.ignore_index is None
                else f"ignore_index is {self.ignore_index}"
            )
            raise MaskError(
                f"the mask holds id {_ids(wrong)}, which is none of the {len(self.classes)} "
                f"classes (0 to {len(self.classes) - 1}); {ignored}",
                where=_place(where),
                mend=f"Correct the mask, or set ignore_index: {wrong[0]} in dataset.yaml.",
            )

    def merge(self, other: Confusion) -> None:
        """Add the counts of ``other``.

        Raises:
            SettingsError: the two were counted with other classes or another ignore index.
        """
        if (self.classes, self.ignore_index) != (other.classes, other.ignore_index):
            raise SettingsError(
                f"counts of classes {list(self.classes)} (ignore_index {self.ignore_index}) and "
                f"of {list(other.classes)} (ignore_index {other.ignore_index}) cannot be added",
                mend="Evaluate both with the same classes.",
            )
        self.counts += other.counts


def confusion_of(
    truth: LabelMap,
    labels: UInt[np.ndarray, "_ _"],
    classes: Sequence[str],
    ignore_index: int | None = None,
) -> Confusion:
    """The confusion matrix of one image; see :meth:`Confusion.update`."""
    confusion = Confusion(classes, ignore_index)
    confusion.update(truth, labels)
    return confusion


def _ids(wrong: np.ndarray) -> str:
    more = "" if wrong.size <= 5 else f" and {wrong.size - 5} more"
    return ", ".join(str(i) for i in wrong[:5]) + more


def _place(where: object) -> str | None:
    return None if where is None else str(where)
