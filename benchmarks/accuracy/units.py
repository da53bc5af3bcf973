"""The units of the accuracy benchmark: one training and one score each, kept in its own file."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.kept import KeptUnit
from benchmarks.record import RESULTS

PEERS = ("delineate", "nnunet", "smp")
# the same example with the network of the library's own script for CPUs; no figure of the claim
# rests on it, so it runs only when it is named
EXTRA_PEERS = ("smp-unet",)
FOLDS = 3
CAMVID_SEEDS = 2  # of delineate
BUDGET_S = {"nuclei": 600.0, "camvid": 1800.0}
# what a unit takes beside its training: planning, timing and prediction, roughly
ASIDE_S = {"delineate": 30.0, "nnunet": 420.0, "smp": 90.0, "smp-unet": 90.0}
KEPT = RESULTS / "accuracy"


@dataclass(frozen=True)
class Unit(KeptUnit):
    """One training.

    Attributes:
        dataset: ``nuclei`` or ``camvid``.
        number: the fold of nuclei; the seed on CamVid, which has one split.
        peer: who trains.
    """

    dataset: str
    number: int
    peer: str

    @property
    def name(self) -> str:
        return f"{self.dataset}/{self.number}/{self.peer}"

    @property
    def split(self) -> str:
        return f"nuclei-{self.number}" if self.dataset == "nuclei" else "camvid"

    @property
    def seed(self) -> int:
        return 0 if self.dataset == "nuclei" else self.number

    @property
    def budget_s(self) -> float:
        return BUDGET_S[self.dataset]

    @property
    def left_s(self) -> float:
        """How long the whole unit takes, roughly."""
        return self.budget_s + ASIDE_S[self.peer]


def claimed() -> list[Unit]:
    """The units that the figures rest on, nuclei first; peers take turns within a fold."""
    nuclei = [Unit("nuclei", fold, peer) for fold in range(FOLDS) for peer in PEERS]
    camvid = [Unit("camvid", 0, peer) for peer in PEERS]
    return [*nuclei, *camvid, *(Unit("camvid", s, "delineate") for s in range(1, CAMVID_SEEDS))]


def extra() -> list[Unit]:
    """Further peers, run when they are named."""
    folds = [Unit("nuclei", fold, peer) for peer in EXTRA_PEERS for fold in range(FOLDS)]
    return [*folds, *(Unit("camvid", 0, peer) for peer in EXTRA_PEERS)]
