from __future__ import annotations

import io
import shutil
import tarfile
import tempfile
import zipfile
from collections import namedtuple
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from delineate.data.formats import archive
from delineate.data.formats.archive import unpacked
from delineate.errors import DatasetError

Usage = namedtuple("Usage", "total used free")


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def a_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as pack:
        for name, data in files.items():
            pack.writestr(name, data)
    return path


def a_tar(path: Path, *entries: tarfile.TarInfo | tuple[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tape:
        for entry in entries:
            if isinstance(entry, tarfile.TarInfo):
                tape.addfile(entry)
            else:
                info = tarfile.TarInfo(entry[0])
                info.size = len(entry[1])
                tape.addfile(info, io.BytesIO(entry[1]))
    return path


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def content(folder: Path) -> dict[str, bytes]:
    files = (p for p in folder.rglob("*") if p.is_file())
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}


def refusal(source: Path, temporary: Path) -> str:
    with pytest.raises(DatasetError) as caught, unpacked(source):
        pass
    assert list(temporary.iterdir()) == [], "something was left behind"
    assert not (source.parent / "evil").exists()
    return str(caught.value)


def entry_message(source: Path, entry: str, found: str) -> str:
    return (
        f"{source}: the entry {entry!r} {found}; nothing was unpacked. "
        "Unpack it yourself, if you trust it, and give the folder."
    )


def test_what_is_no_archive_stays_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text("{}")
    for path in (file, tmp_path, tmp_path / "absent"):
        with unpacked(path) as found:
            assert found == path


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_a_tar_is_unpacked_and_removed(tmp_path: Path, temporary: Path, mode: str) -> None:
    source = a_tar(tmp_path / "a.archive", ("x/1.png", b"one"), ("y.txt", b""), mode=mode)
    with unpacked(source) as folder:
        assert content(folder) == {"x/1.png": b"one", "y.txt": b""}
        assert folder.parent == temporary
    assert list(temporary.iterdir()) == []


def test_one_top_folder_is_entered_and_what_finder_adds_left_out(tmp_path: Path) -> None:
    files = {"set/images/1.png": b"i", "set/masks/1.png": b"m", "__MACOSX/set/._1.png": b"?"}
    with unpacked(a_zip(tmp_path / "a.zip", files)) as folder:
        assert content(folder) == {"images/1.png": b"i", "masks/1.png": b"m"}
        assert folder.name == "set"
    with unpacked(a_zip(tmp_path / "b.zip", {"only.json": b"{}"})) as folder:
        assert content(folder) == {"only.json": b"{}"}


def test_links_inside_a_tar_are_kept(tmp_path: Path) -> None:
    source = a_tar(
        tmp_path / "a.tar", ("d/1.png", b"one"), special("d/2.png", tarfile.SYMTYPE, "1.png")
    )
    with unpacked(source) as folder:
        assert content(folder) == {"1.png": b"one", "2.png": b"one"}


@settings(max_examples=20, deadline=None)
@given(
    st.dictionaries(st.from_regex(r"[a-z]{1,3}/[a-z]{1,3}\.png", fullmatch=True), st.binary()),
    st.booleans(),
)
def test_files_come_back_as_they_were(files: dict[str, bytes], as_zip: bool) -> None:
    files = {"top.txt": b"", **files}
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "a"
        source = a_zip(path, files) if as_zip else a_tar(path, *files.items(), mode="w:gz")
        with unpacked(source) as folder:
            assert content(folder) == files


@pytest.mark.parametrize("packed", ["zip", "tar"])
@pytest.mark.parametrize(
    ("entry", "found"),
    [
        ("/tmp/evil", "has an absolute path"),
        ("C:\\evil", "has an absolute path"),
        ("../evil", "leads out of the archive"),
        ("a/../../evil", "leads out of the archive"),
        ("a\\..\\..\\evil", "leads out of the archive"),
    ],
)
def test_paths_that_lead_out(
    tmp_path: Path, temporary: Path, packed: str, entry: str, found: str
) -> None:
    source = tmp_path / f"a.{packed}"
    if packed == "zip":
        a_zip(source, {"fine.png": b"", entry: b""})
    else:
        a_tar(source, ("fine.png", b""), (entry, b""))
    assert refusal(source, temporary) == entry_message(source, entry, found)


def test_links_and_devices(tmp_path: Path, temporary: Path) -> None:
    source = tmp_path / "a.tar"
    out = "is a link that leads out, to '/etc/passwd'"
    a_tar(source, special("x", tarfile.SYMTYPE, "/etc/passwd"))
    assert refusal(source, temporary) == entry_message(source, "x", out)
    a_tar(source, special("x", tarfile.SYMTYPE, "../../evil"))
    found = "is a link that leads out, to '../../evil'"
    assert refusal(source, temporary) == entry_message(source, "x", found)
    a_tar(source, special("x", tarfile.LNKTYPE, "../evil"))
    found = "is a link that leads out, to '../evil'"
    assert refusal(source, temporary) == entry_message(source, "x", found)
    a_tar(source, special("x", tarfile.LNKTYPE, "nowhere"))
    found = "is a link to 'nowhere', which is not there"
    assert refusal(source, temporary) == entry_message(source, "x", found)
    for kind in (tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE):
        a_tar(source, special("x", kind))
        assert refusal(source, temporary) == entry_message(source, "x", "is a device")


def test_links_and_devices_of_a_zip(tmp_path: Path, temporary: Path) -> None:
    source = tmp_path / "a.zip"
    for mode, found in ((0o120777, "is a link"), (0o020666, "is a device")):
        info = zipfile.ZipInfo("x")
        info.external_attr = mode << 16
        with zipfile.ZipFile(source, "w") as pack:
            pack.writestr(info, "1.png")
        assert refusal(source, temporary) == entry_message(source, "x", found)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_entries_of_one_name(tmp_path: Path, temporary: Path) -> None:
    tar = a_tar(tmp_path / "a.tar", ("m/1.png", b"a"), ("./m/1.png", b"b"))
    assert refusal(tar, temporary) == entry_message(tar, "./m/1.png", "is there twice")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as pack:
        pack.writestr("m/1.png", "a")
        pack.writestr("m/1.png", "b")
    pack_file = tmp_path / "a.zip"
    assert refusal(pack_file, temporary) == entry_message(pack_file, "m/1.png", "is there twice")


def test_sizes(tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = a_zip(tmp_path / "a.zip", {"zeros": bytes(10_000)})
    packed = source.stat().st_size
    monkeypatch.setattr(archive, "RATIO_FROM_BYTES", 9_999)
    monkeypatch.setattr(archive, "LARGEST_RATIO", 3)
    found = f"brings the unpacked size to 10000 bytes, more than 3 times the archive's {packed}"
    assert refusal(source, temporary) == entry_message(source, "zeros", found)
    monkeypatch.setattr(archive, "LARGEST_BYTES", 9_999)
    found = "brings the unpacked size to 10000 bytes, over 9999"
    assert refusal(source, temporary) == entry_message(source, "zeros", found)
    monkeypatch.undo()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(9, 9, 9_999))
    assert refusal(source, temporary) == (
        f"{source}: unpacks to 10000 bytes and more (at the entry 'zeros'), and {temporary} has "
        "9999 free; nothing was unpacked. Name a larger folder for temporary files by the "
        "variable TMPDIR."
    )


def test_too_many_entries(tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MOST_ENTRIES", 2)
    source = a_tar(tmp_path / "a.tar", ("a", b""), ("b", b""), ("c", b""))
    found = "is one more than the 2 entries that are allowed"
    assert refusal(source, temporary) == entry_message(source, "c", found)


def test_damaged_empty_encrypted_and_other_archives(tmp_path: Path, temporary: Path) -> None:
    good = a_zip(tmp_path / "a.zip", {"x": bytes(range(256)) * 50}).read_bytes()
    for name, data in (
        ("cut.zip", good[:-30]),
        ("cut.tar.gz", a_tar(tmp_path / "b", ("x", good), mode="w:gz").read_bytes()[:-80]),
        ("cut.tar", a_tar(tmp_path / "b", ("x", b"1"), ("y", b"2")).read_bytes()[:1024]),
        ("cut_header.tar", a_tar(tmp_path / "b", ("x", b"1"), ("y", b"2")).read_bytes()[:1100]),
        ("noise.tar", b"noise" * 300),
        ("flipped.zip", good[:60] + bytes([good[60] ^ 255]) + good[61:]),
    ):
        file = tmp_path / name
        file.write_bytes(data)
        message = refusal(file, temporary)
        assert message.startswith(f"{file}: is a damaged {'ZIP' if 'zip' in name else 'TAR'} ")
        assert message.endswith("Fetch or pack it again.")
    empty = a_zip(tmp_path / "empty.zip", {})
    assert refusal(empty, temporary) == f"{empty}: is an archive without files."
    rar = tmp_path / "a.rar"
    rar.write_bytes(b"Rar!\x1a\x07\x01\x00")
    assert refusal(rar, temporary) == (f"{rar}: is a RAR archive. Unpack it and give the folder.")
    locked = tmp_path / "locked.zip"
    data = bytearray(good)
    data[6] |= 1
    data[good.index(b"PK\x01\x02") + 8] |= 1
    locked.write_bytes(data)
    assert refusal(locked, temporary) == entry_message(locked, "x", "is encrypted")


def test_a_file_that_is_also_a_folder(tmp_path: Path, temporary: Path) -> None:
    source = a_tar(tmp_path / "a.tar", ("a", b"1"), ("a/b", b"2"))
    message = refusal(source, temporary)
    assert message.startswith(f"{source}: cannot be unpacked into {temporary} (")


def test_an_error_inside_the_block_removes_everything(tmp_path: Path, temporary: Path) -> None:
    source = a_tar(tmp_path / "a.tar", ("a", b"1"))
    with pytest.raises(ValueError, match=r"^mine$"), unpacked(source):
        raise ValueError("mine")
    assert list(temporary.iterdir()) == []
