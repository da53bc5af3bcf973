from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from delineate.errors import OutputError, SettingsError
from delineate.training.folder import LOCK, await_joinable, clear, joinable, locked, refuse_folder


def refusal(out: Path, *, force: bool) -> str:
    with pytest.raises(OutputError) as caught:
        refuse_folder(out, force=force)
    return str(caught.value)


def test_where_a_run_may_begin(tmp_path: Path) -> None:
    refuse_folder(tmp_path / "absent", force=False)
    refuse_folder(tmp_path, force=False)
    (tmp_path / LOCK).touch()  # what a refused start leaves
    refuse_folder(tmp_path, force=False)


@pytest.mark.parametrize("name", ["plan.yaml", "run.json"])
def test_a_run_is_replaced_only_when_forced(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    assert refusal(tmp_path, force=False) == (
        f"{tmp_path}: exists already. Name another, or add --force."
    )
    refuse_folder(tmp_path, force=True)


def test_a_folder_of_something_else_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    assert refusal(tmp_path, force=True) == (
        f"{tmp_path}: is a folder that holds no run, so it is not replaced. Name another."
    )
    file = tmp_path / "notes.txt"
    assert refusal(file, force=True) == f"{file}: is a file, and a run is a folder. Name another."


def test_one_process_at_a_time(tmp_path: Path) -> None:
    out = tmp_path / "run"
    code = (
        "import sys; from pathlib import Path; from delineate.training.folder import locked\n"
        "with locked(Path(sys.argv[1])): print('in', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(out)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"in\n"
        with pytest.raises(OutputError) as caught, locked(out):
            pass
        other.kill()  # a lock ends with its process, however that ends
    assert str(caught.value) == (
        f"{out}: is being trained by another process. Wait for it to end, or name another."
    )
    with locked(out):
        pass
    assert [path.name for path in out.iterdir()] == [LOCK]


def test_what_is_removed(tmp_path: Path) -> None:
    bundles = ("first.bundle", "second.bundle", "none.bundle")
    for name in ("checkpoints", "tensorboard", *bundles):
        (tmp_path / name).mkdir()
    for name in ("first.bundle/manifest.json", "second.bundle/manifest.json", "none.bundle/mine",
                 "clock", "metrics.csv", "checkpoints/.last.9.part", "checkpoints/last.safetensors",
                 "notes.txt", "result.json"):  # fmt: skip
        (tmp_path / name).touch()
    for name in ("fold-0/plan.yaml", "mine/plan.yaml", "half/notes.txt"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    clear(tmp_path, all_of_it=False)
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["last.safetensors"]
    assert len(list(tmp_path.iterdir())) == 11
    assert not (tmp_path / "result.json").exists()  # it is about to go on
    clear(tmp_path, all_of_it=True)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["checkpoints", "half", "mine", "none.bundle", "notes.txt"]
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_machines_are_taken_in_while_a_training_says_so(tmp_path: Path) -> None:
    with pytest.raises(SettingsError):
        await_joinable(tmp_path, 0.0)
    with joinable(tmp_path):
        await_joinable(tmp_path, 0.0)
        await_joinable(tmp_path, 0.0)
    with pytest.raises(SettingsError):
        await_joinable(tmp_path, 0.0)
    with joinable(tmp_path):  # another training
        await_joinable(tmp_path, 0.0)
