"""Write the two reference pages that follow from the code: ``python docs/generate.py``.

``reference/cli.md`` comes from the command line, ``reference/plan.md`` from ``config.Plan``; a
test compares both with what this prints.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from delineate.cli.main import app
from delineate.config import Plan

REFERENCE = Path(__file__).parent / "reference"
NOTE = "<!-- written by docs/generate.py: change the code, then run it -->"

CLI_HEAD = f"""{NOTE}
# Commands

`--help` behind any command shows the same with an example. With `--json` a command prints one
JSON document on stdout; messages and progress go to stderr. What the exit status means is in
[errors and exit codes](errors-and-exit-codes.md).
"""

PLAN_HEAD = f"""{NOTE}
# Plan

A plan is the configuration of one training: everything but the dataset and how long it lasts.
`delineate train --plan FILE` reads it as YAML; a field that the file leaves out has the default
below, and an unknown field is an error. Options of `delineate train` change single fields.

Without `--plan` these fields are chosen after a look at up to 200 training images: the network
(`model`), `crop_px`, `loss.class_weights`, `normalisation`, and the flips and turns of
`augmentation`. By what rules is told in [training](../how-to/train.md). The plan that was used is
in `RUN/plan.yaml`.

```yaml
model: {{architecture: unet, encoder: resnet34}}
loss: {{name: ce+dice}}
augmentation: {{vertical_flip: 0.5, rotation_degrees: 180}}
crop_px: 384
batch_size: 4
```

*x to y* means that both ends are allowed. The precision `32` is a word, so quote it: `'32'`; `auto`
takes bf16 or fp16 where the hardware is fast in it.
"""


def commands(group: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Every command that does something, with its full name."""
    for child_name, child in group.commands.items():
        full = f"{name} {child_name}"
        if hasattr(child, "commands"):
            yield from commands(child, full)
        else:
            yield full, child


def cli_page() -> str:
    parts = [CLI_HEAD]
    for name, command in commands(typer.main.get_command(app), "delineate"):
        about, *examples = command.help.split("Example: ")
        parts.append(f"## {name}\n\n{' '.join(about.split())}\n")
        parts += [f"Example: `{' '.join(example.split())}`\n" for example in examples]
        parts.append(_head("argument or option"))
        hints = typing.get_type_hints(command.callback)
        parts.append("\n".join(_parameter(item, hints) for item in command.params) + "\n")
    return "\n".join(parts)


def _parameter(item: Any, hints: dict[str, Any]) -> str:
    is_option = item.param_type_name == "option"
    names = ", ".join(f"`{name}`" for name in item.opts) if is_option else f"`{item.name.upper()}`"
    value = "" if is_option and item.is_flag else _kind(hints[item.name])
    default = "" if item.default in (None, False, "") else f"`{item.default}`"
    if item.required:
        default = "required"
    return f"| {names} | {value} | {default} | {item.help} |"


def plan_page() -> str:
    parts = [PLAN_HEAD]
    top: list[str] = []
    for name, field in Plan.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            kind = field.annotation
            rows = [_field(f"{name}.{n}", f) for n, f in kind.model_fields.items()]
            parts.append(_section(name, " ".join((kind.__doc__ or "").split()), rows))
        else:
            top.append(_field(name, field))
    parts.insert(1, _section("top level", "Fields outside the sections below.", top))
    return "\n".join(parts)


def _section(name: str, about: str, rows: list[str]) -> str:
    return f"## {name}\n\n{about}\n\n{_head('field')}\n" + "\n".join(rows) + "\n"


def _head(first: str) -> str:
    return f"| {first} | value | default | what it is |\n| --- | --- | --- | --- |"


def _field(name: str, field: FieldInfo) -> str:
    default = field.get_default()
    if isinstance(default, tuple):
        default = list(default)
    shown = "none" if default is None else f"`{default}`"
    value = _kind(field.annotation) + _bounds(field)
    return f"| `{name}` | {value} | {shown} | {field.description or ''} |"


def _bounds(field: FieldInfo) -> str:
    text = " ".join(str(item) for item in field.metadata)
    limits = {k: float(v) for k, v in re.findall(r"\b(ge|gt|le|lt)=([-\d.e]+)", text)}
    if "ge" in limits and "le" in limits:
        return f", {limits['ge']:.10g} to {limits['le']:.10g}"
    words = {"ge": "{:g} or more", "gt": "more than {:g}", "le": "at most {:g}", "lt": "under {:g}"}
    return "".join(", " + words[key].format(value) for key, value in limits.items())


def _kind(hint: Any) -> str:
    """A type in words; None is said by the default."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return _kind(arguments[0])
    if origin is typing.Literal:
        return ", ".join(f"`{argument}`" for argument in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_kind(a) for a in arguments if a is not type(None))
    if origin in (list, tuple):
        if origin is tuple and Ellipsis not in arguments:
            return f"{len(arguments)} {_kind(arguments[0])}s"
        return f"{_kind(arguments[0])}s"
    names = {int: "whole number", float: "number", str: "text", Path: "path", bool: "yes or no"}
    return names[hint]


if __name__ == "__main__":
    (REFERENCE / "cli.md").write_text(cli_page(), encoding="utf-8")
    (REFERENCE / "plan.md").write_text(plan_page(), encoding="utf-8")
