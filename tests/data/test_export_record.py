from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from delineate.data.export_record import (
    EXPORT_FILE,
    ExportRecord,
    read_export_record,
    write_export_record,
)
from delineate.errors import DatasetError

RECORD = ExportRecord(
    format="coco",
    classes=("road", "no", "1", "été"),
    ignore_index=None,
    images={"train": 3},
    objects=False,
    object_count=0,
    notes=("Without object ids, each class of an image is one annotation.",),
)
MEND = "Export again, or delete this file and give the classes with --classes."


@settings(max_examples=30, deadline=None)
@given(
    classes=st.lists(st.text(min_size=1), min_size=2, unique=True),
    ignore=st.none() | st.integers(0, 65535),
    objects=st.booleans(),
)
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory,
    classes: list[str],
    ignore: int | None,
    objects: bool,
) -> None:
    folder = tmp_path_factory.mktemp("export")
    changes = {"classes": tuple(classes), "ignore_index": ignore, "objects": objects}
    record = RECORD.model_copy(update=changes)
    write_export_record(record, folder)
    assert read_export_record(folder) == record


@pytest.mark.parametrize("text", [None, "format: onnx\n", "{}", "written_by: somebody\n"])
def test_what_no_export_wrote_is_left_alone(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / EXPORT_FILE).write_text(text)
    assert read_export_record(tmp_path) is None


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        (
            "objects: false",
            "objects: 7",
            "objects: Input should be a valid boolean, unable to interpret input (found 7)",
        ),
        (
            "ignore_index: null",
            "ignore_index: -1",
            "ignore_index: Input should be greater than or equal to 0 (found -1)",
        ),
    ],
)
def test_a_wrong_field_is_named(tmp_path: Path, old: str, new: str, found: str) -> None:
    write_export_record(RECORD, tmp_path)
    file = tmp_path / EXPORT_FILE
    file.write_text(file.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    with pytest.raises(DatasetError) as caught:
        read_export_record(tmp_path)
    assert str(caught.value) == f"{file}: {found}. {MEND}"


def test_a_file_that_is_no_yaml_is_refused(tmp_path: Path) -> None:
    (tmp_path / EXPORT_FILE).write_text("classes: [road\n")
    with pytest.raises(DatasetError, match="is no readable YAML") as caught:
        read_export_record(tmp_path)
    assert str(caught.value).endswith(MEND)
