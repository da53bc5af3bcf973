"""What every label format gives: items, listed cheaply; the labels of one, read when asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from delineate.data.dataset import ONLY_SPLIT, DatasetInfo
from delineate.data.palette import Colour
from delineate.types import InstanceMap, LabelMap


@dataclass(frozen=True)
class Labels:
    """The labels of one image.

    Attributes:
        classes: (H, W) ids as in :class:`DatasetInfo`, the ignore index among them.
        instances: (H, W) object ids from 1, 0 for no object; None where the format has none.
        hidden: objects of which no pixel is left: outside, too small, or wholly covered.
    """

    classes: LabelMap
    instances: InstanceMap | None = None
    hidden: int = 0


@dataclass(frozen=True)
class Item:
    """One image of a source; nothing but names has been read.

    Attributes:
        name: of the sample it becomes; no two of one split share it.
        file_name: of the image file it becomes: ``name`` and a suffix.
        where: the file, and the place in it, for messages about this item.
        image: the image file; None where the source holds the bytes itself.
        split: ``all`` where the source has no splits.
        labelled: False for an image of a test split without labels.
        key: what the source finds the labels by; nobody else looks at it.
    """

    name: str
    file_name: str
    where: str
    image: Path | None
    split: str = ONLY_SPLIT
    labelled: bool = True
    key: Any = None


@dataclass(frozen=True)
class Proposal:
    """What a source says of itself; the user's settings come first.

    Attributes:
        classes: names by id, or None where only the user knows.
        ignore_index: the id the source uses for pixels that count nowhere.
        groups: group of each sample by name.
        notes: what a user should know: conventions chosen, things that are not labels.
        dropped: files left out, because the user asked for it, as they lack their other half.
    """

    classes: tuple[str, ...] | None = None
    ignore_index: int | None = None
    colours: tuple[Colour, ...] | None = None
    pixel_size_um: float | None = None
    groups: dict[str, str] | str | None = None
    notes: tuple[str, ...] = ()
    dropped: tuple[Path, ...] = ()


@runtime_checkable
class Source(Protocol):
    """Labelled images in somebody's format.

    Opening it lists the items and reads no pixels. The methods are called from several threads
    at once and keep nothing of what they return.
    """

    @property
    def items(self) -> Sequence[Item]: ...

    @property
    def proposal(self) -> Proposal: ...

    def image_bytes(self, item: Item) -> bytes:
        """The image file's bytes, as they will be written.

        Raises:
            ImageError: it is not there or cannot be read.
        """
        ...

    def labels(self, item: Item, hw: tuple[int, int], info: DatasetInfo) -> Labels:
        """The labels of ``item``, whose image has the height and width ``hw``.

        Args:
            info: names by id and the ignore index as the user wants them, before any class map.

        Raises:
            MaskError: they cannot be read, do not fit ``hw`` or name unknown classes.
        """
        ...

    def evidence(self, item: Item) -> bytes:
        """Bytes that differ whenever the labels of ``item`` do: the mask file, its annotations."""
        ...
