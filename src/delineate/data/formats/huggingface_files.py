"""Arrow and Parquet files of the Hugging Face library, read row by row (by pyarrow)."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from itertools import accumulate
from pathlib import Path
from threading import Lock
from typing import Any, Protocol, runtime_checkable

import msgspec

from delineate.data.formats.naming import refuse_link_outside
from delineate.errors import DatasetError, MissingExtraError

_COLUMNS_HELD = 4
_SHARD = re.compile(r"^(?P<split>.+?)(-\d{5}-of-\d{5}(-[0-9a-f]+)?)?$")
# splits become folders
_SPLIT_NAME = re.compile(r"\w[\w.\- ]*")
_FETCH_AGAIN = "Save or fetch the dataset again."


class _State(msgspec.Struct):
    data_files: list[dict[str, str]] = msgspec.field(name="_data_files")
    split: str | None = msgspec.field(default=None, name="_split")


class _Splits(msgspec.Struct):
    splits: list[str]


@runtime_checkable
class Shard(Protocol):
    """One file: some rows of one split. Its methods may be called from several threads.

    Attributes:
        path: the file.
        rows: how many it has.
        features: the library's description of each column, by name.
    """

    path: Path
    rows: int
    features: dict[str, Any]

    def heads(self, column: str) -> list[tuple[bool, str | None]]:
        """Whether there is an image in each row, and its ``path``; no image is read."""
        ...

    def value(self, column: str, row: int) -> dict[str, Any] | None:
        """``bytes`` and ``path`` of the image in the row."""
        ...


class RowGroups:
    """Columns of row groups of Parquet files, the last few of which are kept decoded.

    Rows are asked for roughly in order, by several threads, and a row group is decoded as a whole.
    """

    def __init__(self) -> None:
        self._held: OrderedDict[tuple[Path, str, int], Any] = OrderedDict()
        self._lock = Lock()

    def column(self, path: Path, column: str, group: int) -> Any:
        """One column of a row group."""
        arrow = import_pyarrow()
        key = path, column, group
        with self._lock:
            if key not in self._held:
                with arrow.parquet.ParquetFile(path) as file:
                    self._held[key] = file.read_row_group(group, columns=[column])[column]
            self._held.move_to_end(key)
            while len(self._held) > _COLUMNS_HELD:
                self._held.popitem(last=False)
            return self._held[key]


def is_huggingface(path: Path) -> bool:
    """Whether a folder was written by ``save_to_disk`` or holds Parquet files of a dataset."""
    if not path.is_dir():
        return False
    if (path / "dataset_dict.json").is_file():
        return True
    try:
        if b'"_data_files"' in (path / "state.json").read_bytes():
            return True
    except OSError:
        pass
    return next(_parquet_files(path), None) is not None


def list_shards(root: Path, *, follow_links: bool) -> list[tuple[str, Path]]:
    """The files with the names of their splits, in order.

    Raises:
        DatasetError: a file that another names is not there or lies outside, a split has a name
            that no folder can have, or there are none.
    """
    if (root / "dataset_dict.json").is_file():
        names = _read_json(root / "dataset_dict.json", _Splits).splits
        for name in names:
            _refuse_bad_split(name, root / "dataset_dict.json")
        found = [(name, file) for name in names for _, file in _saved(root, root / name)]
    elif (root / "state.json").is_file():
        found = _saved(root, root)
    else:
        found = [(_split_of(file, root), file) for file in _parquet_files(root)]
    if not found:
        raise DatasetError("has no Arrow or Parquet files", where=root)
    for split, file in found:
        _refuse_bad_split(split, file)
        refuse_link_outside(file, root, follow_links=follow_links)
        if not file.is_file():
            raise DatasetError(
                "is named by the dataset and not there", where=file, mend=_FETCH_AGAIN
            )
    return found


def open_shard(path: Path, groups: RowGroups) -> Shard:
    """An Arrow file (memory-mapped) or a Parquet file.

    Raises:
        DatasetError: it is damaged.
    """
    with _damage(path):
        return _ParquetShard(path, groups) if path.suffix == ".parquet" else _ArrowShard(path)


def import_pyarrow() -> Any:
    """The package pyarrow.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        for name in ("pyarrow.ipc", "pyarrow.parquet"):
            import_module(name)
        return import_module("pyarrow")
    except ImportError as error:
        raise MissingExtraError("pyarrow", "hf") from error


class _ArrowShard:
    def __init__(self, path: Path) -> None:
        arrow = import_pyarrow()
        self.path = path
        mapped = arrow.memory_map(str(path))
        magic = mapped.read(6)
        mapped.seek(0)
        # the library writes streams; its cache of prepared datasets may hold files
        reader = (
            arrow.ipc.open_file(mapped) if magic == b"ARROW1" else arrow.ipc.open_stream(mapped)
        )
        self._table = reader.read_all()  # of a mapped file: no row is read
        self.rows = int(self._table.num_rows)
        self.features = _features(self._table.schema, path)

    def heads(self, column: str) -> list[tuple[bool, str | None]]:
        with _damage(self.path):
            found: list[tuple[bool, str | None]] = []
            for chunk in self._table[column].chunks:
                there, paths = chunk.is_valid().to_pylist(), chunk.field("path").to_pylist()
                found += zip(there, paths, strict=True)
            return found

    def value(self, column: str, row: int) -> dict[str, Any] | None:
        with _damage(self.path):
            found: dict[str, Any] | None = self._table[column][row].as_py()
            return found


class _ParquetShard:
    def __init__(self, path: Path, groups: RowGroups) -> None:
        arrow = import_pyarrow()
        self.path = path
        self._groups = groups
        with arrow.parquet.ParquetFile(path) as file:
            metadata = file.metadata
            counts = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
            self.features = _features(file.schema_arrow, path)
        self._ends = list(accumulate(counts))
        self.rows = sum(counts)

    def heads(self, column: str) -> list[tuple[bool, str | None]]:
        arrow = import_pyarrow()
        with _damage(self.path), arrow.parquet.ParquetFile(self.path) as file:
            values = file.read(columns=[f"{column}.path"])[column].to_pylist()
        return [(False, None) if value is None else (True, value["path"]) for value in values]

    def value(self, column: str, row: int) -> dict[str, Any] | None:
        group = bisect_right(self._ends, row)
        first = self._ends[group - 1] if group else 0
        with _damage(self.path):
            values = self._groups.column(self.path, column, group)
            found: dict[str, Any] | None = values[row - first].as_py()
            return found


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    arrow = import_pyarrow()
    try:
        yield
    except (arrow.ArrowException, OSError) as error:
        raise DatasetError(
            f"is damaged or no such file ({str(error).splitlines()[0]})",
            where=path,
            mend=_FETCH_AGAIN,
        ) from error


def _features(schema: Any, path: Path) -> dict[str, Any]:
    """The library's description of the columns: beside the file, in it, or by their types."""
    info = path.parent / "dataset_info.json"
    metadata = (schema.metadata or {}).get(b"huggingface")
    described: dict[str, Any] = {}
    if metadata is not None:
        try:
            described = msgspec.json.decode(metadata)["info"]["features"]
        except (msgspec.DecodeError, KeyError, TypeError) as error:
            raise DatasetError(
                "has a damaged description of its columns", where=path, mend=_FETCH_AGAIN
            ) from error
    elif info.is_file():
        described = _read_json(info, dict[str, Any]).get("features") or {}
    return {
        field.name: described.get(field.name) or _feature_by_type(field.type) for field in schema
    }


def _feature_by_type(kind: Any) -> Any:
    arrow = import_pyarrow()
    if arrow.types.is_struct(kind) and {kind.field(i).name for i in range(kind.num_fields)} == {
        "bytes",
        "path",
    }:
        return {"_type": "Image"}
    return str(kind)


def _refuse_bad_split(split: str, where: Path) -> None:
    if not _SPLIT_NAME.fullmatch(split):
        raise DatasetError(
            f"names the split {split!r}, and such a name has letters, digits, spaces and _ - . "
            "alone",
            where=where,
            mend="Rename it to train, val or test.",
        )


def _saved(root: Path, folder: Path) -> list[tuple[str, Path]]:
    file = folder / "state.json"
    if not folder.resolve().is_relative_to(root.resolve()):
        raise DatasetError(
            f"names the split {str(folder.relative_to(root))!r}, which is outside", where=root
        )
    state = _read_json(file, _State)
    found = []
    for entry in state.data_files:
        name = entry.get("filename", "")
        if not name or Path(name).name != name:
            raise DatasetError(
                f"names the file {name!r}, which is not in the same folder",
                where=file,
                mend=_FETCH_AGAIN,
            )
        found.append((state.split or "train", folder / name))
    return found


def _parquet_files(root: Path) -> Iterator[Path]:
    for pattern in ("*.parquet", "*/*.parquet"):
        yield from sorted(root.glob(pattern))


def _split_of(file: Path, root: Path) -> str:
    """From ``train-00000-of-00002.parquet``, ``train.parquet`` or ``train/0000.parquet``."""
    if file.parent != root and file.stem.isdigit():
        return file.parent.name
    match = _SHARD.match(file.stem)
    return match["split"] if match else file.stem


def _read_json(file: Path, kind: Any) -> Any:
    try:
        return msgspec.json.decode(file.read_bytes(), type=kind)
    except (OSError, msgspec.DecodeError) as error:
        raise DatasetError(f"cannot be read ({error})", where=file, mend=_FETCH_AGAIN) from error
