"""Rows of the table: prospects timed at length in turns, with the memory they take."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from delineate.bundle.footprint import graph_footprint
from delineate.data.images import decode_image, fit_channels
from delineate.data.masks import encode_mask
from delineate.data.palette import Colour
from delineate.engines.timing import Interval, Timing, time_calls
from delineate.errors import EngineError
from delineate.planning.choice import Budget, Row, misfits
from delineate.planning.contender import Contender, NetworkKind, Place
from delineate.planning.prospect import Prospect
from delineate.types import Image
from delineate.words import plural

ROUNDS = 20
MORE_ROUNDS = 36  # of two calls at least: the 72 that the interval of a p95 needs
OTHER_SHARE = 0.25  # of the time, for what the budget does not mean
SETTLED_SHARE = 0.6  # of the rest, before candidates without an interval are timed further
SURELY_FAST = 0.5  # of the budget: a p95 below needs no interval
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
    networks = {one.contender.label: _network(one.contender, work) for one in prospects}
    wholes = {one.contender.label: _whole(one.contender, work) for one in prospects}
    tell(f"timing {plural(len(prospects), 'candidate')} in turns")
    asked, other = (wholes, networks) if budget.end_to_end else (networks, wholes)
    told = _timed(other, OTHER_SHARE * limit_s)
    judged = _judged(asked, budget, (1 - OTHER_SHARE) * limit_s)
    whole_of, network_of = (judged, told) if budget.end_to_end else (told, judged)
    found = []
    for one in prospects:
        label = one.contender.label
        network, whole = network_of[label], whole_of[label]
        tell(f"memory of {label}")
        memory = _peak_bytes(one.contender, kind, place)
        found.append(
            Row(
                **vars(one),
                network=network,
                end_to_end=whole,
                memory_bytes=memory,
                file_bytes=one.contender.graph.ByteSize(),
                reasons=(
                    *misfits(network, whole, memory, budget),
                    *(() if memory is not None else ("a process of its own died with it",)),
                ),
            )
        )
    return found


def _timed(calls: Mapping[str, Callable[[], object]], limit_s: float) -> dict[str, Timing]:
    return time_calls(calls, rounds=ROUNDS, limit_s=limit_s, warm_up_limit_s=WARM_UP_S)


def _judged(
    calls: Mapping[str, Callable[[], object]], budget: Budget, limit_s: float
) -> dict[str, Timing]:
    """Timings by which candidates are judged.

    Slow networks make few calls in a round. Where these are too few for the interval of a p95 that
    would just fit, more follow, until there are enough: no lucky minute admits a network.
    """
    found = _timed(calls, SETTLED_SHARE * limit_s)
    close = {
        label: calls[label]
        for label, timing in found.items()
        if _unsettled(timing.quantile(0.95), budget)
    }
    if close:
        more = time_calls(
            close, rounds=MORE_ROUNDS, limit_s=(1 - SETTLED_SHARE) * limit_s, warm_up_limit_s=0.0
        )
        found |= {label: found[label].followed_by(timing) for label, timing in more.items()}
    return found


def _unsettled(p95: Interval, budget: Budget) -> bool:
    close = SURELY_FAST * budget.p95_ms < p95.value <= budget.p95_ms
    return close and not math.isfinite(p95.high)


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
