"""Objects -> label map and instance map, painted one over the other."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int64

from delineate.data.dataset import DatasetInfo
from delineate.data.formats.naming import fill_id, no_background
from delineate.data.formats.source import Labels
from delineate.errors import MaskError

LARGEST_INSTANCE = 65535
_UNCOVERED = 65535  # where there is neither a background nor an ignore index


class Canvas:
    """A label map and an instance map on which objects are painted; later ones cover earlier.

    Args:
        hw: height and width in pixels.
        info: what no object covers becomes the background, or else the ignore index.
        where: names the image in messages.
    """

    def __init__(self, hw: tuple[int, int], info: DatasetInfo, where: str) -> None:
        height, width = hw
        self._info, self._where = info, where
        self._fill = fill_id(info)
        largest = max(len(info.classes) - 1, info.ignore_index or 0)
        self._dtype = np.dtype(np.uint8 if largest < 256 else np.uint16)
        # columns first, as COCO's runs go; everything else sees the transposed view
        self._classes = (
            np.full((width, height), _UNCOVERED, np.uint16)
            if self._fill is None
            else np.full((width, height), self._fill, self._dtype)
        )
        self._instances = np.zeros((width, height), np.uint16)
        self._objects = 0

    def new_instance(self) -> int:
        """The id of one more object, from 1.

        Raises:
            MaskError: there are more than an instance map can hold.
        """
        if self._objects == LARGEST_INSTANCE:
            raise MaskError(
                f"has more than {LARGEST_INSTANCE} objects, the most that 16 bits can number",
                where=self._where,
                mend="Cut the image into parts, or join objects.",
            )
        self._objects += 1
        return self._objects

    def paint(
        self,
        mask: Bool[np.ndarray, "mask_h mask_w"],
        class_id: int,
        *,
        instance: int = 0,
        top_left: tuple[int, int] = (0, 0),
    ) -> None:
        """Give the pixels of ``mask`` to a class and, unless 0, to an object.

        Args:
            mask: the part of the image that begins at ``top_left``; what lies outside is cut off.
            instance: from :meth:`new_instance`; 0 for pixels of no single object.
        """
        top, left = top_left
        width, height = self._classes.shape
        first_row, first_column = max(0, -top), max(0, -left)
        mask = mask[first_row : height - top, first_column : width - left]
        rows = slice(top + first_row, top + first_row + mask.shape[0])
        columns = slice(left + first_column, left + first_column + mask.shape[1])
        self._classes.T[rows, columns][mask] = class_id
        self._instances.T[rows, columns][mask] = instance

    def paint_pixels(
        self,
        pixels: Int64[np.ndarray, " p"],
        class_ids: int | Int64[np.ndarray, " p"],
        instances: int | Int64[np.ndarray, " p"],
    ) -> None:
        """Give single pixels, counted down the columns; of repeated ones the last counts."""
        self._classes.reshape(-1)[pixels] = class_ids
        self._instances.reshape(-1)[pixels] = instances

    def labels(self) -> Labels:
        """What was painted; the instance map is left out when no object was.

        Raises:
            MaskError: no object covers some pixels, and there is nothing that they could be.
        """
        if self._fill is None and (self._classes == _UNCOVERED).any():
            raise no_background(self._info, self._where)
        instances = np.ascontiguousarray(self._instances.T) if self._objects else None
        classes = np.ascontiguousarray(self._classes.T.astype(self._dtype, copy=False))
        hidden = self._objects - len(np.unique(self._instances[self._instances > 0]))
        return Labels(classes, instances, hidden)
