"""What a network takes to start and to hold, measured in a process of its own.

A process that has done other things before has their memory in its peak.
"""

from __future__ import annotations

import json
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx

from delineate.bundle.manifest import EngineName, Precision
from delineate.errors import EngineError
from delineate.types import Predictor, PredictorSpec

_TIMEOUT_S = 300.0


@dataclass(frozen=True)
class Footprint:
    """Of one process that runs one network.

    Attributes:
        import_s: until Python has imported what it needs, seconds.
        load_s: from the file to a predictor that has given its first result, seconds.
        base_bytes: resident memory before the network was loaded.
        peak_bytes: the largest resident memory.
    """

    import_s: float
    load_s: float
    base_bytes: int
    peak_bytes: int


def footprint(
    model: Path,
    spec: PredictorSpec,
    engine: EngineName,
    precision: Precision,
    *,
    image_hw: tuple[int, int],
    device: str = "cpu",
    threads: int | None = None,
) -> Footprint:
    """Load a finished graph in a new process and segment images of one size.

    Args:
        model: the ``.onnx`` file.
        spec: what it takes.
        engine, precision, device, threads: how it is run.
        image_hw: height and width, pixels.

    Raises:
        EngineError: the engine refuses it, or the process dies, as for want of memory.
    """
    job = {
        "model": str(model),
        "spec": asdict(spec),
        "engine": engine,
        "precision": precision,
        "device": device,
        "threads": threads,
        "image_hw": image_hw,
    }
    return _in_a_process(job, engine)


def graph_footprint(
    graph: onnx.ModelProto,
    spec: PredictorSpec,
    engine: EngineName,
    precision: Precision,
    *,
    image_hw: tuple[int, int],
    device: str = "cpu",
    threads: int | None = None,
) -> Footprint:
    """The same of a graph in memory.

    An engine that crashes on a graph takes its process with it; here that is a process that nobody
    misses (OpenVINO 2026.4 ends with a segmentation fault on some int8 graphs).

    Args:
        graph: finished.
        spec, engine, precision, image_hw, device, threads: as for :func:`footprint`.

    Raises:
        EngineError: the engine refuses it, or the process dies.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(graph, path)
        return footprint(
            path, spec, engine, precision, image_hw=image_hw, device=device, threads=threads
        )


def bundle_footprint(
    bundle: Path,
    variant: str,
    engine: str,
    *,
    image_hw: tuple[int, int],
    device: str = "cpu",
    threads: int | None = None,
) -> Footprint:
    """The same of a variant of a bundle, whose files are hashed as they are when it is loaded.

    Args:
        bundle: folder or ``.zip``.
        variant, engine, device, threads: as for :func:`delineate.bundle.load.load`.
        image_hw: height and width, pixels.

    Raises:
        EngineError: the engine refuses it, or the process dies, as for want of memory.
    """
    job = {
        "bundle": str(bundle),
        "variant": variant,
        "engine": engine,
        "device": device,
        "threads": threads,
        "image_hw": image_hw,
    }
    return _in_a_process(job, engine)


def median_footprint(several: Sequence[Footprint]) -> Footprint | None:
    """Medians of times and base, the largest peak; None of none."""
    if not several:
        return None
    return Footprint(
        import_s=statistics.median(one.import_s for one in several),
        load_s=statistics.median(one.load_s for one in several),
        base_bytes=int(statistics.median(one.base_bytes for one in several)),
        peak_bytes=max(one.peak_bytes for one in several),
    )


def _in_a_process(job: dict[str, Any], engine: str) -> Footprint:
    began = time.time()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "delineate.bundle.footprint", json.dumps(job), str(began)],
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise EngineError(f"{engine} gives no result within {_TIMEOUT_S:.0f} s") from error
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [""])[-1]
        how = f"{done.returncode} ({last})"
        if done.returncode < 0:
            how = signal.Signals(-done.returncode).name
        raise EngineError(f"a process with {engine} ended with {how}")
    return Footprint(**json.loads(done.stdout.splitlines()[-1]))


def _main(job: str, began: str) -> None:
    import cv2
    import numpy as np

    from delineate.bundle.load import engine_predictor, load

    wanted = json.loads(job)
    imported = time.time()
    base = _peak_bytes()
    if wanted["threads"] is not None:
        cv2.setNumThreads(wanted["threads"])
    shared = {name: wanted[name] for name in ("engine", "device", "threads")}
    predictor: Predictor
    if "bundle" in wanted:
        predictor = load(wanted["bundle"], variant=wanted["variant"], **shared)
    else:
        # JSON has no tuples, and a list is equal to none
        fields: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in wanted["spec"].items()
        }
        spec = PredictorSpec(**fields)
        graph = onnx.load(wanted["model"])
        predictor = engine_predictor(graph, spec, precision=wanted["precision"], **shared)
    spec = predictor.spec
    shape = (1, *wanted["image_hw"], spec.channels)
    values = np.random.default_rng(0).integers(0, 256, shape)
    predictor.predict(values.astype(spec.dtype))
    loaded = time.time()
    for _ in range(2):
        predictor.predict(values.astype(spec.dtype))
    found = Footprint(imported - float(began), loaded - imported, base, _peak_bytes())
    print(json.dumps(asdict(found)))


def _peak_bytes() -> int:
    """The largest resident memory of this process so far."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count what the parent had before this program began
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


if __name__ == "__main__":
    _main(*sys.argv[1:])
