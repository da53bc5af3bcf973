"""Decoded samples are kept up to a limit, and never changed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from delineate.data.dataset import Sample
from delineate.training.cache import SampleCache, memory_bytes


def sample(name: str) -> Sample:
    return Sample(name, Path(f"{name}.png"), Path(f"{name}-mask.png"), None)


class Reader:
    def __init__(self) -> None:
        self.read: list[str] = []

    def __call__(self, item: Sample) -> tuple[np.ndarray, np.ndarray]:
        self.read.append(item.name)
        return np.full((2, 3, 1), len(self.read), np.uint8), np.zeros((2, 3), np.uint8)


def test_a_sample_that_fits_is_read_once() -> None:
    reader = Reader()
    cache = SampleCache(reader, limit_bytes=12)
    first, again = cache(sample("a")), cache(sample("a"))
    assert reader.read == ["a"]
    assert again[0] is first[0]
    assert again[1] is first[1]


def test_what_does_not_fit_is_read_every_time() -> None:
    reader = Reader()
    cache = SampleCache(reader, limit_bytes=23)  # a pair takes 12 bytes
    for name in ("a", "b", "a", "b"):
        cache(sample(name))
    assert reader.read == ["a", "b", "b"]


def test_kept_arrays_cannot_be_written() -> None:
    image, mask = SampleCache(Reader(), limit_bytes=100)(sample("a"))
    with pytest.raises(ValueError, match="read-only"):
        image[0, 0, 0] = 1
    with pytest.raises(ValueError, match="read-only"):
        mask[0, 0] = 1


def group(root: Path, line: str, file: str, text: str) -> Path:
    """A file system in which this process is in the group of ``line``."""
    for path, content in (("proc/self/cgroup", line), (f"sys/fs/cgroup/{file}", text)):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(content)
    return root


@pytest.mark.parametrize(
    ("line", "file"),
    [
        ("0::/\n", "memory.max"),
        ("0::/a/b\n", "a/b/memory.max"),
        ("0::/a/b\n", "a/memory.max"),
        ("0::/elsewhere\n", "memory.max"),
        ("3:cpu:/x\n2:cpu,memory:/a\n", "memory/a/memory.limit_in_bytes"),
        ("2:memory:/a\n", "memory/memory.limit_in_bytes"),
    ],
)
def test_the_limit_of_a_container_counts(tmp_path: Path, line: str, file: str) -> None:
    assert memory_bytes(group(tmp_path, line, file, "1048576\n")) == 2**20


@pytest.mark.parametrize("text", ["max\n", "9223372036854771712\n", ""])
def test_no_limit_leaves_the_memory_of_the_machine(tmp_path: Path, text: str) -> None:
    machine = memory_bytes(tmp_path)
    assert memory_bytes(group(tmp_path, "0::/\n", "memory.max", text)) == machine > 2**20


def test_threads_share_one_limit() -> None:
    cache = SampleCache(Reader(), limit_bytes=24)  # two pairs
    items = [sample(str(i)) for i in range(8)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(cache, items))
    assert sum(cache(item)[0] is cache(item)[0] for item in items) == 2
