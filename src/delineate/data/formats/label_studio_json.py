"""Label Studio's exports, JSON and JSON_MIN, as tasks: what the files hold and no more.

JSON is a list of tasks with ``annotations[].result[]``. JSON_MIN is a list with one entry for each
annotation, in which every name of the labelling configuration holds its list of regions.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable
from pathlib import Path

import msgspec

from delineate.data.formats.pairing import decode_json
from delineate.data.images import unreadable
from delineate.errors import DatasetError

_OWN_KEYS = frozenset(
    {"id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time", "predictions"}
)

_NULL = msgspec.Raw(b"null")


class Value(msgspec.Struct, rename="camel"):
    """A region's geometry and label; coordinates are percent of the image's width and height."""

    points: list[tuple[float, float]] | None = None
    x: float | None = None
    y: float | None = None
    width: float | None = None
    height: float | None = None
    radius_x: float | None = None
    radius_y: float | None = None
    rotation: float | None = None
    rle: msgspec.Raw = msgspec.Raw(b"null")
    polygonlabels: list[str] | None = None
    rectanglelabels: list[str] | None = None
    ellipselabels: list[str] | None = None
    brushlabels: list[str] | None = None
    labels: list[str] | None = None

    def names(self) -> list[str]:
        """The labels of the region, under whichever key."""
        keys = (
            self.polygonlabels,
            self.rectanglelabels,
            self.ellipselabels,
            self.brushlabels,
            self.labels,
        )
        return [name for labels in keys for name in labels or ()]


class Result(msgspec.Struct):
    """One region, or something else that an annotator answered."""

    type: str = ""
    id: str = ""
    value: msgspec.Raw = msgspec.Raw(b"{}")
    original_width: float | None = None
    original_height: float | None = None
    image_rotation: float | None = None
    to_name: str | None = None


class Annotation(msgspec.Struct):
    """What one person made of a task; ``result`` is the JSON of a list of :class:`Result`."""

    result: msgspec.Raw = msgspec.Raw(b"[]")
    was_cancelled: bool = False
    updated_at: str | None = None


class Task(msgspec.Struct):
    """One image with its annotations."""

    data: dict[str, msgspec.Raw]
    annotations: list[Annotation]
    id: int | str | None = None


class _MinimalSize(msgspec.Struct):
    original_width: float | None = None
    original_height: float | None = None
    image_rotation: float | None = None


def read_tasks(path: Path) -> list[Task]:
    """All tasks of an export. The file is mapped and not read into memory.

    Raises:
        DatasetError: it is no export of Label Studio, or damaged.
        ImageError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except ValueError as error:
        raise DatasetError(
            "is empty (0 bytes)", where=path, mend="Export the annotations again."
        ) from error
    except OSError as error:
        raise unreadable(error, str(path)) from error
    entries: list[dict[str, msgspec.Raw]] = decode_json(data, list[dict[str, msgspec.Raw]], path)
    if any("annotations" not in entry for entry in entries):
        return _from_minimal(entries, path)
    tasks: list[Task] = decode_json(data, list[Task], path)
    return tasks


def _from_minimal(entries: Iterable[dict[str, msgspec.Raw]], path: Path) -> list[Task]:
    tasks: dict[bytes, Task] = {}
    for index, entry in enumerate(entries):
        if "annotation_id" not in entry:
            raise DatasetError(
                f"entry {index + 1} has neither annotations nor annotation_id",
                where=path,
                mend="Export from Label Studio as JSON or JSON-MIN.",
            )
        data = {key: raw for key, raw in entry.items() if key not in _OWN_KEYS}
        lists = {key: raw for key, raw in data.items() if bytes(memoryview(raw)[:1]) == b"["}
        where = f"{path}, entry {index + 1}"
        results = [result for raw in lists.values() for result in _minimal_results(raw, where)]
        annotation = Annotation(
            msgspec.Raw(msgspec.json.encode(results)),
            updated_at=decode_json(entry.get("updated_at", _NULL), str | None, where),
        )
        # an image has one entry for each of its annotations, all with the number of the task
        key = bytes(entry.get("id", b"")) or b"entry %d" % index
        task = tasks.setdefault(
            key,
            Task(
                {name: raw for name, raw in data.items() if name not in lists},
                [],
                bytes(entry["id"]).decode() if "id" in entry else None,
            ),
        )
        task.annotations.append(annotation)
    return list(tasks.values())


def _minimal_results(raw: msgspec.Raw, where: str) -> list[Result]:
    """The regions of one list, whose keys are those of a result and of its value in one."""
    found: list[Result] = []
    regions: list[msgspec.Raw] = decode_json(raw, list[msgspec.Raw], where)
    for region in regions:
        if bytes(memoryview(region)[:1]) != b"{":
            continue
        keys: dict[str, msgspec.Raw] = decode_json(region, dict[str, msgspec.Raw], where)
        size: _MinimalSize = decode_json(region, _MinimalSize, where)
        kinds = [key for key in keys if key.endswith("labels")]
        found.append(
            Result(
                type=kinds[0] if kinds else "",
                value=region,
                original_width=size.original_width,
                original_height=size.original_height,
                image_rotation=size.image_rotation,
            )
        )
    return found
