"""A training on the terminal: its progress, and Ctrl-C that loses nothing."""

from __future__ import annotations

import math
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from delineate.cli.console import Interrupted, counting, err


@contextmanager
def how_to_resume(out: Path) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        if not (out / "plan.yaml").exists():
            raise Interrupted("nothing was written yet") from None
        words = [word for word in sys.argv[1:] if word not in ("--force", "--resume")]
        command = shlex.join(["delineate", *words, "--resume"])
        raise Interrupted(f"to go on: {command}") from None


@contextmanager
def after_a_step(watch: Callable[[Any], None]) -> Iterator[Callable[[Any], None]]:
    """A watcher that obeys Ctrl-C when a step is done, so that none is lost; a second at once."""
    pressed = False

    def on_signal(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        if pressed or not training:
            signal.default_int_handler(number, frame)
        pressed = True
        err.print("stopping after this step; Ctrl-C once more stops at once")

    training = False  # the loop looks at ``pressed``; what comes before and after it does not

    def watcher(event: Any) -> None:
        nonlocal training
        if event.kind != "note":  # which comes in the middle of anything
            training = event.fraction < 1 and event.kind not in ("reading", "stopped")
        watch(event)
        if pressed:
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield watch
        return
    before = signal.signal(signal.SIGINT, on_signal)
    try:
        yield watcher
    finally:
        signal.signal(signal.SIGINT, before)


class Watching:
    """Shows the loop's events: a bar on a terminal, a line now and then elsewhere."""

    def __init__(self) -> None:
        self._bar = counting("training, % done", 100) if err.is_terminal else None
        self._update: Any = None
        self._said = 0.0

    def __enter__(self) -> Any:
        if self._bar is not None:
            self._update = self._bar.__enter__()
        return self

    def __exit__(self, *details: Any) -> None:
        if self._bar is not None:
            self._bar.__exit__(*details)

    def __call__(self, event: Any) -> None:
        now = time.monotonic()
        if event.kind == "reading":
            if now - self._said > 15:
                self._said = now
                err.print(f"reading every image and mask once, {event.fraction:.0%} done")
            return
        if event.kind == "note":
            err.print(f"note: {event.text}", markup=False)
            return
        if self._update is not None:
            self._update(event.fraction * 100)
        if event.kind == "validation":
            best = math.nan if event.best_miou is None else event.best_miou
            err.print(f"step {event.step}: mIoU on val {event.val_miou:.4f} (best {best:.4f})")
        elif event.kind == "stopped":
            err.print(f"step {event.step}: stopped, the score on val gets no better")
        elif now - self._said > 15:
            self._said = now
            err.print(
                f"step {event.step}: loss {event.loss:.4f}, {event.images_per_s:.1f} images/s, "
                f"{event.fraction:.0%} done, {event.remaining_s:.0f} s left"
            )
