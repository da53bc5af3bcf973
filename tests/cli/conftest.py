from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from delineate.cli.main import main

# what the tiny plan of the tests is on the command line, with a plan.yaml for the rest
PLAN = """
model: {decoder_channels: [16, 8, 8, 8, 8]}
crop_px: 32
batch_size: 2
precision: "32"
validations: 1
"""


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """What ``--json`` printed: exactly one document."""
        return json.loads(self.out)

    @property
    def error(self) -> str:
        """The one line after ``error:``."""
        assert "Traceback" not in self.err
        lines = [line for line in self.err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, self.err
        return lines[0].removeprefix("error: ")


@pytest.fixture
def delineate(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Done]:
    """The command, in this process."""

    def run(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["delineate", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Done(ended.value.code, captured.out, captured.err)

    return run


@pytest.fixture
def wrong(delineate: Callable[..., Done]) -> Callable[..., str]:
    """The error of a command that ends with status 2, the same with ``--json``."""

    def run(*arguments: object) -> str:
        done = delineate(*arguments)
        assert (done.status, done.out) == (2, "")
        message = done.error
        if arguments[0] != "serve":
            again = delineate(*arguments, "--json")
            assert (again.status, again.error) == (2, message)
            error = again.document["error"]
            assert error["found"] in message
            assert (error["where"] or "") in message
            assert message.endswith(error["mend"])
        return message

    return run


@pytest.fixture(scope="session")
def command() -> Callable[..., list[str]]:
    """The command line of the command in a process of its own; ``before`` is run first."""

    def make(*arguments: object, before: str = "") -> list[str]:
        code = f"import sys\n{before}\nfrom delineate.cli.main import main\nmain()"
        return [sys.executable, "-c", code, *map(str, arguments)]

    return make


@pytest.fixture(scope="session")
def process(command: Callable[..., list[str]]) -> Callable[..., Done]:
    def run(*arguments: object, before: str = "") -> Done:
        done = subprocess.run(
            command(*arguments, before=before),
            capture_output=True,
            text=True,
            check=False,
            timeout=250,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(PLAN)
    return path


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of 256 KiB; skips where no such disk can be mounted."""
    with mounted(tmp_path / "small", "size=256k") as path:
        yield path


@contextmanager
def mounted(path: Path, options: str) -> Iterator[Path]:
    path.mkdir()
    call = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)]
    try:
        done = subprocess.run(call, capture_output=True, check=False)
    except OSError:
        pytest.skip("there is no mount here")
    if done.returncode != 0:
        pytest.skip("nothing may be mounted here")
    try:
        yield path
    finally:
        subprocess.run(["umount", str(path)], check=True)


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A folder in which nothing can be made, not even by an administrator if one runs this."""
    if os.getuid() == 0:
        with mounted(tmp_path / "read-only", "ro") as path:
            yield path
        return
    path = tmp_path / "read-only"
    path.mkdir(mode=0o555)
    yield path
