from __future__ import annotations

import io
import json
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

from delineate.data.dataset import DatasetInfo
from delineate.data.formats.huggingface import (
    HuggingFaceSource,
    is_huggingface,
    open_huggingface,
)
from delineate.data.formats.settings import ImportSettings
from delineate.data.formats.source import Source
from delineate.errors import (
    DatasetError,
    DelineateError,
    ImageError,
    MaskError,
    MissingExtraError,
)

PICTURE = pa.struct({"bytes": pa.binary(), "path": pa.string()})
IMAGE = {"_type": "Image"}
RNG = np.random.default_rng(5)
INFO = DatasetInfo(classes=("background", "cell", "gland"), ignore_index=255)


def encode(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Pillow.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def photo(kind: str = "JPEG") -> bytes:
    return encode(RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8), kind)


def mask() -> np.ndarray:
    return RNG.integers(0, 3, (6, 8), dtype=np.uint8)


def cell(data: bytes | None, path: str | None = None) -> dict[str, Any]:
    return {"bytes": data, "path": path}


def table(
    rows: list[dict[str, Any]], described: dict[str, Any] | None = None, **types: Any
) -> pa.Table:
    types = {name: PICTURE for name in rows[0] if name not in types} | types
    schema = pa.schema(types)
    if described is not None:
        about = json.dumps({"info": {"features": described}})
        schema = schema.with_metadata({"huggingface": about})
    return pa.Table.from_pylist(rows, schema)


def rows(n: int, *, paths: bool = True, suffix: str = ".jpg") -> list[dict[str, Any]]:
    return [
        {
            "image": cell(photo(), f"photo{index}{suffix}" if paths else None),
            "mask": cell(encode(mask())),
        }
        for index in range(n)
    ]


def save(folder: Path, found: pa.Table, *, split: str | None = None, shards: int = 1) -> Path:
    """As Dataset.save_to_disk writes."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"data-{i:05d}-of-{shards:05d}.arrow" for i in range(shards)]
    size = -(-found.num_rows // shards)
    for index, name in enumerate(names):
        with pa.ipc.new_stream(str(folder / name), found.schema) as writer:
            writer.write_table(found.slice(index * size, size), max_chunksize=2)
    state = {"_data_files": [{"filename": name} for name in names], "_split": split}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text(json.dumps({"features": {}}))
    return folder


def opened(source: Path, **options: Any) -> HuggingFaceSource:
    return open_huggingface(ImportSettings(source=source, out=source.parent / "out", **options))


def refusal(kind: type[DelineateError], source: Path, **options: Any) -> str:
    with pytest.raises(kind) as caught:
        opened(source, **options)
    return str(caught.value)


def check(source: HuggingFaceSource, expected: list[dict[str, Any]]) -> None:
    assert len(source.items) == len(expected)
    for item, row in zip(source.items, expected, strict=True):
        assert source.image_bytes(item) == row["image"]["bytes"]
        assert source.evidence(item) == row["mask"]["bytes"]
        truth = np.array(Pillow.open(io.BytesIO(row["mask"]["bytes"])))
        found = source.labels(item, (6, 8), INFO)
        np.testing.assert_array_equal(found.classes, truth)
        assert found.instances is None


@pytest.mark.parametrize("shards", [1, 3])
def test_save_to_disk(tmp_path: Path, shards: int) -> None:
    made = rows(7)
    source = opened(save(tmp_path / "set", table(made), split="train", shards=shards))
    assert isinstance(source, Source)
    check(source, made)
    assert [item.file_name for item in source.items] == [f"photo{i}.jpg" for i in range(7)]
    assert {item.split for item in source.items} == {"all"}
    assert source.items[0].where.endswith(f"data-00000-of-{shards:05d}.arrow, row 0")
    assert source.proposal.classes is None
    assert source.proposal.notes == ("images are the column 'image', masks 'mask'",)


def test_a_dict_of_splits(tmp_path: Path) -> None:
    made = {name: rows(2) for name in ("train", "validation", "test")}
    made["test"][1]["mask"] = None
    for name, members in made.items():
        save(tmp_path / "set" / name, table(members))
    (tmp_path / "set" / "dataset_dict.json").write_text(json.dumps({"splits": list(made)}))
    source = opened(tmp_path / "set")
    assert [(i.split, i.name, i.labelled) for i in source.items] == [
        ("test", "photo0", True),
        ("test", "photo1", False),
        ("train", "photo0", True),
        ("train", "photo1", True),
        ("val", "photo0", True),
        ("val", "photo1", True),
    ]
    val = [item for item in source.items if item.split == "val"]
    assert source.image_bytes(val[1]) == made["validation"][1]["image"]["bytes"]
    with pytest.raises(MaskError) as caught:
        source.labels(source.items[1], (6, 8), INFO)
    assert str(caught.value) == (
        f"{source.items[1].where}, column 'mask': is empty. Remove the row, or fill it."
    )


@pytest.mark.parametrize("folder", ["data", "."])
def test_parquet(tmp_path: Path, folder: str) -> None:
    made = {"train": rows(5), "validation": rows(3)}
    place = tmp_path / "set" / folder
    place.mkdir(parents=True)
    first, rest = made["train"][:2], made["train"][2:]
    pq.write_table(table(first), place / "train-00000-of-00002.parquet")
    pq.write_table(table(rest), place / "train-00001-of-00002.parquet", row_group_size=2)
    pq.write_table(table(made["validation"]), place / "validation-00000-of-00001-0a1b.parquet")
    source = opened(tmp_path / "set")
    assert [item.split for item in source.items] == ["train"] * 5 + ["val"] * 3
    check(source, [*made["train"], *made["validation"]])


def test_parquet_of_one_folder_a_split(tmp_path: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / "set" / split).mkdir(parents=True)
        pq.write_table(table(rows(2)), tmp_path / "set" / split / "0000.parquet")
    assert [item.split for item in opened(tmp_path / "set").items] == ["test"] * 2 + ["train"] * 2


def test_from_several_threads(tmp_path: Path) -> None:
    made = rows(40)
    (tmp_path / "set").mkdir()
    pq.write_table(table(made), tmp_path / "set" / "train.parquet", row_group_size=3)
    source = opened(tmp_path / "set")
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(source.image_bytes, source.items))
        masks = list(pool.map(source.evidence, source.items))
    assert found == [row["image"]["bytes"] for row in made]
    assert masks == [row["mask"]["bytes"] for row in made]


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 9), st.integers(1, 4), st.integers(1, 5), st.booleans())
def test_every_row_is_found(n: int, shards: int, group: int, parquet: bool) -> None:
    made = rows(n)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "set"
        if parquet:
            folder.mkdir()
            pq.write_table(table(made), folder / "train.parquet", row_group_size=group)
        else:
            save(folder, table(made), shards=shards)
        check(opened(folder), made)


def test_names_where_there_are_no_paths(tmp_path: Path) -> None:
    made = rows(11, paths=False)
    for row in made:
        row["image"]["bytes"] = photo("PNG")
    source = opened(save(tmp_path / "set", table(made), split="train"))
    assert [source.items[i].file_name for i in (0, 10)] == ["train_00.png", "train_10.png"]
    made = rows(2)
    made[1]["image"]["path"] = "other/photo0.jpeg"
    source = opened(save(tmp_path / "set", table(made)))
    assert [i.file_name for i in source.items] == ["train_0.jpg", "train_1.jpeg"]


def test_images_beside_the_dataset(tmp_path: Path) -> None:
    made = rows(1)
    data = made[0]["image"]["bytes"]
    made[0]["image"] = cell(None, "pictures/a.jpg")
    folder = save(tmp_path / "set", table(made))
    source = opened(folder)
    with pytest.raises(ImageError) as missing:
        source.image_bytes(source.items[0])
    assert str(missing.value) == f"{folder / 'pictures' / 'a.jpg'}: no such file."
    (folder / "pictures").mkdir()
    (folder / "pictures" / "a.jpg").write_bytes(data)
    assert source.image_bytes(source.items[0]) == data
    assert source.items[0].file_name == "a.jpg"

    for path in ("/etc/passwd", "../secret"):
        made[0]["image"] = cell(None, path)
        source = opened(save(tmp_path / "set", table(made)))
        with pytest.raises(DatasetError) as outside:
            source.image_bytes(source.items[0])
        assert str(outside.value) == (
            f"{source.items[0].where}, column 'image': names the file {path!r}, which is outside "
            f"of {folder}. Write the images into the dataset: the library's embed_table_storage "
            "does."
        )
    made[0]["image"] = cell(None, None)
    source = opened(save(tmp_path / "set", table(made)))
    with pytest.raises(ImageError, match="column 'image': is empty"):
        source.image_bytes(source.items[0])


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (("img", "segmentation"), ("img", "segmentation")),
        (("label", "pixel_values"), ("pixel_values", "label")),
        (("photo", "annotation"), ("photo", "annotation")),
        (("image", "target"), ("image", "target")),
        (("depth", "image", "labels"), ("image", "labels")),
    ],
)
def test_names_of_columns(tmp_path: Path, names: tuple[str, ...], found: tuple[str, str]) -> None:
    row = {name: cell(photo(), "a.jpg") for name in names}
    source = opened(save(tmp_path / "set", table([row])))
    assert source.proposal.notes[0] == f"images are the column {found[0]!r}, masks {found[1]!r}"


def test_columns_that_cannot_be_told(tmp_path: Path) -> None:
    made = [{"a": cell(b""), "b": cell(b""), "n": 1}]
    folder = save(tmp_path / "set", table(made, n=pa.int64()))
    assert refusal(DatasetError, folder) == (
        f"{folder}: has no images and no masks that can be told: its columns are a (Image), "
        "b (Image), n (int64). Make them columns of the type Image, and call them image and mask "
        'with: dataset.rename_column("OLD", "mask").'
    ).removesuffix(".")
    (folder / "state.json").unlink()
    pq.write_table(table(rows(1)), folder / "train.parquet")
    pq.write_table(table([{"image": cell(b"")}]), folder / "test.parquet")
    assert refusal(DatasetError, folder) == (
        f"{folder}: has no masks that can be told: its columns are image (Image). Make them "
        "columns of the type Image, and call them image and mask with: "
        'dataset.rename_column("OLD", "mask")'
    )
    (folder / "a.parquet").write_bytes((folder / "train.parquet").read_bytes())
    assert refusal(DatasetError, folder) == (
        f"{folder / 'test.parquet'}: has no column 'mask' of images, and other files of the "
        "dataset have. Give the folder of one configuration of the dataset."
    )


def test_class_names(tmp_path: Path) -> None:
    label = {"_type": "ClassLabel", "names": ["sky", "cell"]}
    described: dict[str, Any] = {"image": IMAGE, "mask": IMAGE, "scene": label}
    made = [{**row, "scene": 0} for row in rows(1)]
    folder = save(tmp_path / "set", table(made, described, scene=pa.int64()))
    source = opened(folder)
    assert source.proposal.classes is None
    assert source.proposal.notes[1:] == (
        "the column 'scene' is a class of whole images, and is not used",
    )
    for several in ({"_type": "List", "feature": label}, [label]):
        made = [{**row, "scene": [0]} for row in rows(1)]
        found = table(made, {**described, "scene": several}, scene=pa.list_(pa.int64()))
        source = opened(save(tmp_path / "set", found))
        assert source.proposal.classes == ("sky", "cell")
        assert source.proposal.notes[1:] == ("classes are from the column 'scene'",)

    file = folder / "id2label.json"
    for names, classes, ignore in (
        ({"1": "cell", "0": "bg"}, ("bg", "cell"), None),
        ({"1": "cell", "2": "gland"}, ("background", "cell", "gland"), None),
        ({"0": "bg", "1": "cell", "255": "Void"}, ("bg", "cell"), 255),
    ):
        file.write_text(json.dumps(names))
        source = opened(folder)
        assert (source.proposal.classes, source.proposal.ignore_index) == (classes, ignore)
    file.write_text('{"0": "bg", "2": "cell"}')
    assert refusal(DatasetError, folder) == (
        f"{file}: names 2 classes up to 2, and none of them is 1. "
        'Add "1", or number the classes from 0.'
    )
    file.write_text("[]")
    assert refusal(DatasetError, folder) == (
        f"{file}: cannot be read as names by id (Expected `object`, got `array`). "
        'It looks like: {"0": "background", "1": "cell"}'
    )


def test_features_beside_the_file(tmp_path: Path) -> None:
    folder = save(tmp_path / "set", table(rows(1)))
    described = {"image": IMAGE, "mask": {"_type": "Value", "dtype": "binary"}}
    (folder / "dataset_info.json").write_text(json.dumps({"features": described}))
    assert "has no masks that can be told: its columns are image (Image), mask (Value)" in (
        refusal(DatasetError, folder)
    )


def test_masks_that_are_refused(tmp_path: Path) -> None:
    colour = encode(np.zeros((6, 8, 3), np.uint8))
    lossy = encode(np.zeros((6, 8), np.uint8), "JPEG")
    wide = encode(np.zeros((6, 9), np.uint8))
    other = encode(np.full((6, 8), 9, np.uint8))
    made = rows(5)
    for row, data in zip(made, (colour, lossy, wide, other, b"junk"), strict=True):
        row["mask"]["bytes"] = data
    source = opened(save(tmp_path / "set", table(made)))
    found = []
    for item in source.items:
        with pytest.raises(MaskError) as caught:
            source.labels(item, (6, 8), INFO)
        found.append(str(caught.value).removeprefix(f"{item.where}, column 'mask': "))
    assert found == [
        "is an 8-bit RGB PNG, and a mask has one channel of class ids. Map its colours to ids "
        "with dataset.map, or save the masks as files and import them with: delineate data "
        "import --format rgb --colours ...",
        "is a JPEG, and masks are PNG files. Export the mask as an indexed or grey PNG; a lossy "
        "format changes ids.",
        "is 9 x 6 pixels (width x height), and its image is 8 x 6. Write the mask at 8 x 6, "
        "without interpolation.",
        "has the id 9 (48 pixels), and the classes go from 0 to 2 and 255 is ignored. "
        "Name 10 classes.",
        "is text (it starts with 'junk'), not a mask that can be read. Convert it to PNG, TIFF, "
        "JPEG, WebP or BMP.",
    ]


def test_damage(tmp_path: Path) -> None:
    again = "Save or fetch the dataset again."
    folder = save(tmp_path / "set", table(rows(2)))
    file = folder / "data-00000-of-00001.arrow"
    good = file.read_bytes()
    for data in (good[: len(good) // 2], b"junk" * 100, b""):
        file.write_bytes(data)
        message = refusal(DatasetError, folder)
        assert message.startswith(f"{file}: is damaged or no such file (")
        assert message.endswith(again)
    file.unlink()
    assert refusal(DatasetError, folder) == (
        f"{file}: is named by the dataset and not there. {again}"
    )
    for name in ("../x.arrow", "/etc/passwd", ""):
        (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}]}))
        assert refusal(DatasetError, folder) == (
            f"{folder / 'state.json'}: names the file {name!r}, which is not in the same folder. "
            f"{again}"
        )
    (folder / "state.json").write_text("{")
    assert refusal(DatasetError, folder).startswith(f"{folder / 'state.json'}: cannot be read (")
    (folder / "dataset_dict.json").write_text('{"splits": ["../../x"]}')
    assert refusal(DatasetError, folder) == (
        f"{folder / 'dataset_dict.json'}: names the split '../../x', and such a name has letters, "
        "digits, spaces and _ - . alone. Rename it to train, val or test."
    )
    (folder / "dataset_dict.json").write_text('{"splits": []}')
    assert refusal(DatasetError, folder) == f"{folder}: has no Arrow or Parquet files."


def test_damaged_parquet_and_description(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    file = folder / "train.parquet"
    file.write_bytes(b"PAR1 no more")
    assert refusal(DatasetError, folder).startswith(f"{file}: is damaged or no such file (")
    pq.write_table(table(rows(2)), file)
    source = opened(folder)
    file.unlink()
    with pytest.raises(DatasetError, match="is damaged or no such file"):
        source.image_bytes(source.items[0])
    found = table(rows(1))
    pq.write_table(found.replace_schema_metadata({"huggingface": "{}"}), file)
    assert refusal(DatasetError, folder) == (
        f"{file}: has a damaged description of its columns. Save or fetch the dataset again."
    )
    pq.write_table(found.slice(0, 0), file)
    assert refusal(DatasetError, folder) == f"{folder}: has no rows."


def test_links_that_lead_out(tmp_path: Path) -> None:
    save(tmp_path / "elsewhere", table(rows(1)))
    folder = tmp_path / "set"
    folder.mkdir()
    pq.write_table(table(rows(1)), tmp_path / "outside.parquet")
    (folder / "train.parquet").symlink_to(tmp_path / "outside.parquet")
    assert refusal(DatasetError, folder) == (
        f"{folder / 'train.parquet'}: is a link that leads out of the source, to "
        f"{tmp_path / 'outside.parquet'}. If that is meant, add --follow-links."
    )
    assert len(opened(folder, follow_links=True).items) == 1


def test_sniffing(tmp_path: Path) -> None:
    assert is_huggingface(save(tmp_path / "set", table(rows(1))))
    assert not is_huggingface(tmp_path / "set" / "state.json")
    assert not is_huggingface(tmp_path)
    (tmp_path / "state.json").write_text("{}")
    assert not is_huggingface(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.parquet").touch()
    assert is_huggingface(tmp_path)


def test_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save(tmp_path / "set", table(rows(1)))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.ipc", None)
    assert refusal(MissingExtraError, folder) == (
        "this needs pyarrow, which is not installed. Install it with: pip install 'delineate[hf]'"
    )


@pytest.mark.parametrize("split", ["../../../pwned", "..", "/etc", "a/b", "a\\b", ".a", "a\n"])
def test_splits_that_are_no_plain_names_are_refused(tmp_path: Path, split: str) -> None:
    folder = save(tmp_path / "set", table(rows(2)), split=split)
    assert refusal(DatasetError, folder) == (
        f"{folder / 'data-00000-of-00001.arrow'}: names the split {split!r}, and such a name has "
        "letters, digits, spaces and _ - . alone. Rename it to train, val or test."
    )


def test_splits_from_names_of_files_and_through_links_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "hub/..-00000-of-00001.parquet"
    file.parent.mkdir()
    pq.write_table(table(rows(2)), file)
    assert refusal(DatasetError, file.parent).startswith(f"{file}: names the split '..', and ")
    save(tmp_path / "other", table(rows(2)))
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "train").symlink_to(tmp_path / "other")
    (folder / "dataset_dict.json").write_text('{"splits": ["train"]}')
    assert refusal(DatasetError, folder) == (
        f"{folder}: names the split 'train', which is outside."
    )


@pytest.mark.parametrize("path", ["../..", ".hidden.jpg", "a\0.jpg", "photo0.j\0g"])
def test_samples_are_numbered_where_a_path_is_no_name_of_a_file(tmp_path: Path, path: str) -> None:
    made = rows(2)
    made[1]["image"]["path"] = path
    source = opened(save(tmp_path / "set", table(made)))
    assert [item.file_name for item in source.items] == ["train_0.jpg", "train_1.jpg"]
