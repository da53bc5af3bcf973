"""Results of long benchmarks, one file for each unit, so that a killed one goes on by unit."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any


class KeptUnit(ABC):
    """One piece of a benchmark, known by its name."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Words parted by slashes."""

    def file(self, kept: Path) -> Path:
        """Where its result is, in the folder ``kept``."""
        return kept / f"{self.name.replace('/', '-')}.json"

    def result(self, kept: Path) -> dict[str, Any] | None:
        """What the unit came to, or None before it ran."""
        path = self.file(kept)
        if not path.exists():
            return None
        document: dict[str, Any] = json.loads(path.read_text())
        return document

    def keep(self, result: dict[str, Any], kept: Path) -> None:
        """Write what the unit came to."""
        kept.mkdir(parents=True, exist_ok=True)
        self.file(kept).write_text(json.dumps(result, indent=2) + "\n")
