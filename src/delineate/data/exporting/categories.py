"""Class names in formats that know classes by name."""

from __future__ import annotations

from delineate.data.dataset import DatasetInfo
from delineate.data.formats.naming import means_background
from delineate.errors import SettingsError

IGNORE_NAME = "__ignore__"
"""The class of ignored pixels, where a format has no other way to say so."""


def has_unwritten_background(info: DatasetInfo) -> bool:
    """Whether class 0 is what nothing covers, in formats that store what covers pixels.

    A reader finds it by its name. Where a later class has such a name too, both are written.
    """
    first, *later = info.classes
    return means_background(first) and not any(means_background(name) for name in later)


def refuse_ignore_name(info: DatasetInfo, format_name: str) -> None:
    """Raise SettingsError when a class has the name that ignored pixels get."""
    if info.ignore_index is not None and IGNORE_NAME in info.classes:
        raise SettingsError(
            f"the class {IGNORE_NAME} has the name that ignored pixels get in {format_name}",
            where="classes",
            mend="Rename the class in dataset.yaml.",
        )
