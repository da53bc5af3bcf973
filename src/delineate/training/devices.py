"""What this process may compute on."""

from __future__ import annotations

import os

import torch

from delineate.training.stream import default_workers


def available_cores() -> int:
    """Cores that this process may use, which a container often limits."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def sample_threads(processes: int) -> int:
    """Threads that prepare samples in each of ``processes`` on this machine."""
    return default_workers(
        available_cores(), accelerator=torch.cuda.is_available(), processes=processes
    )
