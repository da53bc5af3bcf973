"""What holds for every file: size, docstrings, and nothing of anybody's own machine."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = sorted((ROOT / "src").rglob("*.py"))
LONGEST_FILE = 400
LONGEST_FUNCTION = 60

# Spelt in pieces, so that this file may be looked at like any other
HOMES = re.compile("/(?:home|" + "Users" + r")/[a-z][\w.-]*/|/ro" + "ot/")
INDEXES = re.compile(
    r"(?:--(?:extra-)?index-" + r"url|index-" + r"url\s*=|--find-" + r"links)[ =]*\S"
)


def _name(path):
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", SOURCE, ids=_name)
def test_a_module_is_a_room_with_one_purpose(path):
    text = path.read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(text)), "says what it is for"
    assert len(text.splitlines()) < LONGEST_FILE


def _functions(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def _body_lines(node):
    """Lines after the docstring."""
    first = node.body[0]
    start = node.lineno
    if ast.get_docstring(node) is not None:
        start = first.end_lineno or start
    return (node.end_lineno or start) - start


@pytest.mark.parametrize("path", SOURCE, ids=_name)
def test_functions_are_short(path):
    long = {node.name: _body_lines(node) for node in _functions(path)}
    assert {name: lines for name, lines in long.items() if lines >= LONGEST_FUNCTION} == {}


def _tracked():
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("no git checkout")
    done = subprocess.run([git, "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if done.returncode:
        pytest.skip("git does not read this checkout")
    return [ROOT / name for name in done.stdout.decode().split("\0") if name]


def test_no_file_names_a_machine_or_an_index():
    found = []
    for path in _tracked():
        if not path.is_file():
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), 1):
            if HOMES.search(line) or INDEXES.search(line):
                found.append(f"{_name(path)}:{number}: {line.strip()[:80]}")
    assert found == []


def test_the_search_would_find_them():
    assert HOMES.search("open('" + "/ho" + "me/ann/data')")
    assert HOMES.search("/Us" + "ers/ann/data")
    assert INDEXES.search("--index" + "-url https://example.org/simple")
    assert not HOMES.search("a home of its own, /homepage/ and ~/data")
