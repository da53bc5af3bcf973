"""The options that are measured, and the units that come of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from benchmarks.kept import KeptUnit
from benchmarks.record import RESULTS

KEPT = RESULTS / "ablation"
BASELINE = "default"
SEEDS = (0, 1)
DATASETS = ("nuclei", "camvid")
STEPS = 300


@dataclass(frozen=True)
class Option:
    """One change of the default.

    Attributes:
        name: in the table and in the names of files.
        changes: of the plan, by dotted path.
        datasets: where it means something.
        labels: on which images: all, half of them, or half of them and the network's own labels
            on the others.
        tta: not a training of its own: the default's bundle, evaluated with this.
    """

    name: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    datasets: tuple[str, ...] = DATASETS
    labels: Literal["all", "half", "own"] = "all"
    tta: str | None = None

    @property
    def trained_as(self) -> str:
        """The option whose training is evaluated."""
        return self.name if self.tta is None else BASELINE


def _loss(name: str) -> Option:
    return Option(f"loss {name}", {"loss.name": name})


OPTIONS = (
    Option(BASELINE),
    Option("EMA 0.99", {"optimiser.ema": 0.99}),
    Option("balanced sampling 0.33", {"sampling.balanced": 0.33}),
    Option("no class weights", {"loss.class_weights": None}, ("camvid",)),
    _loss("ce"),
    _loss("focal+dice"),
    _loss("ohem+dice"),
    _loss("ce+tversky"),
    _loss("ce+lovasz"),
    _loss("ce+dice+boundary"),
    Option("copy-paste 0.5", {"sampling.copy_paste": 0.5}, ("nuclei",)),
    Option("crops of 352, 4 at a time", {"crop_px": 352, "batch_size": 4}, ("camvid",)),
    Option("one scale", {"augmentation.scale": (1.0, 1.0)}),
    Option("deep supervision", {"model.deep_supervision": True}, ("nuclei",)),
    Option("no deep supervision", {"model.deep_supervision": False}, ("camvid",)),
    Option("TTA flips", tta="flips"),
    Option("half of the labels", labels="half"),
    Option("half, own labels for the rest", labels="own"),
)


@dataclass(frozen=True)
class Unit(KeptUnit):
    """One training of an option on a dataset with a seed."""

    dataset: str
    option: Option
    seed: int

    @property
    def name(self) -> str:
        words = "".join(c if c.isalnum() or c in ".+" else "-" for c in self.option.name.lower())
        return f"{self.dataset}/{words}/{self.seed}"

    @property
    def baseline(self) -> Unit:
        return Unit(self.dataset, OPTIONS[0], self.seed)


def units() -> list[Unit]:
    """All units; each dataset's default comes first, seed by seed."""
    return [
        Unit(dataset, option, seed)
        for dataset in DATASETS
        for option in OPTIONS
        if dataset in option.datasets
        for seed in SEEDS
    ]
