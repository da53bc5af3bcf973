"""A whole generated dataset on disk: ``delineate data synth``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
from jaxtyping import UInt8
from pydantic import Field

from delineate.config import Fraction, Settings, dump_yaml
from delineate.data.dataset import INFO_FILE, DatasetInfo
from delineate.data.files import atomic_folder, write_bytes, write_text
from delineate.data.masks import write_mask
from delineate.data.palette import default_colours
from delineate.data.png import encode_grey16
from delineate.types import InstanceMap

MOST_IMAGES = 100_000


@dataclass(frozen=True)
class Scene:
    """One generated image and the truth about it.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        labels: (H, W) uint8 class ids; never background alone.
        instances: (H, W) uint16 object ids 1, 2, ..., 0 for no object; None where not asked for.
    """

    image: UInt8[np.ndarray, "h w 3"]
    labels: UInt8[np.ndarray, "h w"]
    instances: InstanceMap | None = None


class SynthSettings(Settings, ABC):
    """What decides the pixels of a generated dataset, whatever it shows."""

    kind: ClassVar[str]
    """What it shows; the name of the command, and of the images before their number."""
    classes: ClassVar[tuple[str, ...]]

    n: int = Field(60, ge=1, le=MOST_IMAGES, description="images, all splits together")
    size: int = Field(256, ge=64, le=4096, description="side of the square images, pixels")
    seed: int = Field(7, ge=0, description="another seed gives other images")
    val_fraction: Fraction = Field(0.25, description="share of the images that go to val")
    instances: bool = Field(False, description="object ids too")

    @property
    def val(self) -> int:
        """Images that go to val: at least one where the share is not 0, and one is left."""
        if self.val_fraction in (0.0, 1.0) or self.n == 1:
            return round(self.n * self.val_fraction)
        return min(max(round(self.n * self.val_fraction), 1), self.n - 1)

    @property
    def info(self) -> DatasetInfo:
        """The ``dataset.yaml``. Every image is a group of its own."""
        return DatasetInfo(
            classes=self.classes,
            colours=default_colours(len(self.classes), self.classes),
            groups=rf"^({self.kind}-\d+)",
        )

    @abstractmethod
    def sample(self, index: int) -> Scene:
        """Image number ``index``, whatever ``n`` is, with object ids if they are asked for."""


def generator(*key: int) -> np.random.Generator:
    """Random numbers that ``key`` decides, the same in every version of NumPy."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))


def synthesise(
    out: Path,
    settings: SynthSettings,
    *,
    force: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write a generated dataset: all of it, or nothing.

    The same settings give the same bytes. The last images are those of val.

    Args:
        out: the folder to make.
        settings: what is generated.
        force: replace ``out`` if it exists.
        on_progress: called with images done and images in all.

    Raises:
        OutputError: ``out`` exists, or cannot be written.
    """
    info = settings.info
    colours = info.colours or ()
    with atomic_folder(out, marker=INFO_FILE, force=force) as part:
        write_text(part / INFO_FILE, dump_yaml(info))
        for index in range(settings.n):
            split = part / ("val" if index >= settings.n - settings.val else "train")
            scene = settings.sample(index)
            name = f"{settings.kind}-{index:05d}.png"
            write_bytes(split / "images" / name, _encoded(scene.image))
            write_mask(split / "masks" / name, scene.labels, colours)
            if scene.instances is not None:
                write_bytes(split / "instances" / name, encode_grey16(scene.instances))
            if on_progress is not None:
                on_progress(index + 1, settings.n)


def _encoded(image: UInt8[np.ndarray, "h w 3"]) -> bytes:
    # Level 1: the noise hardly shrinks further, and higher levels take longer than rendering
    settings = [cv2.IMWRITE_PNG_COMPRESSION, 1]
    _, data = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), settings)
    return bytes(data)
