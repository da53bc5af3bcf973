"""A bundle on disk: whole, or refused with the file that is wrong; written whole, or not at all."""

from __future__ import annotations

import errno
import json
import os
import shutil
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from delineate.bundle.manifest import Manifest, read_manifest
from delineate.bundle.store import MANIFEST, BundleStore, write_bundle
from delineate.errors import BundleError, OutputError

FILES = {
    "model.onnx": bytes(range(256)) * 4,
    "card.md": b"# A card\n",
    "canary/images/one.png": b"not really",
    "canary/images/two.png": b"a picture",
}
MANY = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="session")
def manifest(tiny_bundle):
    text = (tiny_bundle / MANIFEST).read_bytes()
    return read_manifest(text, "").model_copy(update={"files": {}})


@pytest.fixture(params=["net.bundle", "net.bundle.zip"])
def path(request, tmp_path, manifest):
    """The same bundle as a folder and as a zip."""
    write_bundle(tmp_path / request.param, manifest, FILES)
    return tmp_path / request.param


@pytest.fixture
def folder(tmp_path, manifest):
    write_bundle(tmp_path / "net.bundle", manifest, FILES)
    return tmp_path / "net.bundle"


def _refusal(path):
    with pytest.raises(BundleError) as caught:
        BundleStore(path)
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value).removeprefix(f"{path}: ")


def test_what_is_written_is_read(path, manifest):
    store = BundleStore(path)
    assert {name: store.read(name) for name in FILES} == FILES
    assert store.names("canary/images") == ["canary/images/one.png", "canary/images/two.png"]
    assert store.names("canary") == store.names("canary/images")
    assert store.names("can") == []
    assert set(store.manifest.files) == {*FILES, MANIFEST}
    assert store.manifest.model_copy(update={"files": {}}) == manifest


def test_folder_and_zip_hold_the_same(tmp_path, manifest):
    write_bundle(tmp_path / "a.bundle", manifest, FILES)
    write_bundle(tmp_path / "a.zip", manifest, FILES)
    assert BundleStore(tmp_path / "a.bundle").manifest == BundleStore(tmp_path / "a.zip").manifest
    names = {p.relative_to(tmp_path / "a.bundle") for p in (tmp_path / "a.bundle").rglob("*.*")}
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert {Path(name) for name in archive.namelist()} == names
        for name in archive.namelist():
            assert archive.read(name) == (tmp_path / "a.bundle" / name).read_bytes()


def test_a_folder_zipped_by_hand_is_a_bundle(folder, tmp_path):
    made = shutil.make_archive(str(tmp_path / "by-hand"), "zip", folder)
    assert BundleStore(Path(made)).manifest == BundleStore(folder).manifest


@MANY
@given(name=st.sampled_from([*FILES, MANIFEST]), data=st.data())
def test_one_changed_byte_is_refused(folder, name, data):
    file = folder / name
    before = file.read_bytes()
    position = data.draw(st.integers(0, len(before) - 1))
    changed = bytearray(before)
    changed[position] ^= data.draw(st.integers(1, 255))
    file.write_bytes(changed)
    try:
        message = _refusal(folder)
    finally:
        file.write_bytes(before)
    if name != MANIFEST:
        expected = BundleStore(folder).manifest.files[name]
        assert message.startswith(f"{name} was altered: its SHA-256 is ")
        assert message.endswith(
            f"..., the manifest says {expected[:12]}... Copy the bundle again, or export it again."
        )
    else:
        assert "manifest" in message or " is missing" in message or "was altered" in message


@MANY
@given(data=st.data())
def test_a_changed_byte_of_a_zip_is_refused_or_harmless(tmp_path, manifest, data):
    """Nothing but a BundleError, and what is read is never wrong: dates may change unseen."""
    path = tmp_path / "net.zip"
    write_bundle(path, manifest, FILES, force=True)
    before = path.read_bytes()
    position = data.draw(st.integers(0, len(before) - 1))
    changed = bytearray(before)
    changed[position] ^= data.draw(st.integers(1, 255))
    path.write_bytes(changed)
    try:
        store = BundleStore(path)
    except BundleError as error:
        refused = str(error)
    else:
        refused = f"{path}: "
        assert {name: store.read(name) for name in FILES} == FILES
    assert refused.startswith(f"{path}: ")


@MANY
@given(keep=st.floats(0, 0.999))
def test_a_zip_that_was_cut_is_refused(tmp_path, manifest, keep):
    path = tmp_path / "net.zip"
    write_bundle(path, manifest, FILES, force=True)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * keep)])
    _refusal(path)


def test_an_edited_manifest(folder):
    text = (folder / MANIFEST).read_text()
    (folder / MANIFEST).write_text(text.replace('"tile_px": 1024', '"tile_px": 2048'))
    message = _refusal(folder)
    assert message.startswith("manifest.json was altered: its SHA-256 is ")
    assert message.endswith(
        "Copy the bundle again, or export it again. After an edit on purpose, take its line out of "
        "files."
    )
    document = json.loads((folder / MANIFEST).read_text())
    del document["files"][MANIFEST]
    (folder / MANIFEST).write_text(json.dumps(document))
    assert BundleStore(folder).manifest.tiling.tile_px == 2048


def test_missing_and_surplus_files(folder):
    (folder / "card.md").unlink()
    assert _refusal(folder) == "card.md is missing. Copy the bundle again."
    (folder / "notes").mkdir()
    (folder / "notes" / "mine.txt").write_text("hello")
    assert _refusal(folder) == (
        "card.md is missing; notes/mine.txt is not listed in manifest.json. Copy the bundle again."
    )


def test_empty_folders_do_not_matter(folder):
    (folder / "empty").mkdir()
    assert BundleStore(folder).read("card.md") == FILES["card.md"]


def test_a_surplus_file_in_a_zip(tmp_path, manifest):
    path = tmp_path / "net.zip"
    write_bundle(path, manifest, FILES)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("extra.bin", b"1")
    assert _refusal(path) == ("extra.bin is not listed in manifest.json. Copy the bundle again.")


@pytest.mark.parametrize("name", ["../evil.txt", "a/../../evil.txt", "/evil.txt"])
def test_names_that_lead_outside(tmp_path, manifest, name):
    path = tmp_path / "net.zip"
    write_bundle(path, manifest, {**FILES, name: b"evil"})
    assert _refusal(path) == f"{name} lies outside the bundle."
    assert sorted(item.name for item in tmp_path.iterdir()) == ["net.zip"]


def test_a_file_that_the_manifest_does_not_list_is_not_read(folder):
    (folder.parent / "secret").write_text("secret")
    with pytest.raises(BundleError) as caught:
        BundleStore(folder).read("../secret")
    assert str(caught.value) == f"{folder}: ../secret is not listed in manifest.json."


def test_a_zip_that_claims_too_much(tmp_path, manifest, monkeypatch):
    path = tmp_path / "net.zip"
    write_bundle(path, manifest, FILES)
    monkeypatch.setattr("delineate.bundle.store.LARGEST_FILE_BYTES", 1000)
    assert _refusal(path).endswith(" claims more than 2 GiB.")


def test_what_is_no_bundle(tmp_path):
    assert _refusal(tmp_path / "absent.bundle") == (
        "no such bundle. delineate train writes RUN/NAME.bundle."
    )
    (tmp_path / "file.zip").write_text("hello")
    assert _refusal(tmp_path / "file.zip") == (
        "is neither a folder nor a zip. Name a bundle folder or .zip."
    )
    (tmp_path / "folder").mkdir()
    assert _refusal(tmp_path / "folder") == (
        "holds no manifest.json, so it is no bundle. Name the folder that ends in .bundle."
    )
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert _refusal(tmp_path / "other.zip") == (
        "holds no manifest.json, so it is no bundle. Name the folder that ends in .bundle."
    )


def test_another_schema_version(folder):
    text = (folder / MANIFEST).read_text()
    (folder / MANIFEST).write_text(text.replace('"schema_version": 1', '"schema_version": 9'))
    assert _refusal(folder) == (
        "manifest.json has schema version 9, this delineate reads 1. Install the delineate that "
        "wrote it, or export the bundle again."
    )


def test_a_bundle_is_replaced_only_when_forced(path, manifest):
    newer = manifest.model_copy(update={"version": "2"})
    with pytest.raises(OutputError) as caught:
        write_bundle(path, newer, FILES)
    assert str(caught.value) == f"{path}: exists already. Name another, or add --force."
    assert BundleStore(path).manifest.version == "1"
    write_bundle(path, newer, {"model.onnx": b"new"}, force=True)
    store = BundleStore(path)
    assert (store.manifest.version, store.read("model.onnx")) == ("2", b"new")
    assert [item.name for item in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_of_something_else_is_never_replaced(tmp_path, manifest, force):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
    with pytest.raises(OutputError) as caught:
        write_bundle(tmp_path / "thesis", manifest, FILES, force=force)
    assert str(caught.value) == (
        f"{tmp_path / 'thesis'}: is a folder that holds no bundle, so it is not replaced. "
        "Name another."
    )
    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "years of work"


def test_an_empty_folder_may_be_written(tmp_path, manifest):
    (tmp_path / "net.bundle").mkdir()
    write_bundle(tmp_path / "net.bundle", manifest, FILES)
    assert BundleStore(tmp_path / "net.bundle").read("card.md") == FILES["card.md"]


def _full(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("there", [False, True], ids=["new", "replacing"])
@pytest.mark.parametrize(
    ("name", "target", "attribute"),
    [
        ("net.bundle", "pathlib.Path", "write_bytes"),
        ("net.zip", "zipfile.ZipFile", "writestr"),
        ("net.zip", "os", "fsync"),
    ],
)
def test_a_full_disk_leaves_the_old_bundle(
    tmp_path, manifest, monkeypatch, there, name, target, attribute
):
    path = tmp_path / name
    if there:
        write_bundle(path, manifest, FILES)
    with monkeypatch.context() as full:
        full.setattr(f"{target}.{attribute}", _full)
        with pytest.raises(OutputError) as caught:
            write_bundle(path, manifest.model_copy(update={"version": "2"}), FILES, force=there)
    assert str(caught.value) == (
        f"{path}: the disk is full. Free some space and run the command again."
    )
    assert [item.name for item in tmp_path.iterdir()] == ([name] if there else [])
    if there:
        assert BundleStore(path).manifest.version == "1"


def test_the_manifest_may_quote_zeros(tmp_path, manifest):
    """The place of its own hash is found among what a manifest may hold."""
    zeros = "0" * 64
    quoting = Manifest(**{**dict(manifest), "provenance": {"dataset_hash": zeros, "x": zeros}})
    write_bundle(tmp_path / "net.bundle", quoting, FILES)
    assert BundleStore(tmp_path / "net.bundle").manifest.provenance["dataset_hash"] == zeros


def test_a_zip_of_the_folder_is_a_bundle(folder, tmp_path):
    made = shutil.make_archive(str(tmp_path / "made"), "zip", folder.parent, folder.name)
    store = BundleStore(Path(made))
    assert store.manifest == BundleStore(folder).manifest
    assert {name: store.read(name) for name in FILES} == FILES


def test_what_macos_adds_does_not_matter(folder, tmp_path):
    with zipfile.ZipFile(tmp_path / "made.zip", "w") as archive:
        for name in (*FILES, MANIFEST):
            archive.write(folder / name, f"net.bundle/{name}")
        archive.writestr("__MACOSX/net.bundle/._card.md", b"x")
        archive.writestr("net.bundle/canary/.DS_Store", b"x")
    (folder / ".DS_Store").write_bytes(b"x")
    (folder / "canary" / ".DS_Store").write_bytes(b"x")
    assert BundleStore(tmp_path / "made.zip").manifest == BundleStore(folder).manifest


def test_a_zip_of_two_folders(folder, tmp_path):
    with zipfile.ZipFile(tmp_path / "made.zip", "w") as archive:
        for top in ("a", "b"):
            archive.write(folder / MANIFEST, f"{top}/{MANIFEST}")
    assert _refusal(tmp_path / "made.zip").startswith("holds no manifest.json, so it is no bundle")


@pytest.mark.parametrize("name", ["net.bundle", "net.zip"])
def test_a_manifest_that_could_not_be_read_is_not_written(tmp_path, manifest, name):
    wrong = manifest.input.normalisation.model_copy(update={"mean": (float("nan"),) * 3})
    entry = manifest.input.model_copy(update={"normalisation": wrong})
    with pytest.raises(BundleError) as caught:
        write_bundle(tmp_path / name, manifest.model_copy(update={"input": entry}), FILES)
    assert str(caught.value).startswith(
        f"{tmp_path / name}: manifest.json is wrong: input.normalisation.mean.0: "
    )
    assert list(tmp_path.iterdir()) == []
