"""The choice: of what fits the budget, what is expected to be the most accurate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from delineate.config import ModelSettings
from delineate.engines.timing import Interval, Timing
from delineate.planning.contender import LeftOut
from delineate.planning.latency import TIME_OVER
from delineate.planning.prospect import Prospect
from delineate.words import plural

TIE = 0.01  # of expected mIoU: too close to tell, and the faster one is taken


@dataclass(frozen=True)
class Budget:
    """What a model may take.

    Attributes:
        p95_ms: that 95 % of the calls do not exceed.
        end_to_end: whether it covers decoding the file and encoding the mask, or the network alone.
        memory_bytes: peak of a process that runs it; any when left out.
    """

    p95_ms: float
    end_to_end: bool = False
    memory_bytes: int | None = None

    @property
    def means(self) -> str:
        """In words."""
        if self.end_to_end:
            return "from the bytes of a file to the bytes of a mask"
        return "the network alone, from pixels to labels"


@dataclass(frozen=True)
class Row(Prospect):
    """A prospect that was timed at length.

    Attributes:
        network: from pixels to labels.
        end_to_end: from the bytes of an image file to those of a mask.
        memory_bytes: peak of a process that runs it alone; None where it could not be measured.
        file_bytes: of the graph.
        reasons: why it does not fit; empty if it does.
    """

    network: Timing
    end_to_end: Timing
    memory_bytes: int | None
    file_bytes: int
    reasons: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.contender.label

    def p95(self, budget: Budget) -> Interval:
        """Of what the budget means, milliseconds."""
        return (self.end_to_end if budget.end_to_end else self.network).quantile(0.95)


@dataclass(frozen=True)
class Choice:
    """What was chosen.

    Attributes:
        row: the chosen candidate; None when nothing fits.
        why: sentences.
    """

    row: Row | None
    why: tuple[str, ...]

    @property
    def model(self) -> ModelSettings | None:
        """The network that was chosen."""
        return None if self.row is None else self.row.contender.candidate.model


def misfits(
    network: Timing, end_to_end: Timing, memory_bytes: int | None, budget: Budget
) -> tuple[str, ...]:
    """Why a candidate does not fit a budget; empty if it does.

    The upper end of the percentile's interval has to lie within the budget, where there are calls
    enough for one.
    """
    found = []
    p95 = (end_to_end if budget.end_to_end else network).quantile(0.95)
    if p95.at_most > budget.p95_ms:
        found.append(f"p95 is {_told(p95)}")
    if (
        budget.memory_bytes is not None
        and memory_bytes is not None
        and memory_bytes > budget.memory_bytes
    ):
        found.append(f"takes {memory_bytes / 2**20:.0f} MB")
    return tuple(found)


def _told(p95: Interval) -> str:
    if math.isfinite(p95.high):
        return f"{p95.value:.1f} ms (at most {p95.high:.1f} ms with 95 %)"
    return f"{p95.value:.1f} ms"


def choose(rows: Sequence[Row], left_out: Sequence[LeftOut], budget: Budget) -> Choice:
    """The row with the highest expected accuracy of those that fit; of near equals the fastest.

    int8 is a hope, since its gate judges the trained network: of near equals a float goes before.

    Args:
        rows: timed candidates.
        left_out: those that were not timed at length.
        budget: what has to be met.
    """
    fitting = [row for row in rows if not row.reasons]
    if not fitting:
        return Choice(None, _what_would_fit(rows, left_out, budget))
    known = [row for row in fitting if row.expected is not None]
    if not known:
        fastest = min(_sure(fitting), key=_ms)
        why = "Nothing is known of the accuracy of these; this is the fastest."
        return Choice(fastest, (why, *still_to_do(fastest)))
    best = max(row.miou for row in known)
    near = [row for row in known if row.miou >= best - TIE]
    chosen = min(_sure(near), key=_ms)
    return Choice(chosen, (*_why(chosen, near, known, rows, budget), *_unseen(left_out)))


def _unseen(left_out: Sequence[LeftOut]) -> tuple[str, ...]:
    """That there was no time for some."""
    count = sum(item.reason == TIME_OVER for item in left_out)
    if count == 0:
        return ()
    return (f"There was no time to look at {plural(count, 'other')}: a longer --limit would.",)


def by_expectation(rows: Sequence[Row], most: int) -> list[Row]:
    """Those that fit, what is expected to be the most accurate first; one for each network."""
    fitting = sorted((row for row in rows if not row.reasons), key=lambda row: -row.miou)
    found: dict[str, Row] = {}
    for row in fitting:
        found.setdefault(row.contender.candidate.name, row)
    return list(found.values())[:most]


def _sure(rows: Sequence[Row]) -> Sequence[Row]:
    """Those in floats, if there are any."""
    return [row for row in rows if row.contender.precision != "int8"] or rows


def takes(row: Row, budget: Budget) -> str:
    """A sentence: how long a candidate takes, and what is allowed."""
    told = _told(row.p95(budget))
    return f"{row.name} takes {told} at p95; {budget.p95_ms:g} ms are allowed for {budget.means}."


def _why(
    chosen: Row, near: Sequence[Row], known: Sequence[Row], rows: Sequence[Row], budget: Budget
) -> tuple[str, ...]:
    text = [takes(chosen, budget), *still_to_do(chosen)]
    if chosen.expected is not None:
        place = 1 + sum(row.miou > chosen.miou for row in known)
        text.append(
            f"Of the {len(known)} that fit it is expected to be number {place} in accuracy "
            f"(from {chosen.expected.source})."
        )
    others = [row.name for row in near if row is not chosen and _ms(row) >= _ms(chosen)]
    if others:
        text.append(f"As accurate, as far as can be told, and slower: {', '.join(others)}.")
    slower = [row for row in rows if row.reasons and row.miou > chosen.miou + TIE]
    if slower:
        best = max(slower, key=lambda row: row.miou)
        text.append(f"More accurate, and out of reach: {best.name} ({'; '.join(best.reasons)}).")
    beaten = [
        row
        for row in known
        if row.contender.size.multiply_adds > chosen.contender.size.multiply_adds
        and row.miou < chosen.miou - TIE
    ]
    if beaten:
        largest = max(beaten, key=lambda row: row.contender.size.multiply_adds)
        text.append(
            f"{largest.name} fits too and is larger, but is expected to be less accurate: the "
            "training is too short for it."
            if _short(largest, chosen)
            else f"{largest.name} fits too and is larger, but is expected to be less accurate."
        )
    return tuple(text)


def _ms(row: Row) -> float:
    return row.network.quantile(0.5).value


def still_to_do(chosen: Row) -> tuple[str, ...]:
    """What the trained network needs before it is as fast as planned."""
    precision = chosen.contender.precision
    if precision == "float32":
        return ()
    doubt = ""
    if precision == "int8":
        doubt = "; where its gate refuses int8, the network does not fit"
    return (f"That is in {precision}: after the training, delineate compress adds it{doubt}.",)


def _short(larger: Row, chosen: Row) -> bool:
    """Whether the time for training is why a larger network is behind."""
    if larger.crops is None or chosen.crops is None:
        return False
    if larger.expected is None or not larger.expected.follows_time:
        return False
    return larger.crops < 0.7 * chosen.crops


def _what_would_fit(
    rows: Sequence[Row], left_out: Sequence[LeftOut], budget: Budget
) -> tuple[str, ...]:
    if not rows:
        return (f"No candidate came near. {left_out[0].name}: {left_out[0].reason}.",)
    fastest = min(rows, key=lambda row: row.p95(budget).at_most)
    needed = fastest.p95(budget).at_most
    text = [f"Nothing fits. The nearest is {fastest.name}: {'; '.join(fastest.reasons)}."]
    if needed > budget.p95_ms:
        share = math.sqrt(0.9 * budget.p95_ms / needed)  # time goes with the area
        text.append(f"A budget of {math.ceil(1.1 * needed)} ms would do.")
        text.append(f"So would images with sides of {share:.0%} of these.")
        text.append("A faster engine or device may do (--engine, --device), or more --threads.")
    text += _unseen(left_out)
    if budget.memory_bytes is not None and any("MB" in reason for reason in fastest.reasons):
        least = min(row.memory_bytes for row in rows if row.memory_bytes is not None)
        text.append(f"The least memory that any needs is {least / 2**20:.0f} MB.")
    return tuple(text)
