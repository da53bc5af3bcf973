"""A whole generated dataset on disk: ``delineate data synth tissue``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from pydantic import Field, ValidationError

from delineate.config import Fraction, Settings, describe, dump_yaml
from delineate.data.dataset import INFO_FILE, DatasetInfo
from delineate.data.files import atomic_folder, write_bytes, write_text
from delineate.data.masks import write_mask
from delineate.data.tissue.appearance import HELD_OUT, TRAINED
from delineate.data.tissue.scene import LARGEST_PX, SMALLEST_PX, render_tissue
from delineate.errors import SettingsError
from delineate.types import Image, LabelMap

CLASSES = ("background", "stroma", "gland", "tumour")
COLOURS = ((0, 0, 0), (240, 228, 66), (0, 114, 178), (213, 94, 0))  # Okabe and Ito
PIXEL_SIZE_UM = 0.5


class TissueSettings(Settings):
    """What decides the pixels of a generated dataset."""

    n: int = Field(60, ge=1, le=100_000, description="images, all splits together")
    size: int = Field(
        512, ge=SMALLEST_PX, le=LARGEST_PX, description="side of the square images, pixels"
    )
    seed: int = Field(7, ge=0, description="another seed gives other scenes and appearances")
    val_fraction: Fraction = Field(0.25, description="share of the images that go to val")
    held_out: bool = Field(
        False, description="stain and scanner from ranges that no other dataset is drawn from"
    )

    @property
    def val(self) -> int:
        """Images that go to val: at least one where the share is not 0, and one is left."""
        if self.val_fraction in (0.0, 1.0) or self.n == 1:
            return round(self.n * self.val_fraction)
        return min(max(round(self.n * self.val_fraction), 1), self.n - 1)

    def sample(self, index: int) -> tuple[Image, LabelMap]:
        """Image (H, W, 3) uint8 RGB and mask (H, W) uint8 number ``index``, whatever ``n`` is."""
        key = np.random.SeedSequence((self.seed, index, int(self.held_out)))
        rng = np.random.Generator(np.random.PCG64(key))
        appearance = (HELD_OUT if self.held_out else TRAINED).draw(rng)
        return render_tissue(int(rng.integers(2**62)), self.size, self.size, appearance)


def synthesise(
    out: Path,
    *,
    n: int = 60,
    size: int = 512,
    seed: int = 7,
    val_fraction: float = 0.25,
    held_out: bool = False,
    force: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write a dataset of generated tissue: all of it, or nothing.

    The same arguments give the same bytes. Every image is a slide of its own, so that no group
    is on both sides of the split.

    Args:
        out: the folder to make.
        n: images, train and val together.
        size: side of the square images, pixels.
        seed: another seed gives other scenes, stains and scanners.
        val_fraction: share of the images that go to val; 1 for a dataset to test on.
        held_out: draw stain and scanner from :data:`HELD_OUT`, which shares no value with what
            other datasets are drawn from, and other scenes than without it.
        force: replace ``out`` if it exists.
        on_progress: called with images done and images in all.

    Raises:
        SettingsError: a number is out of range.
        OutputError: ``out`` exists, or cannot be written.
    """
    try:
        settings = TissueSettings(
            n=n, size=size, seed=seed, val_fraction=val_fraction, held_out=held_out
        )
    except ValidationError as error:
        raise SettingsError(describe(error), where="synth tissue") from error
    info = DatasetInfo(
        classes=CLASSES, colours=COLOURS, pixel_size_um=PIXEL_SIZE_UM, groups=r"^(tissue-\d+)"
    )
    with atomic_folder(out, force=force) as part:
        write_text(part / INFO_FILE, dump_yaml(info))
        for index in range(n):
            split = part / ("val" if index >= n - settings.val else "train")
            image, labels = settings.sample(index)
            name = f"tissue-{index:05d}.png"
            write_bytes(split / "images" / name, _encoded(image))
            write_mask(split / "masks" / name, labels, COLOURS)
            if on_progress is not None:
                on_progress(index + 1, n)


def _encoded(image: Image) -> bytes:
    # Level 1: the noise hardly shrinks further, and higher levels take longer than rendering
    settings = [cv2.IMWRITE_PNG_COMPRESSION, 1]
    _, data = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), settings)
    return bytes(data)
