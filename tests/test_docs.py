"""The documents say what is true: links, commands, options, code, fields and errors."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer
import yaml
from pydantic import BaseModel

import delineate
from delineate import errors
from delineate.bundle.import_onnx import ImportOnnxSettings
from delineate.cli.main import app
from delineate.config import Plan
from delineate.data.dataset import DatasetInfo

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    [
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
        *(ROOT / name / "README.md" for name in ("recipes", "benchmarks")),
        *(ROOT / "docs").rglob("*.md"),
    ]
)
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]
every_page = pytest.mark.parametrize("page", PAGES, ids=NAMES)

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!`)!?\[[^\]]+\]\(([^)\s]+)\)")
INLINE = re.compile(r"`(delineate [^`]+)`")
ROOT_COMMAND: Any = typer.main.get_command(app)
# the settings that a page's YAML blocks are of
YAML_KINDS: dict[str, type[BaseModel]] = {
    "docs/how-to/train.md": Plan,
    "docs/reference/plan.md": Plan,
    "docs/reference/dataset-format.md": DatasetInfo,
    "docs/how-to/import-onnx.md": ImportOnnxSettings,
}


def blocks(page: Path, language: str) -> list[str]:
    return [text for name, text in FENCE.findall(page.read_text()) if name == language]


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text())


def anchors(page: Path) -> set[str]:
    """The anchors that a Markdown page's headings get."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}


@every_page
def test_links_resolve(page: Path) -> None:
    for link in LINK.findall(prose(page)):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.is_relative_to(ROOT), f"{link} leaves the checkout"
        assert target.exists(), f"{link} leads nowhere"
        assert not anchor or anchor in anchors(target), f"{link} names no heading"


def test_every_page_of_docs_is_linked() -> None:
    linked = {
        (page.parent / link.partition("#")[0]).resolve()
        for page in PAGES
        for link in LINK.findall(prose(page))
        if "://" not in link
    }
    assert [page for page in (ROOT / "docs").rglob("*.md") if page not in linked] == []


def test_no_page_names_this_machine_or_an_index() -> None:
    hidden = re.compile(r"(?<![\w.])/(?:work|home|root|tmp|usr)/|index-url|pypi", re.IGNORECASE)
    found = {name: hidden.findall(p.read_text()) for name, p in zip(NAMES, PAGES, strict=True)}
    assert {name: hits for name, hits in found.items() if hits} == {}


def shell_commands(page: Path) -> Iterator[list[str]]:
    for block in blocks(page, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["delineate"]:
                yield words[1:]


def find_command(words: list[str]) -> tuple[Any, list[str]]:
    """The command that ``words`` name, and the words behind its name."""
    command, rest = ROOT_COMMAND, list(words)
    while hasattr(command, "commands") and rest and not rest[0].startswith("-"):
        name = rest.pop(0)
        assert name in command.commands, f"there is no command {name!r} in {' '.join(words)!r}"
        command = command.commands[name]
    return command, rest


@every_page
def test_commands_in_blocks_parse(page: Path) -> None:
    for words in shell_commands(page):
        command, rest = find_command(words)
        if rest != ["--help"]:
            command.make_context(" ".join(words), rest)  # raises what the command line would say


@every_page
def test_commands_in_text_exist(page: Path) -> None:
    for text in INLINE.findall(prose(page)):
        command, rest = find_command(shlex.split(text.partition(", then")[0])[1:])
        known = {name for item in command.params for name in (*item.opts, *item.secondary_opts)} | {
            "--help"
        }
        options = [word for word in rest if re.match(r"--?[a-z]", word)]
        assert [option for option in options if option not in known] == [], text


@every_page
def test_options_in_text_exist(page: Path) -> None:
    """An option that stands alone belongs to some command."""
    known = {"--help", "--data-binary"}  # the last is curl's
    todo: list[Any] = [ROOT_COMMAND]
    while todo:
        command = todo.pop()
        known |= {name for item in command.params for name in (*item.opts, *item.secondary_opts)}
        todo += getattr(command, "commands", {}).values()
    named = re.findall(r"(?<=`)--[a-z][a-z0-9-]*", prose(page))
    assert [option for option in named if option not in known] == []


@every_page
def test_python_blocks_compile_and_import_what_exists(page: Path) -> None:
    for block in blocks(page, "python"):
        tree = ast.parse(block)
        compile(tree, str(page), "exec")
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("delineate"):
                module = importlib.import_module(node.module or "")
                known = delineate.__all__ if module is delineate else dir(module)
                assert [name.name for name in node.names if name.name not in known] == []
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert node.value.id != "delineate" or node.attr in delineate.__all__


@pytest.mark.parametrize("name", YAML_KINDS)
def test_yaml_blocks_are_valid(name: str) -> None:
    found = blocks(ROOT / name, "yaml")
    assert found
    for block in found:
        YAML_KINDS[name].model_validate(yaml.safe_load(block))


@every_page
def test_json_blocks_are_valid(page: Path) -> None:
    for block in blocks(page, "json"):
        json.loads(block)


def fields(kind: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in kind.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from fields(field.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name


def test_every_field_of_the_plan_is_in_its_page() -> None:
    text = (ROOT / "docs/reference/plan.md").read_text()
    assert [name for name in fields(Plan) if f"| `{name}` |" not in text] == []


def test_every_field_of_a_dataset_is_in_its_page() -> None:
    text = (ROOT / "docs/reference/dataset-format.md").read_text()
    assert [name for name in fields(DatasetInfo) if f"| `{name}` |" not in text] == []


def test_every_error_is_in_its_page() -> None:
    text = (ROOT / "docs/reference/errors-and-exit-codes.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \|.*\| (\d) \|$", text, re.MULTILINE))
    classes = {
        name: str(kind.exit_status)
        for name, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, errors.DelineateError)
    }
    assert rows == classes


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["cli", "plan"])
def test_generated_pages_are_up_to_date(name: str) -> None:
    written = (ROOT / "docs" / "reference" / f"{name}.md").read_text(encoding="utf-8")
    current = getattr(generator(), f"{name}_page")()
    assert written == current, "run: python docs/generate.py"


def test_no_figure_is_left_to_fill_in() -> None:
    unfinished = [
        name for name, page in zip(NAMES, PAGES, strict=True) if "TODO-FIGURE" in page.read_text()
    ]
    assert unfinished == []
