"""What every benchmark writes: ``benchmarks/results/NAME.json``."""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
ROOT = Path(__file__).parents[1]


def shared(name: str) -> Path:
    """A folder of the shared data beside the checkout, named relatively in the results."""
    path = Path(os.path.relpath(ROOT.parent / "shared" / name))
    if not path.exists():
        sys.exit(f"{path} is absent: this benchmark needs the shared data beside the checkout")
    return path


def write(
    name: str,
    claim: str,
    figures: Mapping[str, float],
    peers: Mapping[str, str],
    details: Mapping[str, object] | None = None,
) -> None:
    """Write the result and print its figures."""
    document = {
        "claim": claim,
        "command": shlex.join(["python", "-m", f"benchmarks.{name}", *sys.argv[1:]]),
        "commit": commit(),
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": {
            "processor": processor(),
            "cores": os.cpu_count(),
            "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9),
            "python": platform.python_version(),
        },
        "figures": dict(figures),
        "peers": dict(peers),
        **(details or {}),
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(document, indent=2) + "\n")
    print(json.dumps(document, indent=2))


def commit() -> str:
    """The commit that is measured, and whether its code was changed; what it writes is none."""
    git = ["git", "-C", str(ROOT)]
    name = subprocess.run(
        [*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    code = ("src", "benchmarks", "pyproject.toml", ":(exclude)benchmarks/results")
    changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", *code], check=False)
    return f"{name}-dirty" if changed.returncode else name


def processor() -> str:
    """Its name and the widths of its arithmetic."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor()
    lines = info.read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in lines if "model name" in line), "?")
    flags = next((line for line in lines if line.startswith("flags")), "")
    wide = [
        flag
        for flag in ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16")
        if flag in flags.split()
    ]
    return f"{model} ({', '.join(wide)})"
