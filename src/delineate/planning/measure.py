"""Rows of the table: prospects timed at length in turns, with the memory they take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from delineate.bundle.footprint import graph_footprint
from delineate.data.images import decode_image, fit_channels
from delineate.data.masks import encode_mask
from delineate.data.palette import Colour
from delineate.engines.timing import time_calls
from delineate.errors import EngineError
from delineate.planning.choice import Budget, Row, misfits
from delineate.planning.contender import Contender, NetworkKind, Place
from delineate.planning.prospect import Prospect
from delineate.types import Image
from delineate.words import plural

ROUNDS = 20
WARM_UP_S = 1.0  # at most, of each; the quick look was one already


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
    prospects: Sequence[Prospect],
    kind: NetworkKind,
    place: Place,
    work: Work,
    budget: Budget,
    *,
    limit_s: float,
    tell: Callable[[str], None],
) -> list[Row]:
    """Time prospects in turns, measure the memory of each, and judge them.

    Args:
        prospects: that are worth it.
        kind: what they take and give.
        place: engines and device.
        work: what is timed.
        budget: what has to be met.
        limit_s: no further round of timing begins later; three in any case.
        tell: given a line for each thing that is done.
    """
    calls: dict[str, Callable[[], object]] = {}
    for one in prospects:
        calls[f"network of {one.contender.label}"] = _network(one.contender, work)
        calls[f"whole of {one.contender.label}"] = _whole(one.contender, work)
    tell(f"timing {plural(len(prospects), 'candidate')} in turns")
    timings = time_calls(calls, rounds=ROUNDS, limit_s=limit_s, warm_up_limit_s=WARM_UP_S)
    found = []
    for one in prospects:
        label = one.contender.label
        network, whole = (timings[f"{part} of {label}"] for part in ("network", "whole"))
        tell(f"memory of {label}")
        memory = _peak_bytes(one.contender, kind, place)
        found.append(
            Row(
                **vars(one),
                network=network,
                end_to_end=whole,
                memory_bytes=memory,
                file_bytes=one.contender.graph.ByteSize(),
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


def _peak_bytes(one: Contender, kind: NetworkKind, place: Place) -> int | None:
    """Memory of a process; None where it died."""
    try:
        return graph_footprint(
            one.graph,
            kind.spec,
            one.engine,
            one.precision,
            image_hw=one.image_hw,
            device=place.device,
            threads=place.threads,
        ).peak_bytes
    except EngineError:
        return None
