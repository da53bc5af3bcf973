from __future__ import annotations

import json
import platform
import resource
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import cv2
import pytest
import torch

from delineate.training.settled import freed_memory_kept, settled

MEGABYTES = 48  # over the size at which glibc asks the system by default
PAGE = 4096

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")


def faults(times: int) -> int:
    """Pages that the system had to give for tensors that are made and freed again."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        torch.ones(MEGABYTES << 20, dtype=torch.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


MEASURED = """
import json
from tests.training.test_settled import faults, freed_memory_kept, resident_bytes
with freed_memory_kept():
    faults(32)  # an aligned tensor takes up to a dozen turns to find its place
    kept = faults(8)
    inside = resident_bytes()
given_back = inside - resident_bytes()
print(json.dumps([kept, given_back, faults(8)]))
"""


@glibc
def test_memory_is_taken_once_and_given_back() -> None:
    # in a process of its own: what other tests leave of the heap decides where a tensor fits
    done = subprocess.run(
        [sys.executable, "-c", MEASURED],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    kept, given_back, anew = json.loads(done.stdout)
    pages = (MEGABYTES << 20) // PAGE
    assert kept < pages  # of 8 times as many
    assert given_back > 0.8 * (MEGABYTES << 20)
    # all anew, at least once: a free part of the heap that is large enough is taken again later
    assert anew >= pages


@glibc
def test_memory_is_given_back_after_an_error() -> None:
    seen = []

    def dies() -> None:
        with freed_memory_kept():
            faults(1)
            seen.append(resident_bytes())
            raise RuntimeError

    with pytest.raises(RuntimeError):
        dies()
    assert seen[0] - resident_bytes() > 0.8 * (MEGABYTES << 20)


def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr("ctypes.CDLL", lambda _: pytest.fail("the C library was asked for"))
    with freed_memory_kept():
        pass


def test_a_c_library_without_these_functions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr("ctypes.CDLL", lambda _: nullcontext())  # as musl, which has neither
    with freed_memory_kept():
        pass


@pytest.mark.parametrize("deterministic", [False, True])
def test_settings_are_what_they_were(
    *, deterministic: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    before = cv2.getNumThreads(), torch.are_deterministic_algorithms_enabled()
    with settled(deterministic=deterministic):
        assert cv2.getNumThreads() == 1
        assert torch.are_deterministic_algorithms_enabled() is deterministic
    assert (cv2.getNumThreads(), torch.are_deterministic_algorithms_enabled()) == before
