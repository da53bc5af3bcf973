"""What a bench found, and what it says of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from delineate.bundle.footprint import Footprint
from delineate.engines.throughput import Throughput
from delineate.engines.timing import Timing, speedup
from delineate.evaluation.comparison import Difference
from delineate.evaluation.evaluate import Evaluation
from delineate.evaluation.scores import none_if_nan
from delineate.workflows.bench_contenders import Contender


@dataclass(frozen=True)
class BenchSettings:
    """What is compared, and how.

    Attributes:
        split: of the dataset.
        engine: ``auto`` compares all that run on the device.
        device: ``cpu``, ``cuda`` or ``gpu``.
        threads: inside one call; all cores when left out.
        image_hw: size (height, width) that is timed, pixels; that of the first image, or the top
            left of it, when left out.
        class_map: classes renamed or joined, as for ``evaluate``.
        p95_ms: a budget for the network alone: what is the most accurate within it?
        limit_s: for timing, about.
    """

    split: str = "val"
    engine: str = "auto"
    device: str = "cpu"
    threads: int | None = None
    image_hw: tuple[int, int] | None = None
    class_map: str | None = None
    p95_ms: float | None = None
    limit_s: float = 180.0


@dataclass(frozen=True)
class Measured:
    """A contender with its figures.

    Attributes:
        contender: what was measured.
        evaluation: on the split.
        behind: its mean IoU less that of the most accurate, over the same images; None for the
            most accurate, and where the images are too few.
        network: from pixels to labels.
        whole: from the bytes of an image file to those of a mask, tiles and post-processing
            included.
        throughput: at saturation.
        footprint: memory and start-up of a process of its own; None where it died.
        file_bytes: of the files it needs.
    """

    contender: Contender
    evaluation: Evaluation
    behind: Difference | None
    network: Timing
    whole: Timing
    throughput: Throughput
    footprint: Footprint | None
    file_bytes: int

    @property
    def label(self) -> str:
        return self.contender.label

    @property
    def miou(self) -> float:
        return self.evaluation.scores.mean_iou

    @property
    def p95_ms(self) -> float:
        """Of the network alone."""
        return self.network.quantile(0.95).value

    def to_dict(self) -> dict[str, Any]:
        """Plain values: scores from 0 to 1, milliseconds, seconds, bytes."""
        scores, details = self.evaluation.scores, self.evaluation.details
        bundle, print_ = self.contender.bundle, self.footprint
        times: dict[str, float | None] = {}
        for part, timing in (("network", self.network), ("end_to_end", self.whole)):
            for q in (50, 95, 99):
                found = timing.quantile(q / 100)
                times[f"{part}_p{q}_ms"] = round(found.value, 3)
                high = round(found.high, 3) if math.isfinite(found.high) else None
                times[f"{part}_p{q}_at_most_ms"] = high
        return {
            "name": self.label,
            "bundle": str(self.contender.path),
            "variant": bundle.variant,
            "engine": bundle.engine,
            "precision": bundle.manifest.variants[bundle.variant].precision,
            "miou": none_if_nan(scores.mean_iou),
            "miou_interval": None
            if details.intervals is None
            else [none_if_nan(end) for end in details.intervals.mean_iou],
            "dice": none_if_nan(scores.mean_dice),
            "boundary_iou": None
            if details.boundary is None
            else none_if_nan(details.boundary.mean_iou),
            "iou": dict(zip(scores.classes, map(none_if_nan, scores.iou), strict=True)),
            "behind_best": None if self.behind is None else self.behind.to_dict(),
            "image_hw": list(self.contender.image.shape[:2]),
            **times,
            "images_per_s": round(self.throughput.images_per_s, 3),
            "images_per_s_range": [round(self.throughput.low, 3), round(self.throughput.high, 3)],
            "load": {"batch": self.throughput.load.batch, "calls": self.throughput.load.workers},
            "joules_per_image": self.throughput.joules_per_image,
            "peak_bytes": None if print_ is None else print_.peak_bytes,
            "start_s": None if print_ is None else round(print_.import_s + print_.load_s, 3),
            "file_bytes": self.file_bytes,
        }


@dataclass(frozen=True)
class Bench:
    """A comparison.

    Attributes:
        measured: the most accurate first.
        left_out: names of what does not run here, and why.
        settings: with which it was made.
        dataset: its name.
        images: of the split.
        no_energy: why there are no joules; empty where there are.
        files: that were written.
    """

    measured: tuple[Measured, ...]
    left_out: Mapping[str, str]
    settings: BenchSettings
    dataset: str
    images: int
    no_energy: str
    files: Mapping[str, Path] = field(default_factory=dict)

    @property
    def front(self) -> tuple[Measured, ...]:
        """Those that nothing beats in both p95 of the network and mean IoU, the fastest first."""
        found: list[Measured] = []
        for one in sorted(self.measured, key=lambda one: (one.p95_ms, -one.miou)):
            if not found or one.miou > found[-1].miou:
                found.append(one)
        return tuple(found)

    @property
    def fitting(self) -> Measured | None:
        """The most accurate within the budget; None without one, or when nothing fits.

        The upper end of the interval of the p95 has to lie within it, where there are calls enough
        for an interval.
        """
        budget_ms = self.settings.p95_ms
        if budget_ms is None:
            return None
        return next(
            (one for one in self.measured if one.network.quantile(0.95).at_most <= budget_ms), None
        )

    def verdict(self) -> list[str]:
        """Sentences: what is ahead, what is no worse and faster, what fits the budget."""
        best = self.measured[0]
        found = [f"{best.label} is the most accurate, with {best.miou:.3f} mIoU."]
        ratios = {
            one.label: speedup(one.network, best.network)
            for one in self.measured[1:]
            if one.behind is not None and not one.behind.clear
        }
        faster = {label: ratio for label, ratio in ratios.items() if ratio.low > 1}
        if faster:
            label, ratio = max(faster.items(), key=lambda item: item[1].value)
            found.append(
                f"{label} is {ratio.value:.1f} times as fast ({ratio.low:.1f} to "
                f"{ratio.high:.1f}), and these images do not show that it is worse."
            )
        budget_ms = self.settings.p95_ms
        if budget_ms is not None:
            fits = self.fitting
            if fits is not None:
                found.append(
                    f"Of what stays within {budget_ms:g} ms (p95 of the network alone), "
                    f"{fits.label} is the most accurate: {fits.p95_ms:.1f} ms."
                )
            else:
                fastest = min(self.measured, key=lambda one: one.p95_ms)
                found.append(
                    f"Nothing stays within {budget_ms:g} ms; the fastest is {fastest.label} with "
                    f"a p95 of {fastest.p95_ms:.1f} ms. delineate plan looks for faster networks."
                )
        return found

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "dataset": self.dataset,
            "split": self.settings.split,
            "images": self.images,
            "device": self.settings.device,
            "threads": self.settings.threads,
            "p95_ms": self.settings.p95_ms,
            "verdict": self.verdict(),
            "front": [one.label for one in self.front],
            "contenders": [one.to_dict() for one in self.measured],
            "left_out": dict(self.left_out),
            "no_energy": self.no_energy,
            "files": {name: str(path) for name, path in self.files.items()},
        }
