from __future__ import annotations

import json
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest

from delineate.training import environment as module
from delineate.training.environment import environment


def test_the_record_is_json_and_names_what_a_run_depends_on() -> None:
    found = json.loads(json.dumps(environment()))
    assert found["packages"]["torch"] == version("torch")
    assert found["packages"]["numpy"] == version("numpy")
    assert found["cores"] >= 1
    assert found["threads"] >= 1
    assert found["memory_bytes"] > 2**20
    assert isinstance(found["gpus"], list)


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(folder), *who, *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except FileNotFoundError:
        pytest.skip("there is no git here")


def test_the_commit_is_that_of_the_files_themselves(tmp_path: Path) -> None:
    package, stranger = tmp_path / "package", tmp_path / "venv"
    for folder in (package, stranger):
        folder.mkdir()
        (folder / "code.py").write_text("1\n")
    assert module._commit(package) is None
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", "package")
    git(tmp_path, "commit", "--quiet", "-m", "first")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert module._commit(package) == commit
    assert module._commit(stranger) is None
    (package / "code.py").write_text("2\n")
    assert module._commit(package) == f"{commit}+changes"


def test_without_git_there_is_no_commit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert environment()["commit"] is None


def test_the_processor_is_named_by_its_model(tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text("processor\t: 0\nmodel name\t: A Fast One: v2\nprocessor\t: 1\n")
    assert module._cpu(info) == "A Fast One: v2"
