from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from delineate.data.exporting.export import export_dataset
from delineate.data.exporting.settings import ExportSettings
from delineate.errors import SettingsError


def test_one_folder_a_class(write: Callable[..., Path], tmp_path: Path) -> None:
    labels = np.array([[0, 1, 255]])
    dataset = write(
        {"val/a": labels}, ("background", "cell", "wall"), ignore=255, objects={"val/a": labels > 9}
    )
    out = tmp_path / "out"
    report = export_dataset(ExportSettings(dataset=dataset, out=out, format="binary"))
    assert report.notes == (
        "Ignored pixels are the masks in __ignore__.",
        "The object ids are not written: binary masks have none.",
    )
    found = {}
    for file in sorted(out.glob("val/masks/*/a.png")):
        with Image.open(file) as picture:
            assert picture.mode == "L"
            found[file.parent.name] = np.asarray(picture).tolist()
    assert found == {"__ignore__": [[0, 0, 255]], "cell": [[0, 255, 0]], "wall": [[0, 0, 0]]}
    assert (out / "val/images/a.png").is_file()


@pytest.mark.parametrize("name", ["a/b", "..", ".hidden", " a", "a\\b", "ü" * 200])
def test_names_that_are_no_folders_are_refused(
    write: Callable[..., Path], tmp_path: Path, name: str
) -> None:
    dataset = write({"a": np.zeros((1, 1))}, ("background", name))
    with pytest.raises(SettingsError) as caught:
        export_dataset(ExportSettings(dataset=dataset, out=tmp_path / "out", format="binary"))
    assert str(caught.value) == (
        f"classes: the class {name!r} cannot be the name of a folder, and binary masks have one a "
        "class. Rename it in dataset.yaml, or use --format class-id."
    )
