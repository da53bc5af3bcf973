"""What an import has done so far, one line a sample, so that nothing is done twice.

``import.jsonl`` lies in the dataset: a line that names the settings, then one line for each sample
with the hash of what it was made from. A killed import is taken up where its lines end; a later
import of a grown source does only what is new.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

JOURNAL_FILE = "import.jsonl"
_VERSION = 1


@dataclass(frozen=True)
class Record:
    """One sample that was imported.

    Attributes:
        file: name of its image file.
        origin: what the source calls it: the path of its image or annotations there.
        source: hash (hex) of the image, the labels and the settings it was made with.
        pixels: how many of each class id.
        objects: how many instances, or None where there are no instance ids.
        hidden: instances of which no pixel is left: outside, too small, or wholly covered.
        turned: the image has an orientation tag.
    """

    split: str
    name: str
    file: str
    source: str
    origin: str
    pixels: Mapping[int, int] = field(default_factory=dict)
    objects: int | None = None
    hidden: int = 0
    turned: bool = False


def read_journal(folder: Path) -> dict[str, Record]:
    """The samples that ``folder`` holds, by split and name as ``split/name``.

    A last line that was cut off by a kill is left out; so is everything of another version.
    """
    file = folder / JOURNAL_FILE
    found: dict[str, Record] = {}
    try:
        with file.open(encoding="utf-8") as lines:
            if json.loads(next(lines, "{}")) != {"version": _VERSION}:
                return {}
            for line in lines:
                fields = json.loads(line)
                fields["pixels"] = {int(i): int(n) for i, n in fields["pixels"].items()}
                record = Record(**fields)
                found[f"{record.split}/{record.name}"] = record
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, KeyError, AttributeError):
        return found
    return found


class Journal:
    """Appends records to ``import.jsonl`` of ``folder``; each is on its way to the disk at once."""

    def __init__(self, folder: Path, done: Mapping[str, Record]) -> None:
        # written anew, so that a line that a kill cut off is gone
        self._file = (folder / JOURNAL_FILE).open("w", encoding="utf-8")
        self._file.write(json.dumps({"version": _VERSION}) + "\n")
        for record in done.values():
            self.add(record)

    def add(self, record: Record) -> None:
        self._file.write(json.dumps(vars(record)) + "\n")
        self._file.flush()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
