"""Images that show a class well, found on the way."""

from __future__ import annotations

from delineate.data.statistics.measure import MeasuredLabels
from delineate.data.statistics.result import Example

EXAMPLES = 4
"""Images that are kept for each class."""

# A class that fills more of an image than this is shown no better: then a picture with more
# classes around it says more.
_ENOUGH_SHARE = 0.2

_Score = tuple[float, int, float]


class Examples:
    """The best images of each class so far; of equal ones the first."""

    def __init__(self, ignore_index: int | None, background: frozenset[int]) -> None:
        self._ignore_index = ignore_index
        self._background = background
        self._best: dict[int, list[tuple[_Score, Example]]] = {}

    def add(self, split: str, sample: str, labels: MeasuredLabels | None) -> None:
        """Look at one more image; those without a mask show no class."""
        if labels is None:
            return
        pixels = {i: n for i, n in labels.pixels.items() if i != self._ignore_index}
        total = sum(labels.pixels.values())
        for class_id, count in pixels.items():
            if class_id in self._background:
                continue
            share = count / total
            score = (min(share, _ENOUGH_SHARE), len(pixels), share)
            best = self._best.setdefault(class_id, [])
            best.append((score, Example(class_id, split, sample, share)))
            best.sort(key=lambda entry: entry[0], reverse=True)
            del best[EXAMPLES:]

    def result(self) -> tuple[Example, ...]:
        """By class, the best first."""
        return tuple(
            example for class_id in sorted(self._best) for _, example in self._best[class_id]
        )
