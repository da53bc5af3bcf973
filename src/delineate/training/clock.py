"""The time that a run has taken, over all its resumes."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

from delineate.data.files import write_text


class Clock:
    """Seconds spent on a run, over all its resumes; survives a kill to within a second.

    Args:
        path: the file it is kept in; a run that begins has none.
        spent_s: seconds that the caller spent before this clock was made.
        keeps: write the file; of several processes one does.

    Attributes:
        start: when the run would have begun without a pause, by this machine's
            ``time.monotonic``.
    """

    def __init__(self, path: Path, spent_s: float, *, keeps: bool = True) -> None:
        self._path = path
        self._keeps = keeps
        with suppress(OSError, ValueError):  # a first start, or what somebody else wrote there
            spent_s += float(path.read_text())
        self.start = time.monotonic() - spent_s
        self._written = 0.0

    @classmethod
    def begun(cls, path: Path, start: float, *, keeps: bool) -> Clock:
        """The clock of another process on this machine, which goes on while this one starts."""
        clock = cls(path, 0.0, keeps=keeps)
        clock.start = start
        return clock

    def elapsed_s(self) -> float:
        """Seconds so far; notes them once a second.

        Raises:
            OutputError: the disk is full, or the folder cannot be written.
        """
        now = time.monotonic() - self.start
        if self._keeps and now - self._written >= 1.0:
            write_text(self._path, f"{now:.3f}")
            self._written = now
        return now
