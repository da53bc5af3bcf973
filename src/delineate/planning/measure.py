"""Rows of the table: contenders that may fit, timed at length in turns, with memory and steps."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
import torch

from delineate.bundle.footprint import footprint
from delineate.config import Plan
from delineate.data.images import decode_image, fit_channels
from delineate.data.masks import encode_mask
from delineate.data.palette import Colour
from delineate.engines.timing import time_calls
from delineate.errors import EngineError
from delineate.models import build
from delineate.planning.choice import Budget, Row, misfits
from delineate.planning.fingerprint import Fingerprint
from delineate.planning.latency import Contender, NetworkKind, Place
from delineate.planning.prior import CROP_PIXELS, Expected, expected
from delineate.training.losses.build import build_loss
from delineate.types import Image

TRAINED_SHARE = 0.85  # of a training's budget that goes into steps; the rest validates and exports
ROUNDS = 20
SLOW_STEP_S = 4.0  # of such steps one is timed, of others the median of three


@dataclass(frozen=True)
class Work:
    """One piece of work as it comes and goes.

    Attributes:
        file: the bytes of an image file.
        image: the same decoded, (H, W, C).
        colours: of the classes, for the mask.
    """

    file: bytes
    image: Image
    colours: tuple[Colour, ...]


def rows_of(
    contenders: Sequence[Contender],
    kind: NetworkKind,
    place: Place,
    work: Work,
    budget: Budget,
    fingerprint: Fingerprint,
    *,
    plan: Plan,
    train_s: float | None,
    limit_s: float,
    tell: Callable[[str], None],
) -> list[Row]:
    """Time contenders in turns, measure their memory and a training step of each, and judge them.

    Args:
        contenders: that a quick look left.
        kind: what they take and give.
        place: engines and device.
        work: what is timed.
        budget: what has to be met.
        fingerprint: of the dataset.
        plan: crops, batch and loss of the training.
        train_s: time for the training, seconds; the usual half an hour when left out.
        limit_s: no further round of timing begins later.
        tell: given a line for each thing that is done.
    """
    calls: dict[str, Callable[[], object]] = {}
    for one in contenders:
        calls[f"network of {one.label}"] = _network(one, work)
        calls[f"whole of {one.label}"] = _whole(one, work)
    tell(f"timing {len(contenders)} candidates in turns")
    timings = time_calls(calls, rounds=ROUNDS, limit_s=limit_s)
    steps: dict[str, float | None] = {}
    found = []
    for one in contenders:
        network, whole = (timings[f"{part} of {one.label}"] for part in ("network", "whole"))
        tell(f"memory of {one.label}, and a training step")
        memory, size = _footprint(one, kind, place)
        if one.candidate.name not in steps:
            steps[one.candidate.name] = step_seconds(one, kind, plan)
        step_s = steps[one.candidate.name]
        crops, hope = _expectation(one, plan, step_s, train_s, fingerprint)
        found.append(
            Row(
                contender=one,
                network=network,
                end_to_end=whole,
                memory_bytes=memory,
                file_bytes=size,
                step_s=step_s,
                crops=crops,
                expected=hope,
                reasons=misfits(network, whole, memory, budget),
            )
        )
    return found


def _network(one: Contender, work: Work) -> Callable[[], object]:
    return lambda: one.predictor.predict(work.image[None])


def _whole(one: Contender, work: Work) -> Callable[[], object]:
    def call() -> object:
        image = fit_channels(decode_image(work.file, "image"), work.image.shape[2], "image")
        image = image[: work.image.shape[0], : work.image.shape[1]]
        return encode_mask(one.predictor.predict(image[None])["labels"][0], work.colours)

    return call


def _footprint(one: Contender, kind: NetworkKind, place: Place) -> tuple[int | None, int]:
    """Peak memory of a process, None where it died, and the size of the file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(one.graph, path)
        try:
            found = footprint(
                path,
                kind.spec,
                one.engine,
                one.precision,
                image_hw=one.image_hw,
                device=place.device,
                threads=place.threads,
            ).peak_bytes
        except EngineError:
            found = None
        return found, path.stat().st_size


def step_seconds(one: Contender, kind: NetworkKind, plan: Plan) -> float | None:
    """Of forward and backward pass of one batch, on the device that training takes.

    Returns:
        None where the memory does not hold it.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    settings = one.candidate.model.model_copy(update={"encoder_weights": None})
    classes = len(kind.classes)
    with torch.random.fork_rng(devices=()):
        network = build(settings, channels=kind.channels, classes=classes, task=kind.task)
    network = network.to(device).to(memory_format=torch.channels_last).train()
    criterion = build_loss(plan.loss, classes=classes, task=kind.task, ignore_index=None).to(device)
    shape = (plan.batch_size, kind.channels, plan.crop_px, plan.crop_px)
    crops = torch.rand(shape, device=device).contiguous(memory_format=torch.channels_last)
    truth = torch.randint(0, classes, (plan.batch_size, plan.crop_px, plan.crop_px), device=device)

    def step() -> float:
        began = time.perf_counter()
        logits = network(crops)
        loss = criterion(logits[0] if isinstance(logits, list) else logits, truth)
        loss.backward()
        network.zero_grad(set_to_none=True)
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began

    try:
        first = step()
        return step() if first > SLOW_STEP_S else statistics.median(step() for _ in range(3))
    except (RuntimeError, MemoryError):
        return None


def _expectation(
    one: Contender,
    plan: Plan,
    step_s: float | None,
    train_s: float | None,
    fingerprint: Fingerprint,
) -> tuple[float | None, Expected | None]:
    if step_s is None:
        return None, None
    steps = TRAINED_SHARE * (1800.0 if train_s is None else train_s) / step_s
    crops = steps * plan.batch_size * plan.crop_px**2 / CROP_PIXELS
    return crops, expected(one.candidate, crops, fingerprint)
