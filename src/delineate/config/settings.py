"""The base of all settings: checked, frozen, and read from and written to YAML."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from delineate.errors import SettingsError

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]


class Settings(BaseModel):
    """Base of all settings: unknown fields are errors, numbers are finite, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


S = TypeVar("S", bound=BaseModel)


def checked(kind: type[S], document: Mapping[str, Any], where: str | Path) -> S:
    """Make settings of type ``kind`` from plain values.

    Raises:
        SettingsError: a field is unknown, missing or wrong.
    """
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        raise SettingsError(describe(error), where=where) from error


def with_changes(settings: S, changes: Mapping[str, Any], where: str | Path) -> S:
    """A copy of ``settings`` with some fields changed and everything checked again.

    Args:
        settings: what to start from.
        changes: new values by dotted path, ``{"model.encoder": "resnet34"}``.
        where: what to name when a value is wrong.

    Raises:
        SettingsError: a value is wrong, or there is no such field.
    """
    document = settings.model_dump()
    for path, value in changes.items():
        *parents, field = path.split(".")
        target: Any = document
        for parent in parents:
            target = target.get(parent) if isinstance(target, dict) else None
        if not isinstance(target, dict):
            raise SettingsError(
                f"{path}: there is no such field",
                where=where,
                mend=f"The first part is one of: {', '.join(document)}.",
            )
        target[field] = value
    return checked(type(settings), document, where)


def flattened(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted path: ``{"model": {"encoder": "x"}}`` is ``{"model.encoder": x}``.

    An empty mapping stays as a value, so that nothing is lost.
    """
    found: dict[str, Any] = {}
    for name, value in settings.items():
        path = f"{prefix}{name}"
        if isinstance(value, Mapping) and value:
            found |= flattened(value, f"{path}.")
        else:
            found[path] = value
    return found


def describe(error: ValidationError) -> str:
    """One line for each problem that pydantic found, with the field's path and its value."""
    lines = []
    for problem in error.errors():
        place = ".".join(str(part) for part in problem["loc"]) or "the whole"
        value = repr(problem["input"])
        message = problem["msg"].removeprefix("Value error, ")  # of our own checks
        lines.append(f"{place}: {message} (found {value[:80]})")
    return "; ".join(lines)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML (or JSON) mapping.

    Raises:
        SettingsError: the file is absent or is no YAML mapping.
    """
    try:
        document: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise SettingsError("no such file", where=path) from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingsError(f"is no readable YAML ({error})", where=path) from error
    if not isinstance(document, dict):
        raise SettingsError(
            f"holds a {type(document).__name__}, not a mapping of fields", where=path
        )
    return document


def load_yaml(path: Path, kind: type[S]) -> S:
    """Read a YAML (or JSON) file into settings of type ``kind``.

    Raises:
        SettingsError: the file is absent, is no YAML mapping, or a field is wrong.
    """
    return checked(kind, read_yaml(path), path)


def dump_yaml(settings: BaseModel) -> str:
    """``settings`` as YAML that :func:`load_yaml` reads back."""
    text: str = yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False)
    return text
