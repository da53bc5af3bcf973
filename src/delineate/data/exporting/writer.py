"""What the pipeline asks of a format."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from delineate.data.dataset import ONLY_SPLIT, Sample
from delineate.types import InstanceMap, LabelMap


@dataclass(frozen=True)
class Labelled:
    """One sample with its labels read and checked.

    Attributes:
        labels: (H, W) class ids, the ignore index among them.
        instances: (H, W) object ids, 0 for none; None where the export has no objects at all.
    """

    sample: Sample
    split: str
    labels: LabelMap
    instances: InstanceMap | None


@dataclass(frozen=True)
class Written:
    """What became of one sample.

    Attributes:
        record: what :meth:`Writer.collect` needs; empty for formats without a common file.
        counts: how often something happened that the report tells, by a key of the format;
            ``objects`` are the object ids written.
    """

    record: Any = None
    counts: Counter[str] = field(default_factory=Counter)


@runtime_checkable
class Writer(Protocol):
    """One format. It is made for one export and writes below the folder it was given."""

    def image_folder(self, split: str) -> Path:
        """Where the images of ``split`` go."""
        ...

    def write(self, item: Labelled) -> Written:
        """Write the files of one sample. Called from several threads at once.

        Raises:
            MaskError: the format cannot hold these labels.
        """
        ...

    def collect(self, sample: Sample, split: str, hw: tuple[int, int], record: Any) -> None:
        """Take the record of one sample, None without labels. Called in order, by one thread."""
        ...

    def close(self) -> None:
        """Write what is common to all samples."""
        ...

    def notes(self, counts: Counter[str]) -> list[str]:
        """What the reader of the export should know, given the sums of all counts."""
        ...


def split_folder(folder: Path, split: str) -> Path:
    """The folder of ``split``: below ``folder``, or ``folder`` itself for the only one."""
    return folder if split == ONLY_SPLIT else folder / split
