"""What a check says: findings, their kinds, and how bad each kind is."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from delineate.errors import DelineateError

FindingKind = Literal[
    "missing mask",
    "missing image",
    "same name",
    "not an image",
    "no group",
    "unreadable",
    "size",
    "ids",
    "stray values",
    "anti-aliased mask",
    "rgb mask",
    "empty mask",
    "same mask",
    "two labels",
    "object size",
    "object without mask",
    "object of two classes",
    "object on background",
    "pixel type",
    "blank",
    "saturated",
    "another kind",
    "same image",
    "near-duplicate",
    "group in two splits",
    "sequence in two splits",
    "class never seen",
    "class only in val",
    "label shift",
    "suspicious labels",
]

Severity = Literal["error", "warning"]

# Training or a score comes out wrong by these; the others may be as their owner wants them.
_ERRORS: frozenset[FindingKind] = frozenset(
    {
        "missing mask",
        "missing image",
        "same name",
        "no group",
        "unreadable",
        "size",
        "ids",
        "stray values",
        "anti-aliased mask",
        "rgb mask",
        "two labels",
        "object size",
        "object without mask",
        "pixel type",
        "same image",
        "near-duplicate",
        "group in two splits",
        "sequence in two splits",
    }
)


@dataclass(frozen=True)
class Finding:
    """One problem.

    Attributes:
        kind: one of :data:`FindingKind`.
        file: path below the dataset's folder.
        found: what was found there.
        mend: what to do about it.
    """

    kind: FindingKind
    file: str
    found: str
    mend: str

    @property
    def severity(self) -> Severity:
        """``error`` where training or a score comes out wrong, ``warning`` where it may."""
        return "error" if self.kind in _ERRORS else "warning"

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "severity": self.severity}


def from_error(kind: FindingKind, root: Path, file: Path, error: DelineateError) -> Finding:
    """The finding that an error about ``file`` stands for."""
    return Finding(kind, below(root, file), error.found, error.mend)


def below(root: Path, file: Path) -> str:
    """The path of ``file`` below the dataset's folder ``root``, with forward slashes."""
    return file.relative_to(root).as_posix()
