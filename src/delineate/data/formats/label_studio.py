"""Label Studio: its exports JSON and JSON-MIN (https://labelstud.io/guide/export).

Coordinates are percent of the image. Polygons and rectangles (turned about their first corner)
become pixels as pycocotools draws polygons, which is what Label Studio's own COCO export is read
with, so that those that cross themselves are filled by the even-odd rule. Of ellipses, which no
export of its own draws, the pixels whose middles are inside are taken. Brushes are what was
painted: see :mod:`delineate.data.formats.label_studio_brush`.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec
import numpy as np

from delineate.data.dataset import DatasetInfo
from delineate.data.formats.drawing import (
    Patch,
    Region,
    checked_points,
    coco_polygon,
    cropped,
    paint_regions,
)
from delineate.data.formats.label_studio_brush import brush_bytes, decode_brush
from delineate.data.formats.label_studio_json import (
    Annotation,
    Result,
    Task,
    Value,
    read_tasks,
)
from delineate.data.formats.naming import propose, refuse_link_outside, sample_names
from delineate.data.formats.pairing import (
    decode_json,
    list_images,
    only_file,
    read_item_image,
    refuse_absent,
    refuse_unannotated,
    spellings,
)
from delineate.data.formats.settings import ImportSettings
from delineate.data.formats.source import Item, Labels, Proposal
from delineate.data.images import IMAGE_SUFFIXES
from delineate.errors import DatasetError, MaskError

_HEAD_BYTES = 65536
_UPLOAD_PREFIX = re.compile(r"^[0-9a-f]{8}-")
_AREAS = frozenset({"polygon", "rectangle", "ellipse", "brush"})
_REGIONS = frozenset({*_AREAS, *(f"{kind}labels" for kind in _AREAS), "labels"})


class LabelStudioSource:
    """See :func:`open_label_studio`."""

    def __init__(
        self, items: Sequence[Item], proposal: Proposal, json: Path, settings: ImportSettings
    ) -> None:
        self.items = tuple(items)
        self.proposal = proposal
        self._json = json
        self._overlap = settings.overlap

    def image_bytes(self, item: Item) -> bytes:
        """The image file.

        Raises:
            ImageError: it is not there or cannot be read.
        """
        return read_item_image(item)

    def labels(self, item: Item, hw: tuple[int, int], info: DatasetInfo) -> Labels:
        """The regions of one task, in the order they were drawn; each is an object.

        Raises:
            MaskError: a region is of another size, cannot be drawn, or its label is no class.
            DatasetError: a region has other values than Label Studio writes.
        """
        regions = []
        for index, (result, value) in enumerate(_regions(item.key, item.where)):
            where = f"{item.where}, region {index + 1}"
            label = _label(value, where)
            where += f" ({label})"
            _refuse_other_size(result, hw, where)
            regions.append(Region(label, _draw(value, hw, where), where))
        return paint_regions(regions, hw, info, self._overlap, item.where)

    def evidence(self, item: Item) -> bytes:
        """The annotation's regions as they are in the file."""
        return bytes(item.key)


def is_label_studio(path: Path) -> bool:
    """Whether the head of the file ``path`` is that of an export as JSON or JSON-MIN."""
    if path.suffix.lower() != ".json" or not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError:
        return False
    return bool(re.match(rb"\s*\[\s*\{", head)) and (
        (b'"annotations"' in head and b'"result"' in head) or b'"annotation_id"' in head
    )


def open_label_studio(settings: ImportSettings) -> LabelStudioSource:
    """List the tasks of an export, or of the one export in a folder.

    Images lie in ``settings.images`` or beside the file, under the name in the task's data with as
    many of its folders as are there, and with or without the eight hexadecimal digits that an
    upload puts before it. Of several annotations of a task the one that was changed last is taken.
    Cancelled annotations and predictions are no labels. Key points, choices and other
    answers are none either; notes say how many there are.

    Raises:
        DatasetError: no or several files, one that is damaged, tasks that name one image or none;
            images or annotations without the other, unless ``settings.drop_unpaired``.
    """
    json = only_file(settings, frozenset({".json"}), is_label_studio, "Label Studio's JSON")
    root = settings.images or json.parent
    found = _Found()
    for index, task in enumerate(read_tasks(json)):
        _list_task(task, f"task {index + 1 if task.id is None else task.id}", json, root, found)
    for image in found.tasks:
        refuse_link_outside(image, root, follow_links=settings.follow_links)
    drop = settings.drop_unpaired
    refuse_absent(found.absent, json, drop=drop)
    used = {*found.tasks, *found.unlabelled}
    there = list_images(root, follow_links=settings.follow_links)
    unannotated = [*found.unlabelled, *(image for image in there if image not in used)]
    refuse_unannotated(unannotated, json, drop=drop)
    paths = {image: str(image.relative_to(root)) for image in found.tasks}
    names = sample_names(paths.values())
    items = [
        Item(names[path], names[path] + image.suffix, f"{json}, {where}", image, key=regions)
        for image, path in paths.items()
        for where, regions in [found.tasks[image]]
    ]
    dropped = (*(root / PurePosixPath(_path(name)).name for name in found.absent), *unannotated)
    proposal = replace(propose(sorted(found.labels)), notes=_notes(found), dropped=dropped)
    return LabelStudioSource(items, proposal, json, settings)


@dataclass
class _Found:
    """What the tasks of a file give.

    ``tasks`` are by image: what to call the task, and the JSON of its regions.
    """

    tasks: dict[Path, tuple[str, msgspec.Raw]] = field(default_factory=dict)
    labels: set[str] = field(default_factory=set)
    absent: list[str] = field(default_factory=list)
    unlabelled: list[Path] = field(default_factory=list)
    cancelled: int = 0
    superseded: int = 0
    others: Counter[str] = field(default_factory=Counter)


def _list_task(task: Task, where: str, json: Path, root: Path, found: _Found) -> None:
    """Add one task to what was found."""
    stated, others = _image_name(task, where, json)
    image = _find_image(stated, root)
    valid = [annotation for annotation in task.annotations if not annotation.was_cancelled]
    found.cancelled += len(task.annotations) - len(valid)
    if image is None:
        found.absent.append(stated)
        return
    if image in found.tasks or image in found.unlabelled:
        raise DatasetError(
            f"{where} names the image {image.name}, which another task has already",
            where=json,
            mend="Keep one of the two tasks.",
        )
    if not valid:
        found.unlabelled.append(image)
        return
    # the last of equal ones, as the file is in the order of creation
    newest = max(enumerate(valid), key=lambda pair: (pair[1].updated_at or "", pair[0]))[1]
    found.superseded += len(valid) - 1
    _refuse_several_images(newest, others, where, json)
    found.tasks[image] = (where, newest.result)
    _count(newest, f"{json}, {where}", found)


def _count(annotation: Annotation, where: str, found: _Found) -> None:
    results: list[Result] = decode_json(annotation.result, list[Result], where)
    for result in results:
        if result.type not in _REGIONS:
            found.others[result.type or "unnamed"] += 1
    for _, value in _regions(annotation.result, where):
        found.labels.update(value.names())


def _regions(raw: msgspec.Raw, where: str | Path) -> list[tuple[Result, Value]]:
    """The regions that have an area.

    A shape and its label may be two results of one id, both of which have the geometry; then the
    one without a label is left out.
    """
    pairs: list[tuple[Result, Value]] = []
    results: list[Result] = decode_json(raw, list[Result], where)
    for result in results:
        if result.type in _REGIONS:
            pairs.append((result, decode_json(result.value, Value, where)))
    labelled = {result.id for result, value in pairs if value.names()}
    return [
        (result, value)
        for result, value in pairs
        if value.names() or not result.id or result.id not in labelled
    ]


def _refuse_several_images(
    annotation: Annotation, others: Sequence[str], where: str, json: Path
) -> None:
    """Raise DatasetError unless all regions lie on the one image that is read.

    Args:
        others: names of further images in the task's data.
    """
    regions = _regions(annotation.result, f"{json}, {where}")
    named = sorted({result.to_name for result, _ in regions if result.to_name})
    if len(named) > 1 or (named and named[0] in others):
        raise DatasetError(
            f"{where} has regions on {' and '.join(named)}, and one image of a task is read",
            where=json,
            mend="Make each image a task of its own in Label Studio.",
        )
    if others and any(not result.to_name for result, _ in regions):
        raise DatasetError(
            f"{where} has several images ({', '.join(('image', *others))}), and does not say "
            "which of them its regions are on",
            where=json,
            mend="Export as JSON and not as JSON-MIN.",
        )


def _image_name(task: Task, where: str, json: Path) -> tuple[str, list[str]]:
    """The address of the task's image, and the keys of others in its data.

    It is ``data.image``, or the one value that names an image.
    """
    texts: dict[str, str] = {}
    for key, raw in task.data.items():
        if bytes(memoryview(raw)[:1]) == b'"':
            texts[key] = decode_json(raw, str, f"{json}, {where}")
    found = [
        key
        for key, text in texts.items()
        if PurePosixPath(_path(text)).suffix.lower() in IMAGE_SUFFIXES
    ]
    if "image" in texts:
        return texts["image"], [key for key in found if key != "image"]
    if len(found) == 1:
        return texts[found[0]], []
    raise DatasetError(
        f"{where} has {'no image' if not found else 'several images'} in its data "
        f"({', '.join(task.data) or 'empty'})",
        where=json,
        mend="Give each task one image, under the name image.",
    )


def _path(address: str) -> str:
    """The path in a URL, or the file that a local-files address asks for."""
    parts = urlsplit(address)
    asked = parse_qs(parts.query).get("d")
    if asked and parts.path.rstrip("/").endswith("local-files"):
        return asked[0].replace("\\", "/")
    return unquote(parts.path if parts.scheme else address).replace("\\", "/")


def _find_image(address: str, root: Path) -> Path | None:
    """The file below ``root``: as many of the address's folders as are there, and its name."""
    parts = [part for part in _path(address).split("/") if part not in ("", ".")]
    if not parts:
        return None
    if ".." in parts or any(":" in part for part in parts):
        parts = parts[-1:]
    plain = _UPLOAD_PREFIX.sub("", parts[-1], count=1)
    for first in range(len(parts)):
        for name in dict.fromkeys((parts[-1], plain)):
            for spelling in spellings("/".join((*parts[first:-1], name))):
                file = root / spelling
                if name != ".." and file.is_file():
                    return file
    return None


def _notes(found: _Found) -> tuple[str, ...]:
    notes: list[str] = []
    if found.superseded:
        notes.append(
            f"annotations not used, because their task has a later one: {found.superseded}"
        )
    if found.cancelled:
        notes.append(f"cancelled annotations, which are no labels: {found.cancelled}")
    if found.others:
        kinds = ", ".join(f"{count} of {kind}" for kind, count in sorted(found.others.items()))
        notes.append(f"only polygons, rectangles, ellipses and brushes are labels, not {kinds}")
    return tuple(notes)


def _label(value: Value, where: str) -> str:
    names = value.names()
    if len(names) != 1:
        raise MaskError(
            f"has the labels {', '.join(names)}" if names else "has no label",
            where=where,
            mend="Give the region one label.",
        )
    return names[0]


def _refuse_other_size(result: Result, hw: tuple[int, int], where: str) -> None:
    stated = (result.original_height, result.original_width)
    if None not in stated and stated != hw:
        raise MaskError(
            f"was drawn on an image of {stated[1]:g} x {stated[0]:g} px (width x height), and the "
            f"image has {hw[1]} x {hw[0]}",
            where=where,
            mend="Bring back the image that was annotated, or annotate this one.",
        )
    if result.image_rotation and result.image_rotation % 360:
        raise MaskError(
            f"was drawn on the image turned by {result.image_rotation:g} degrees",
            where=where,
            mend="Turn the image file itself, and annotate it unturned.",
        )


def _draw(value: Value, hw: tuple[int, int], where: str) -> Patch:
    height, width = hw
    if bytes(memoryview(value.rle)[:1]) == b"[":
        return cropped(decode_brush(brush_bytes(value.rle, where), hw, where))
    if value.points is not None:
        points = [(x / 100 * width, y / 100 * height) for x, y in value.points]
        return coco_polygon(checked_points(points, hw, where), hw, where)
    if value.x is None or value.y is None:
        raise MaskError(
            "has no coordinates that are known", where=where, mend="Draw it again as a polygon."
        )
    x, y = value.x / 100 * width, value.y / 100 * height
    turn = math.radians(value.rotation or 0.0)
    if value.radius_x is not None and value.radius_y is not None:
        radii = (value.radius_x / 100 * width, value.radius_y / 100 * height)
        return _ellipse((x, y), radii, turn, hw, where)
    if value.width is None or value.height is None:
        raise MaskError(
            "has no coordinates that are known", where=where, mend="Draw it again as a polygon."
        )
    across, down = value.width / 100 * width, value.height / 100 * height
    corners = [
        (
            x + math.cos(turn) * dx - math.sin(turn) * dy,
            y + math.sin(turn) * dx + math.cos(turn) * dy,
        )
        for dx, dy in ((0.0, 0.0), (0.0, down), (across, down), (across, 0.0))
    ]
    return coco_polygon(checked_points(corners, hw, where), hw, where)


def _ellipse(
    centre: tuple[float, float],
    radii: tuple[float, float],
    turn: float,
    hw: tuple[int, int],
    where: str,
) -> Patch:
    """The pixels whose middles are inside; ``turn`` is clockwise, in radians."""
    if min(radii) <= 0:
        raise MaskError(
            f"has the radii {radii[0]:g} and {radii[1]:g} px",
            where=where,
            mend="Draw it again, or delete it.",
        )
    reach = max(radii)
    checked_points([centre], hw, where, reach_px=reach)
    left, right = (math.floor(min(max(centre[0] + r, 0), hw[1])) for r in (-reach, reach + 1))
    top, bottom = (math.floor(min(max(centre[1] + r, 0), hw[0])) for r in (-reach, reach + 1))
    away_y, away_x = np.ogrid[top:bottom, left:right]
    dx, dy = away_x + 0.5 - centre[0], away_y + 0.5 - centre[1]
    along = (dx * math.cos(turn) + dy * math.sin(turn)) / radii[0]
    across = (dy * math.cos(turn) - dx * math.sin(turn)) / radii[1]
    return Patch(along**2 + across**2 <= 1, (top, left))
