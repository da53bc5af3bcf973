"""Decoded samples kept in memory, so that later epochs need not decode them again."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from delineate.data.dataset import Sample
from delineate.engines.scaling import image_scaling
from delineate.types import Image, LabelMap, Scaling

SHARE_OF_MEMORY = 0.25  # of the memory that there is, at most, holds decoded samples
_ROOT = Path("/")


class SampleCache:
    """A reader that remembers samples until it is full; later ones are read every time.

    Arrays that were handed out must not be written to. Threads may read at the same time.

    Args:
        read: gives image and mask of a sample.
        limit_bytes: decoded bytes kept at most; a quarter of the memory when left out.
    """

    def __init__(
        self, read: Callable[[Sample], tuple[Image, LabelMap]], limit_bytes: int | None = None
    ) -> None:
        self._read = read
        self._left = int(memory_bytes() * SHARE_OF_MEMORY) if limit_bytes is None else limit_bytes
        self._kept: dict[Sample, tuple[Image, LabelMap]] = {}
        self._lock = threading.Lock()

    def __call__(self, sample: Sample) -> tuple[Image, LabelMap]:
        if sample in self._kept:
            return self._kept[sample]
        image, mask = self._read(sample)
        size = image.nbytes + mask.nbytes
        with self._lock:
            if size <= self._left and sample not in self._kept:
                self._left -= size
                image.flags.writeable = mask.flags.writeable = False
                self._kept[sample] = image, mask
        return image, mask


class ScalingCache:
    """Scale and offset of each sample's whole image, found once.

    Args:
        read: gives image and mask of a sample.
    """

    def __init__(self, read: Callable[[Sample], tuple[Image, LabelMap]]) -> None:
        self._read = read
        self._kept: dict[Sample, Scaling] = {}

    def __call__(self, sample: Sample) -> Scaling:
        if sample not in self._kept:  # by two threads at once at worst, with one result
            self._kept[sample] = image_scaling(self._read(sample)[0])
        return self._kept[sample]


def memory_bytes(root: Path = _ROOT) -> int:
    """The memory that this process may use: the machine's, or less where a cgroup says so.

    Args:
        root: of the file system in which ``proc`` and ``sys`` are.
    """
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for file in _limit_files(root):
        try:
            limits.append(int(file.read_text()))
        except (OSError, ValueError):  # absent, or "max"
            continue
    return min(limits)


def _limit_files(root: Path) -> Iterator[Path]:
    """Where the kernel keeps the limits (cgroups version 2 and 1) of this process's groups.

    A container often sees its own group as the root whatever ``/proc/self/cgroup`` says, so each
    group above counts too.
    """
    mount = root / "sys/fs/cgroup"
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if not controllers:
            base, name = mount, "memory.max"
        elif "memory" in controllers.split(","):
            base, name = mount / "memory", "memory.limit_in_bytes"
        else:
            continue
        parts = [part for part in group.split("/") if part not in ("", "..")]
        for depth in range(len(parts) + 1):
            yield base.joinpath(*parts[:depth], name)
