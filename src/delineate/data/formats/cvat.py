"""CVAT for images 1.1: one XML file (https://docs.cvat.ai/docs/dataset_management/formats/).

Shapes become pixels as in CVAT's own exports of COCO and of masks: polygons and boxes (turned
about their middle where ``rotation`` says so) as pycocotools draws polygons, so that those that
cross themselves are filled by the even-odd rule; ellipses as ``cv2.ellipse`` draws them from centre
and radii rounded to whole pixels; masks by their runs, row by row in their box. A higher
``z_order`` covers a lower one; within one, the overlap order of the import decides.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import cv2
import numpy as np

from delineate.data.dataset import ONLY_SPLIT, DatasetInfo
from delineate.data.formats.cvat_listing import AREAS, CvatListing, Place
from delineate.data.formats.drawing import (
    Patch,
    Region,
    checked_points,
    coco_polygon,
    paint_regions,
)
from delineate.data.formats.naming import file_inside, propose, sample_names
from delineate.data.formats.pairing import (
    list_images,
    only_file,
    read_item_image,
    refuse_absent,
    refuse_unannotated,
    spellings,
)
from delineate.data.formats.settings import ImportSettings
from delineate.data.formats.source import Item, Labels, Proposal
from delineate.data.images import unreadable
from delineate.errors import DatasetError, MaskError

_HEAD_BYTES = 4096
_NO_GROUP = "0"
_SPLITS = {"train": "train", "val": "val", "validation": "val", "test": "test"}


class CvatSource:
    """See :func:`open_cvat`."""

    def __init__(
        self, items: Sequence[Item], proposal: Proposal, xml: Path, settings: ImportSettings
    ) -> None:
        self.items = tuple(items)
        self.proposal = proposal
        self._xml = xml
        self._overlap = settings.overlap

    def image_bytes(self, item: Item) -> bytes:
        """The image file.

        Raises:
            ImageError: it is not there or cannot be read.
        """
        return read_item_image(item)

    def labels(self, item: Item, hw: tuple[int, int], info: DatasetInfo) -> Labels:
        """The shapes of one image; each is an object, and so are those of one label and group.

        Raises:
            MaskError: the annotations are of another size, a shape cannot be drawn, or a label is
                no class.
        """
        try:
            image = ET.fromstring(self.evidence(item))
        except ET.ParseError as error:
            raise MaskError(
                f"has changed since the import began ({error})",
                where=item.where,
                mend="Start the import again.",
            ) from error
        _refuse_other_size(image, hw, item.where)
        shapes = [shape for shape in image if shape.tag in AREAS]
        regions = []
        for index, shape in enumerate(shapes):
            label = shape.get("label", "")
            where = f"{item.where}, {shape.tag} {index + 1} of {len(shapes)} ({label})"
            level = int(_number(shape, "z_order", where, default="0"))
            patch = _draw(shape, hw, where)
            group = shape.get("group_id", _NO_GROUP)
            regions.append(
                Region(label, patch, where, None if group == _NO_GROUP else group, level)
            )
        return paint_regions(regions, hw, info, self._overlap, item.where)

    def evidence(self, item: Item) -> bytes:
        """The bytes of the image's element in the file."""
        place: Place = item.key
        try:
            with self._xml.open("rb") as file:
                file.seek(place.first)
                return file.read(place.end - place.first)
        except OSError as error:
            raise unreadable(error, str(self._xml)) from error


def is_cvat(path: Path) -> bool:
    """Whether the head of the file ``path`` is that of CVAT's XML, for images or for video."""
    if path.suffix.lower() != ".xml" or not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError:
        return False
    return b"<annotations" in head and any(tag in head for tag in (b"<meta", b"<image ", b"<track"))


def open_cvat(settings: ImportSettings) -> CvatSource:
    """List an annotation file, or the one in a folder.

    Images lie in ``settings.images``, or beside the file or in ``images`` there, each in a folder
    named as its subset or not. Subsets train, val (or validation) and test are splits. Images
    without shapes are background alone. Polylines, points, cuboids, skeletons and tags have no
    area; a note says how many there are.

    Raises:
        DatasetError: no or several files, one that is damaged or was exported for video, images
            or annotations without the other, unless ``settings.drop_unpaired``.
    """
    xml = only_file(settings, frozenset({".xml"}), is_cvat, "CVAT for images 1.1")
    listing = CvatListing(xml)
    listing.read()
    root = settings.images or xml.parent
    items: list[Item] = []
    absent: list[str] = []
    for place, split, name in _named(listing):
        image = _find_image(place, root, xml, settings)
        if image is None:
            absent.append(place.name)
        else:
            where = f"{xml}, image {place.name}"
            items.append(Item(name, name + image.suffix, where, image, split=split, key=place))
    refuse_absent(absent, xml, drop=settings.drop_unpaired)
    used = {item.image for item in items}
    there = list_images(root, follow_links=settings.follow_links)
    unannotated = [image for image in there if image not in used]
    refuse_unannotated(unannotated, xml, drop=settings.drop_unpaired)
    proposal = replace(
        propose(listing.labels),
        notes=_notes(listing),
        dropped=(*(root / name for name in absent), *unannotated),
    )
    return CvatSource(items, proposal, xml, settings)


def _named(listing: CvatListing) -> list[tuple[Place, str, str]]:
    """Every image of the file with its split and sample name."""
    splits = {place: _SPLITS.get(place.subset.lower(), ONLY_SPLIT) for place in listing.places}
    known = set(splits.values()) - {ONLY_SPLIT}
    found: list[tuple[Place, str, str]] = []
    seen: set[tuple[str, str]] = set()
    for place, split in splits.items():
        if known and split == ONLY_SPLIT:
            raise DatasetError(
                f"has the image {place.name} in the subset {place.subset or 'default'!r} beside "
                f"{', '.join(sorted(known))}",
                where=listing.xml,
                mend="Move it to train, val or test in CVAT.",
            )
        if place[:2] in seen:
            raise DatasetError(
                f"has the image {place.name} twice",
                where=listing.xml,
                mend="Export one task at a time, or give the images folders of their own.",
            )
        seen.add(place[:2])
    for split in sorted(set(splits.values())):
        paths = {
            place: place.name if known else f"{place.subset}/{place.name}".lstrip("/")
            for place in listing.places
            if splits[place] == split
        }
        names = sample_names(paths.values())
        found += [(place, split, names[path]) for place, path in paths.items()]
    return found


def _find_image(place: Place, root: Path, xml: Path, settings: ImportSettings) -> Path | None:
    # by itself too, as an absolute one is not so behind a folder
    file_inside(root, place.name, str(xml), follow_links=True)
    folders = [""] if settings.images is not None else ["images", ""]
    for folder in folders:
        for subset in dict.fromkeys((place.subset, "")):
            for spelling in spellings(place.name):
                name = "/".join(part for part in (folder, subset, spelling) if part)
                file = file_inside(root, name, str(xml), follow_links=settings.follow_links)
                if file.is_file():
                    return file
    return None


def _notes(listing: CvatListing) -> tuple[str, ...]:
    notes: list[str] = []
    if listing.without_area:
        kinds = ", ".join(f"{count} of <{tag}>" for tag, count in listing.without_area.items())
        notes.append(f"shapes without an area are no labels: {kinds}")
    if listing.empty:
        notes.append(f"images without shapes, which are background alone: {listing.empty}")
    other = {place.subset for place in listing.places} - {"", "default"}
    other = {subset for subset in other if subset.lower() not in _SPLITS}
    if other:
        notes.append(f"subsets that are no splits: {', '.join(sorted(other))}")
    return tuple(notes)


def _refuse_other_size(image: ET.Element, hw: tuple[int, int], where: str) -> None:
    stated = tuple(int(_number(image, side, where)) for side in ("height", "width"))
    if stated != hw:
        raise MaskError(
            f"was drawn on an image of {stated[1]} x {stated[0]} px (width x height), and the "
            f"image has {hw[1]} x {hw[0]}",
            where=where,
            mend="Bring back the image that was annotated, or annotate this one.",
        )


def _number(element: ET.Element, name: str, where: str, *, default: str | None = None) -> float:
    text = element.get(name, default)
    try:
        if text is not None and math.isfinite(number := float(text)):
            return number
    except ValueError:
        pass
    raise MaskError(
        f"has {'no ' + name if text is None else f'{name}={text!r}, which is no number'}",
        where=where,
        mend="Draw the shape again, or export the annotations again.",
    )


def _draw(shape: ET.Element, hw: tuple[int, int], where: str) -> Patch:
    match shape.tag:
        case "polygon":
            return coco_polygon(checked_points(_points(shape, where), hw, where), hw, where)
        case "box":
            left, top, right, bottom = (
                _number(shape, side, where) for side in ("xtl", "ytl", "xbr", "ybr")
            )
            corners = [(left, top), (left, bottom), (right, bottom), (right, top)]
            turned = _turned(corners, _number(shape, "rotation", where, default="0"))
            return coco_polygon(checked_points(turned, hw, where), hw, where)
        case "ellipse":
            return _ellipse(shape, hw, where)
        case _:
            return _mask(shape, hw, where)


def _points(shape: ET.Element, where: str) -> list[tuple[float, float]]:
    text = shape.get("points", "")
    try:
        pairs = [pair.split(",") for pair in text.split(";")]
        return [(float(x), float(y)) for x, y in pairs]
    except ValueError as error:
        raise MaskError(
            f"has the points {text[:40]!r}, which are no list of x,y;x,y",
            where=where,
            mend="Draw the shape again, or export the annotations again.",
        ) from error


def _turned(points: Sequence[tuple[float, float]], degrees: float) -> list[tuple[float, float]]:
    """``points`` turned clockwise about their middle."""
    if degrees == 0:
        return list(points)
    middle = [sum(axis) / len(points) for axis in zip(*points, strict=True)]
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    away = [(x - middle[0], y - middle[1]) for x, y in points]
    return [(middle[0] + cos * x - sin * y, middle[1] + sin * x + cos * y) for x, y in away]


def _ellipse(shape: ET.Element, hw: tuple[int, int], where: str) -> Patch:
    cx, cy, rx, ry = (_number(shape, name, where) for name in ("cx", "cy", "rx", "ry"))
    if rx < 0 or ry < 0:
        raise MaskError(
            f"has the radii {rx:g} and {ry:g}",
            where=where,
            mend="Draw the shape again, or delete it.",
        )
    checked_points([(cx, cy)], hw, where, reach_px=max(rx, ry))
    mask = np.zeros(hw, np.uint8)
    centre, axes = (round(cx), round(cy)), (round(rx), round(ry))
    degrees = _number(shape, "rotation", where, default="0") % 360
    cv2.ellipse(mask, centre, axes, degrees, 0, 360, 1, thickness=-1)
    left, top, width, height = cv2.boundingRect(mask)
    return Patch(mask[top : top + height, left : left + width].astype(bool), (top, left))


def _mask(shape: ET.Element, hw: tuple[int, int], where: str) -> Patch:
    """Runs outside and inside in turn, row by row in the box."""
    left, top, width, height = (
        int(_number(shape, name, where)) for name in ("left", "top", "width", "height")
    )
    corners = [(float(left), float(top)), (float(left + width), float(top + height))]
    checked_points(corners, hw, where)
    if width > hw[1] or height > hw[0]:
        raise MaskError(
            f"has a box of {width} x {height} px, larger than the image of {hw[1]} x {hw[0]}",
            where=where,
            mend="Draw the mask again, or export the annotations again.",
        )
    text = shape.get("rle", "")
    try:
        runs = np.array([int(run) for run in text.split(",")], np.int64)
    except (ValueError, OverflowError):
        runs = np.array([-1])
    if width < 1 or height < 1 or (runs < 0).any() or runs.sum() != width * height:
        raise MaskError(
            f"has runs (rle={text[:30]!r}) that do not fill its box of {width} x {height} px"
            + (f": they make {runs.sum()}" if (runs >= 0).all() else ""),
            where=where,
            mend="Draw the mask again, or export the annotations again.",
        )
    inside = np.arange(len(runs)) % 2 == 1
    return Patch(np.repeat(inside, runs).reshape(height, width), (top, left))
