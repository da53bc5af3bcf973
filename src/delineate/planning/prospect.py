"""What contenders may reach in the time for training, and which of them are worth a long look.

Timing at length, with memory, takes seconds for each. So a training step of each that a quick look
left is timed first; with it, the crops that the training will see are known, and so the rank.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from delineate.config import ModelSettings, Plan
from delineate.models import build
from delineate.planning.candidates import Candidate
from delineate.planning.contender import Contender, LeftOut, NetworkKind
from delineate.planning.fingerprint import Fingerprint
from delineate.planning.prior import CROP_PIXELS, Expected, expected
from delineate.training.dilated_depthwise import spare_dilated_depthwise
from delineate.training.losses.build import build_loss
from delineate.training.step import autocast_type, precision
from delineate.types import Task

TRAINED_SHARE = 0.85  # of a training's budget that goes into steps; the rest validates and exports
SLOW_STEP_S = 1.0  # of such steps one is timed, of others the median of three
INT8_LOSES = 0.01  # of mIoU, at most, or the gate refuses it
USUAL_STEP_S = 0.5  # of networks that were not timed yet
USUAL_TRAINING_S = 1800.0
AT_LENGTH = 8  # contenders; half of the places are for those that fitted at the quick look


@dataclass(frozen=True)
class Prospect:
    """A contender, and how accurate it is expected to be.

    Attributes:
        contender: network, engine and precision.
        step_s: of training, seconds; None where the memory does not hold it.
        crops: of 256 x 256 pixels that a training in the given time would see.
        expected: accuracy; None where nothing is known of the network.
    """

    contender: Contender
    step_s: float | None
    crops: float | None
    expected: Expected | None

    @property
    def miou(self) -> float:
        """Expected, with what int8 may lose; -1 where nothing is known."""
        if self.expected is None:
            return -1.0
        return self.expected.miou - (INT8_LOSES if self.contender.precision == "int8" else 0.0)


def by_promise(
    candidates: Sequence[Candidate], fingerprint: Fingerprint, *, plan: Plan, train_s: float | None
) -> list[Candidate]:
    """The order in which to look at candidates: by what each would reach if all trained as fast.

    Args:
        candidates: networks; what nothing is known of comes last.
        fingerprint: of the dataset.
        plan: crops and batch of the training.
        train_s: time for the training, seconds; the usual half an hour when left out.
    """
    crops = _crops(USUAL_STEP_S, plan, train_s)

    def rank(item: Candidate) -> float:
        found = expected(item, crops, fingerprint)
        return math.inf if found is None else -found.miou

    return sorted(candidates, key=rank)


def _crops(step_s: float, plan: Plan, train_s: float | None) -> float:
    """Of 256 x 256 pixels, in the time for the training."""
    steps = TRAINED_SHARE * (USUAL_TRAINING_S if train_s is None else train_s) / step_s
    return steps * plan.batch_size * plan.crop_px**2 / CROP_PIXELS


def prospects(
    contenders: Sequence[Contender],
    kind: NetworkKind,
    fingerprint: Fingerprint,
    *,
    plan: Plan,
    train_s: float | None,
    tell: Callable[[str], None],
) -> list[Prospect]:
    """Time a training step of each network, and look up what it may reach.

    Args:
        contenders: that a quick look left.
        kind: what they take and give.
        fingerprint: of the dataset.
        plan: crops, batch, loss and precision of the training.
        train_s: time for the training, seconds; the usual half an hour when left out.
        tell: given a line for each thing that is done.
    """
    steps: dict[str, float | None] = {}
    found = []
    for one in contenders:
        name = one.candidate.name
        if name not in steps:
            tell(f"a training step of {name}")
            steps[name] = step_seconds(
                one.candidate.model,
                plan,
                channels=kind.channels,
                classes=len(kind.classes),
                task=kind.task,
            )
        step_s = steps[name]
        if step_s is None:
            found.append(Prospect(one, None, None, None))
            continue
        crops = _crops(step_s, plan, train_s)
        found.append(Prospect(one, step_s, crops, expected(one.candidate, crops, fingerprint)))
    return found


def worth_timing(
    found: Sequence[Prospect], budget_ms: float, most: int = AT_LENGTH
) -> tuple[list[Prospect], list[LeftOut]]:
    """Those that are expected to be the most accurate, and the fastest in any case.

    Half of the places are for what was within the budget at the quick look, so that something is
    left where all that is a little too slow turns out to be so.

    Args:
        found: of all that a quick look left.
        budget_ms: what a call may take.
        most: how many there are places for.

    Returns:
        them, and the others with the reason.
    """
    if len(found) <= most:
        return list(found), []
    ranked = sorted(found, key=lambda one: (-one.miou, one.contender.quick_ms))
    fastest = min(ranked, key=lambda one: one.contender.quick_ms)
    within = [one for one in ranked if one.contender.quick_ms <= budget_ms and one is not fastest]
    kept = [fastest, *within[: most // 2]]
    others = [one for one in ranked if not any(one is other for other in kept)]
    room = most - len(kept)
    kept += others[:room]
    reason = f"{most} others were timed at length, and most are expected to be more accurate"
    return kept, [LeftOut(one.contender.label, reason) for one in others[room:]]


def step_seconds(
    model: ModelSettings, plan: Plan, *, channels: int, classes: int, task: Task
) -> float | None:
    """Of forward and backward pass of one batch, on the device and in the precision of training.

    Args:
        model: the network; its weights are random.
        plan: crops, batch, loss and precision.
        channels: of an image.
        classes: background included.
        task: multiclass or binary.

    Returns:
        None where the memory does not hold it.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    arithmetic = autocast_type(precision(plan.precision))
    settings = model.model_copy(update={"encoder_weights": None})
    with torch.random.fork_rng(devices=()):
        network = build(settings, channels=channels, classes=classes, task=task)
    network = network.to(device).to(memory_format=torch.channels_last).train()
    if device.type == "cpu" and arithmetic is torch.bfloat16:
        spare_dilated_depthwise(network)
    criterion = build_loss(plan.loss, classes=classes, task=task, ignore_index=None).to(device)
    shape = (plan.batch_size, channels, plan.crop_px, plan.crop_px)
    crops = torch.rand(shape, device=device).contiguous(memory_format=torch.channels_last)
    truth = torch.randint(0, classes, (plan.batch_size, plan.crop_px, plan.crop_px), device=device)

    def step() -> float:
        began = time.perf_counter()
        with torch.autocast(device.type, arithmetic, enabled=arithmetic is not None):
            logits = network(crops)
        bare = (logits[0] if isinstance(logits, list) else logits).float()
        criterion(bare, truth).backward()
        network.zero_grad(set_to_none=True)
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began

    try:
        first = step()
        return step() if first > SLOW_STEP_S else statistics.median(step() for _ in range(3))
    except (RuntimeError, MemoryError):
        return None
