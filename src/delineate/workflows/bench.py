"""``delineate bench``: bundles, variants and engines side by side, on this machine."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from delineate.bundle.footprint import Footprint, bundle_footprint, median_footprint
from delineate.data.dataset import Dataset
from delineate.data.files import refuse_existing, write_together
from delineate.engines.energy import meter_of
from delineate.engines.throughput import Throughput, throughputs
from delineate.engines.timing import Timing, time_calls
from delineate.errors import EngineError, MissingExtraError, SettingsError
from delineate.evaluation.comparison import Difference, compare_models
from delineate.evaluation.evaluate import Evaluation
from delineate.words import plural
from delineate.workflows.bench_contenders import Contender, Picture, contenders_of
from delineate.workflows.bench_page import bench_page
from delineate.workflows.bench_plot import bench_plot
from delineate.workflows.bench_result import Bench, BenchSettings, Measured
from delineate.workflows.evaluate import evaluate, labelled

ROUNDS = 40  # of at least two calls each: the 95th percentile needs 72 for an interval
FOOTPRINT_ROUNDS = 3


def bench(
    bundles: Sequence[Path | str],
    dataset: Path | str,
    *,
    out: Path | str | None = None,
    force: bool = False,
    settings: BenchSettings = BenchSettings(),  # noqa: B008 - frozen
    tell: Callable[[str], None] = lambda _: None,
) -> Bench:
    """Measure every variant of bundles on every engine: accuracy, latency, throughput, memory.

    Calls are timed in turns of random order, so that a noisy machine slows all alike; the
    comparison of scores is paired over images.

    Args:
        bundles: bundles, or runs that hold one each.
        dataset: canonical, whose classes are those of the bundles.
        out: a page, ``bench.html``; a JSON document and a picture of the same name go beside it.
            Nothing is written when it is left out.
        force: replace them.
        settings: split, engine, device, sizes, limits.
        tell: given a line for each thing that is done.

    Raises:
        SettingsError: there is no bundle, or an engine is unknown.
        BundleError: a bundle is damaged.
        DatasetError: the split is absent or unlabelled, or its classes are others.
        EngineError: nothing runs here.
        OutputError: a file exists.
        MissingExtraError: a picture is wanted and matplotlib or plotly is not installed.
    """
    files = {} if out is None else _files(Path(out), force=force)
    data = Dataset.open(Path(dataset))
    samples = labelled(data, settings.split)
    picture = Picture.of(samples[0])
    left_out: dict[str, str] = {}
    contenders = list(
        contenders_of(
            [Path(bundle) for bundle in bundles],
            picture,
            engine=settings.engine,
            device=settings.device,
            threads=settings.threads,
            image_hw=settings.image_hw,
            left_out=left_out,
        )
    )
    if not contenders:
        raise EngineError(
            f"nothing runs here: {'; '.join(f'{n}: {why}' for n, why in left_out.items())}",
            mend="Name other bundles, or another engine or device.",
        )
    scores = []
    for one in contenders:
        tell(f"scoring {one.label} on {len(samples)} images")
        scores.append(
            evaluate(one.bundle, data.path, split=settings.split, class_map=settings.class_map)
        )
    with _opencv_threads(settings.threads):
        figures = _figures(contenders, picture, settings, tell)
    found = Bench(
        _in_order(contenders, scores, figures),
        left_out,
        settings,
        data.path.resolve().name,
        len(samples),
        meter_of(settings.device).reason,
        files,
    )
    if files:
        document = found.to_dict()
        write_together(
            {
                files["document"]: json.dumps(document, indent=2).encode(),
                files["picture"]: bench_plot(document),
                files["page"]: bench_page(document).encode(),
            }
        )
    return found


def _files(out: Path, *, force: bool) -> dict[str, Path]:
    if out.suffix != ".html":
        raise SettingsError(f"{out} is no name of a page", where="--out", mend="End it in .html.")
    files = {
        "page": out,
        "document": out.with_suffix(".json"),
        "picture": out.with_suffix(".png"),
    }
    if not force:
        for path in files.values():
            refuse_existing(path)
    for package in ("matplotlib", "plotly"):
        try:
            __import__(package)
        except ImportError as error:
            raise MissingExtraError(package, "bench") from error
    return files


@contextmanager
def _opencv_threads(threads: int | None) -> Iterator[None]:
    """Classical methods get as many threads as the engines."""
    before = cv2.getNumThreads()
    if threads is not None:
        cv2.setNumThreads(threads)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


@dataclass(frozen=True)
class _Figures:
    """Of one contender, beside its scores."""

    network: Timing
    whole: Timing
    throughput: Throughput
    footprint: Footprint | None


def _figures(
    contenders: Sequence[Contender],
    picture: Picture,
    settings: BenchSettings,
    tell: Callable[[str], None],
) -> dict[str, _Figures]:
    """By label; everything that depends on the machine is measured in turns."""
    calls: dict[str, Callable[[], object]] = {}
    for one in contenders:
        calls[f"network of {one.label}"] = one.network
        calls[f"whole of {one.label}"] = one.whole(picture)
    tell(f"timing {plural(len(contenders), 'contender')} in turns")
    timings = time_calls(calls, rounds=ROUNDS, limit_s=settings.limit_s)
    tell("images per second at saturation, in turns")
    meter = meter_of(settings.device)
    cpu = meter if settings.device == "cpu" else meter_of("cpu")
    rates = throughputs(
        {one.label: (one.bundle, one.image, cpu if one.classical else meter) for one in contenders},
        cores=os.cpu_count() or 1,
    )
    prints = _footprints(contenders, settings, tell)
    return {
        one.label: _Figures(
            timings[f"network of {one.label}"],
            timings[f"whole of {one.label}"],
            rates[one.label],
            prints[one.label],
        )
        for one in contenders
    }


def _footprints(
    contenders: Sequence[Contender], settings: BenchSettings, tell: Callable[[str], None]
) -> dict[str, Footprint | None]:
    """Medians over rounds of random order: the first process of all reads from a cold disk."""
    found: dict[str, list[Footprint]] = {one.label: [] for one in contenders}
    rng = np.random.default_rng(0)
    for number in range(FOOTPRINT_ROUNDS):
        tell(f"memory and start-up in processes of their own, {number + 1} of {FOOTPRINT_ROUNDS}")
        for index in rng.permutation(len(contenders)):
            one = contenders[index]
            try:
                found[one.label].append(_footprint(one, settings))
            except EngineError as error:
                tell(f"{one.label}: {error}")
    return {label: median_footprint(several) for label, several in found.items()}


def _in_order(
    contenders: Sequence[Contender],
    scores: Sequence[Evaluation],
    figures: Mapping[str, _Figures],
) -> tuple[Measured, ...]:
    """The most accurate first, the faster of two alike; the others compared with it."""

    def place(item: tuple[Contender, Evaluation]) -> tuple[bool, float, float]:
        miou = item[1].scores.mean_iou
        p95 = figures[item[0].label].network.quantile(0.95).value
        return math.isnan(miou), -miou, p95

    ordered = sorted(zip(contenders, scores, strict=True), key=place)
    best = ordered[0][1]
    return tuple(
        Measured(
            contender=one,
            evaluation=evaluation,
            behind=None if evaluation is best else _behind(best, evaluation),
            file_bytes=one.file_bytes,
            **vars(figures[one.label]),
        )
        for one, evaluation in ordered
    )


def _behind(best: Evaluation, other: Evaluation) -> Difference | None:
    counts = best.details.images, other.details.images
    if counts[0] is None or counts[1] is None:
        return None
    try:
        scores = best.scores, other.scores
        return compare_models(("best", "other"), scores, (counts[0], counts[1])).mean_iou
    except SettingsError:  # too few images to draw from
        return None


def _footprint(one: Contender, settings: BenchSettings) -> Footprint:
    return bundle_footprint(
        one.path,
        one.bundle.variant,
        "auto" if one.classical else one.bundle.engine,
        image_hw=(one.image.shape[0], one.image.shape[1]),
        device="cpu" if one.classical else settings.device,
        threads=settings.threads,
    )


__all__ = ["Bench", "BenchSettings", "bench"]
