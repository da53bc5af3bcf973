"""What a run was made with: software, hardware and the commit of this source tree."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from delineate.training.cache import memory_bytes
from delineate.training.devices import available_cores

PACKAGES = (
    "delineate",
    "torch",
    "torchvision",
    "segmentation-models-pytorch",
    "timm",
    "transformers",
    "lightning-fabric",
    "numpy",
    "opencv-python-headless",
    "onnx",
    "onnxruntime",
    "openvino",
)
_CPU_INFO = Path("/proc/cpuinfo")
_GIT_S = 5.0  # a slow file system must not hold up a training


def environment() -> dict[str, Any]:
    """Versions and hardware, for the record of a run. Never fails; what is unknown is None.

    ``cores`` are those that this process may use, ``memory_bytes`` what it may take (a cgroup's
    limit where there is one), ``threads`` those of a torch operator.
    """
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": _versions(),
        "commit": _commit(Path(__file__).parent),
        "cpu": _cpu(_CPU_INFO),
        "cores": available_cores(),
        "memory_bytes": memory_bytes(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "cuda": torch.version.cuda,
        "threads": torch.get_num_threads(),
    }


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _cpu(info: Path) -> str | None:
    try:
        lines = info.read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or None


def _commit(folder: Path) -> str | None:
    """The commit of the checkout that ``folder`` belongs to, ``+changes`` where files differ.

    None where its files are not tracked: an installed copy inside somebody's repository is not
    of that repository's commit.
    """
    tracked = _git(folder, "ls-files", "--", ".")
    commit = _git(folder, "rev-parse", "HEAD")
    if not tracked or not commit:
        return None
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return f"{commit}+changes" if changed else commit


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            check=True,
            timeout=_GIT_S,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},  # looking must not write the index
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
