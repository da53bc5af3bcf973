from __future__ import annotations

import errno
from pathlib import Path

import pytest

from delineate.data.files import (
    atomic_file,
    atomic_folder,
    link_or_copy,
    refuse_existing,
    staging_folder,
    write_text,
    write_together,
)
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


def test_files_that_belong_together_are_there_all_or_none(tmp_path: Path) -> None:
    good, bad = tmp_path / "a.npz", tmp_path / "file" / "a.png"
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OutputError) as caught:
        write_together({good: b"extra", bad: b"mask"})
    assert caught.value.where == str(bad)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    write_together({good: b"extra", tmp_path / "b" / "a.png": b"mask"})
    assert good.read_bytes() == b"extra"
    assert (tmp_path / "b" / "a.png").read_bytes() == b"mask"


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with pytest.raises(RuntimeError), atomic_folder(target, marker="old") as part:
        half_written(part / "a")
    assert not any(tmp_path.iterdir())
    with atomic_folder(target, marker="old") as part:
        (part / "a").write_text("a")
    assert (target / "a").read_text() == "a"
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_is_replaced_only_by_force_and_only_when_done(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    (target / "old").write_text("old")
    with pytest.raises(OutputError, match="exists already"), atomic_folder(target, marker="old"):
        pass
    with pytest.raises(RuntimeError), atomic_folder(target, marker="old", force=True) as part:
        half_written(part / "new")
    assert (target / "old").read_text() == "old"
    with atomic_folder(target, marker="old", force=True) as part:
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


def test_force_replaces_nothing_that_is_something_else(tmp_path: Path) -> None:
    thesis = tmp_path / "docs"
    thesis.mkdir()
    (thesis / "thesis.tex").write_text("years of work")
    link, note = tmp_path / "link", tmp_path / "note"
    link.symlink_to(thesis)
    note.write_text("a note")
    before = sorted(tmp_path.iterdir())
    for path, found in (
        (thesis, "is a folder without dataset.yaml, so it is not replaced"),
        (link, "is a file or a link, so no folder replaces it"),
        (note, "is a file or a link, so no folder replaces it"),
    ):
        for folder in (
            atomic_folder(path, marker="dataset.yaml", force=True),
            staging_folder(path, marker="dataset.yaml", force=True, keep=lambda _: True),
        ):
            with pytest.raises(OutputError) as caught, folder:
                pass
            assert str(caught.value) == f"{path}: {found}. Name another."
    assert sorted(tmp_path.iterdir()) == before
    assert (thesis / "thesis.tex").read_text() == "years of work"


def test_the_folder_one_stands_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with atomic_folder(Path(), marker="a") as part:
        (part / "a").write_text("a")
    assert (tmp_path / "here/a").read_text() == "a"
    assert [p.name for p in tmp_path.iterdir()] == ["here"]


def test_a_mount_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "is_mount", lambda path: path == tmp_path)
    with pytest.raises(OutputError) as caught, atomic_folder(tmp_path, marker="a"):
        pass
    assert str(caught.value) == f"{tmp_path}: is a mount point. Name a folder inside it."


def test_a_stop_between_the_two_renames_keeps_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out"
    target.mkdir()
    (target / "old").write_text("old")
    real = Path.rename

    def rename(self: Path, other: Path) -> Path:
        if self.suffix == ".part":
            raise KeyboardInterrupt
        return real(self, other)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(KeyboardInterrupt), atomic_folder(target, marker="old", force=True):
        pass
    assert (target / "old").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_link_or_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_text("a")
    assert link_or_copy(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").samefile(tmp_path / "a")
    assert not link_or_copy(tmp_path / "none", tmp_path / "b")

    def no_links(self: Path, target: Path) -> None:  # noqa: ARG001
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(Path, "hardlink_to", no_links)
    assert link_or_copy(tmp_path / "a", tmp_path / "c")
    assert (tmp_path / "c").read_text() == "a"
    assert not (tmp_path / "c").samefile(tmp_path / "a")
    assert not link_or_copy(tmp_path / "none", tmp_path / "d")
