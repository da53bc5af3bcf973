"""What PyTorch, OpenCV and the C library are told for the time of a training."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import torch

# of malloc.h in glibc
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_NEVER = 2**31 - 1
_USUAL_MMAP, _USUAL_TRIM = 32 << 20, 64 << 20  # what glibc's own rule ends at on 64 bits


@contextmanager
def settled(*, deterministic: bool) -> Iterator[None]:
    """The settings of a training, and what they were again afterwards.

    Args:
        deterministic: take deterministic algorithms where PyTorch has them, and warn where not.
    """
    opencv_threads, before = cv2.getNumThreads(), torch.are_deterministic_algorithms_enabled()
    # samples are prepared in threads of our own; OpenCV's would fight the network for its cores
    cv2.setNumThreads(1)
    # PyTorch names what has no deterministic form on a device (on GPUs, some backward passes)
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    if deterministic:  # read when CUDA's linear algebra starts
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    try:
        with freed_memory_kept():
            yield
    finally:
        cv2.setNumThreads(opencv_threads)
        torch.use_deterministic_algorithms(before)


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Have glibc keep freed memory for the next allocation; given back to the system afterwards.

    A step on a CPU frees and allocates the same large tensors as the step before. By default each
    of them comes from the system anew, which fills it with zeros page by page: a tenth of the
    step. The peak of the memory stays what it is. Other C libraries are left alone.
    """
    if not sys.platform.startswith("linux"):
        yield
        return
    library = ctypes.CDLL(None)
    if not (hasattr(library, "mallopt") and hasattr(library, "malloc_trim")):
        yield
        return
    library.mallopt(_MMAP_THRESHOLD, _NEVER)
    library.mallopt(_TRIM_THRESHOLD, _NEVER)
    try:
        yield
    finally:
        library.mallopt(_MMAP_THRESHOLD, _USUAL_MMAP)
        library.mallopt(_TRIM_THRESHOLD, _USUAL_TRIM)
        library.malloc_trim(0)
