from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a dataset from label maps and object ids by ``split/name``; ``name`` for no split."""

    def save(path: Path, pixels: np.ndarray) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), pixels)

    def write(
        labels: Mapping[str, np.ndarray],
        classes: tuple[str, ...],
        *,
        ignore: int | None = None,
        objects: Mapping[str, np.ndarray] | None = None,
    ) -> Path:
        folder = tmp_path / "dataset"
        rng = np.random.default_rng(1)
        for key, mask in labels.items():
            split, _, name = key.rpartition("/")
            picture = rng.integers(0, 256, (*mask.shape, 3), dtype=np.uint8)
            save(folder / split / "images" / f"{name}.png", picture)
            stored = mask.astype(np.uint8 if mask.max() < 256 else np.uint16)
            save(folder / split / "masks" / f"{name}.png", stored)
            if objects is not None and key in objects:
                ids = objects[key].astype(np.uint16)
                save(folder / split / "instances" / f"{name}.png", ids)
        document = {"classes": list(classes), "ignore_index": ignore}
        (folder / "dataset.yaml").write_text(yaml.safe_dump(document))
        return folder

    return write
