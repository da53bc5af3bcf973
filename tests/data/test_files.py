from __future__ import annotations

import errno
from pathlib import Path

import pytest

from delineate.data.files import atomic_file, atomic_folder, refuse_existing, write_text
from delineate.errors import OutputError


def half_written(path: Path) -> None:
    path.write_text("half")
    raise RuntimeError("interrupted")


def test_a_file_takes_its_name_when_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "a.txt"
    with atomic_file(target) as part:
        part.write_text("new")
        assert not target.exists()
    assert target.read_text() == "new"
    assert [p.name for p in target.parent.iterdir()] == ["a.txt"]


def test_an_error_leaves_the_old_file_alone(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    write_text(target, "old")
    with pytest.raises(RuntimeError), atomic_file(target) as part:
        half_written(part)
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError) as caught, atomic_file(tmp_path / "a"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert str(caught.value) == (
        f"{tmp_path / 'a'}: the disk is full. Free some space and run the command again."
    )
    assert not any(tmp_path.iterdir())


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with pytest.raises(RuntimeError), atomic_folder(target) as part:
        half_written(part / "a")
    assert not any(tmp_path.iterdir())
    with atomic_folder(target) as part:
        (part / "a").write_text("a")
    assert (target / "a").read_text() == "a"
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_is_replaced_only_by_force_and_only_when_done(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    (target / "old").write_text("old")
    with pytest.raises(OutputError, match="exists already"), atomic_folder(target):
        pass
    with pytest.raises(RuntimeError), atomic_folder(target, force=True) as part:
        half_written(part / "new")
    assert (target / "old").read_text() == "old"
    with atomic_folder(target, force=True) as part:
        (part / "new").write_text("new")
    assert [p.name for p in target.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [target]


def test_an_empty_folder_counts_as_absent(tmp_path: Path) -> None:
    refuse_existing(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    refuse_existing(tmp_path / "empty")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError) as caught:
        refuse_existing(tmp_path / "file")
    assert str(caught.value) == (
        f"{tmp_path / 'file'}: exists already. Name another, or add --force."
    )
