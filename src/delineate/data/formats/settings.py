"""What is imported, from where, and how."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeAlias

from pydantic import Field

from delineate.config import Fraction, Settings
from delineate.data.palette import Colour
from delineate.errors import SettingsError

LabelFormat: TypeAlias = Literal[
    "auto",
    "class-id",
    "voc",
    "binary",
    "values",
    "rgb",
    "cityscapes",
    "coco",
    "coco-panoptic",
    "labelme",
    "geojson",
    "cvat",
    "label-studio",
    "huggingface",
]

Overlap: TypeAlias = Literal["later", "earlier", "smaller"]
"""Which of two overlapping objects keeps the pixels they share: the one that the file names later
or earlier, or the one of the smaller area (of equal ones the later)."""

Crowd: TypeAlias = Literal["class", "ignore"]

IGNORE_NAMES = frozenset({"__ignore__", "ignore", "ignored", "void", "unlabelled", "unlabeled"})
"""Labels (lower case) that mean the ignore index in formats that name classes."""

DEFAULT_IGNORE = 255
"""The ignore index of formats that name one without a number."""


class ImportSettings(Settings):
    """What is imported, from where, and how it is split."""

    source: Path = Field(
        description="folder, annotation file or archive (.zip, .tar); for folders of masks the "
        "folder of images, or one that holds images and masks, JPEGImages and SegmentationClass, "
        "or train/images and so on"
    )
    out: Path = Field(description="folder to write")
    format: LabelFormat = Field("auto", description="how labels are stored")
    images: Path | None = Field(
        None, description="folder of the images that an annotation file names; its own if left out"
    )
    masks: Path | None = Field(None, description="folder of masks")
    instances: Path | None = Field(
        None, description="folder of instance ids (8 or 16-bit PNG or TIFF, 0 is no object)"
    )
    classes: tuple[str, ...] | Path | None = Field(
        None,
        description="names by id, or a text file with one a line; formats that name their classes "
        "give those that are wanted and their order",
    )
    ignore_index: int | None = Field(
        None, ge=0, le=65535, description="id of pixels that count nowhere; 255 for voc"
    )
    colours: tuple[Colour, ...] | None = Field(
        None, description="colour of each class; in masks of true colour they mean the class"
    )
    values: dict[int, str] | None = Field(
        None, description="class name of each grey value; several values may share a name"
    )
    class_map: str | None = Field(
        None, description="classes renamed or joined: car=vehicle,truck=vehicle,*=background"
    )
    class_property: str | None = Field(
        None, description="property of a GeoJSON feature that names its class"
    )
    overlap: Overlap = Field("later", description="which of two overlapping objects keeps pixels")
    crowd: Crowd = Field(
        "class", description="what COCO's crowds become: pixels of their class, or ignored"
    )
    groups: dict[str, str] | str | None = Field(
        None, description="group of each sample, or a pattern on the file name"
    )
    mask_suffix: str = Field(
        "", description="what follows the image's name in the name of its mask, such as _mask"
    )
    val_fraction: Fraction = Field(0.2, description="share of the samples for val")
    seed: int = Field(0, ge=0, description="another seed, another split")
    drop_unpaired: bool = Field(False, description="leave out images or masks without the other")
    follow_links: bool = Field(False, description="read links that lead out of the source")
    update: bool = Field(False, description="add to the existing folder what is new or changed")
    force: bool = Field(False, description="replace an existing folder")
    workers: int | None = Field(None, ge=1, description="threads; as many as processors")

    def class_names(self) -> tuple[str, ...] | None:
        """The names that the user gave, read from their file where they gave one.

        Raises:
            SettingsError: the file cannot be read.
        """
        if not isinstance(self.classes, Path):
            return self.classes
        try:
            lines = self.classes.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(
                f"cannot be read as a list of class names ({error})",
                where=self.classes,
                mend="Give a text file with one name a line, or the names with commas between.",
            ) from error
        return tuple(line.strip() for line in lines if line.strip())
