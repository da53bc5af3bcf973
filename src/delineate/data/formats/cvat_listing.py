"""CVAT for images 1.1: where in the file its images are, found in one pass."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from xml.parsers import expat

from delineate.data.images import unreadable
from delineate.errors import DatasetError

AREAS = frozenset({"polygon", "box", "ellipse", "mask"})
"""Shapes that have an area."""

_NO_AREAS = frozenset({"polyline", "points", "cuboid", "skeleton", "tag"})
_PIECE_BYTES = 1 << 20


class Place(NamedTuple):
    """One image of the file: its element lies between two bytes."""

    name: str
    subset: str
    first: int
    end: int


@dataclass
class CvatListing:
    """What one pass over the file finds; no shape is kept.

    Attributes:
        xml: the file.
        places: its images.
        labels: names in the order of the file: those of the task, then others in use.
        without_area: number of shapes of each kind that covers no pixels.
        empty: number of images without a shape that has an area.
    """

    xml: Path
    places: list[Place] = field(default_factory=list)
    labels: dict[str, None] = field(default_factory=dict)
    without_area: Counter[str] = field(default_factory=Counter)
    empty: int = 0
    _path: list[str] = field(default_factory=list)
    _text: list[str] = field(default_factory=list)
    _open: tuple[str, str, int] | None = None
    _shapes: int = 0

    def read(self) -> None:
        """Fill the fields.

        Raises:
            DatasetError: the XML is damaged, is another tool's or CVAT's for video, declares
                entities, or has shapes that are not known or have no label.
            ImageError: the file cannot be read.
        """
        # expat itself, as ElementTree keeps no byte offsets; UTF-8 because that is what the
        # offsets and CVAT count in
        parser = expat.ParserCreate("utf-8")
        parser.EntityDeclHandler = self._refuse_entity
        parser.StartElementHandler = lambda tag, attributes: self._start(
            tag, attributes, parser.CurrentByteIndex
        )
        parser.EndElementHandler = lambda _tag: self._end(parser.CurrentByteIndex)
        parser.CharacterDataHandler = self._text.append
        try:
            with self.xml.open("rb") as file:
                while piece := file.read(_PIECE_BYTES):
                    parser.Parse(piece, False)
                parser.Parse(b"", True)
        except expat.ExpatError as error:
            raise DatasetError(
                f"is damaged XML ({error})",
                where=self.xml,
                mend="Export it again, as CVAT for images 1.1 in UTF-8.",
            ) from error
        except OSError as error:
            raise unreadable(error, str(self.xml)) from error

    def _refuse_entity(self, *declaration: object) -> None:
        raise DatasetError(
            f"declares the entity {declaration[0]!r}, which CVAT never writes",
            where=self.xml,
            mend="Export it again, as CVAT for images 1.1.",
        )

    def _start(self, tag: str, attributes: dict[str, str], at: int) -> None:
        self._close_image(at)
        self._text.clear()
        depth = len(self._path)
        if depth == 0 and tag != "annotations":
            raise DatasetError(
                f"is XML of <{tag}>, and CVAT's is of <annotations>",
                where=self.xml,
                mend="Export it again, as CVAT for images 1.1.",
            )
        if depth == 1 and tag == "track":
            raise DatasetError(
                "was exported as CVAT for video (it has a <track>)",
                where=self.xml,
                mend="Export the task as CVAT for images 1.1, which has every frame by itself.",
            )
        if depth == 1 and tag == "image":
            name = attributes.get("name", "")
            if not name:
                raise DatasetError(
                    f"image {len(self.places) + 1} has no name",
                    where=self.xml,
                    mend="Export it again, as CVAT for images 1.1.",
                )
            self._open = (name, attributes.get("subset", ""), at)
            self._shapes = 0
        if depth == 2 and self._path[1] == "image":
            self._count(tag, attributes)
        self._path.append(tag)

    def _count(self, tag: str, attributes: dict[str, str]) -> None:
        if tag in AREAS:
            if not attributes.get("label", "").strip():
                raise DatasetError(
                    f"has a <{tag}> without a label in the image {self._image_name()!r}",
                    where=self.xml,
                    mend="Give it one in CVAT, or delete it.",
                )
            self.labels.setdefault(attributes["label"])
            self._shapes += 1
        elif tag in _NO_AREAS:
            self.without_area[tag] += 1
        else:
            raise DatasetError(
                f"has a shape <{tag}> in the image {self._image_name()!r}, which "
                "is none that CVAT for images 1.1 has",
                where=self.xml,
                mend="Delete those shapes in CVAT, or draw them as polygons.",
            )

    def _image_name(self) -> str:
        return self._open[0] if self._open else ""

    def _end(self, at: int) -> None:
        if self._path[-2:] == ["label", "name"] and self._path[1] == "meta":
            self.labels.setdefault("".join(self._text).strip())
        self._close_image(at)
        self._path.pop()

    def _close_image(self, at: int) -> None:
        """What follows an image ends it: expat tells where tags begin, and not where they end."""
        if self._open is not None and len(self._path) == 1:
            self.places.append(Place(*self._open, at))
            self.empty += not self._shapes
            self._open = None
