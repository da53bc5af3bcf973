"""Batches for training, each a function of seed and step alone, prepared ahead in a thread."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Sequence

import numpy as np
from jaxtyping import Shaped, UInt

from delineate.data.dataset import Sample
from delineate.types import Image, LabelMap

Read = Callable[[Sample], tuple[Image, LabelMap]]
Crop = tuple[Shaped[np.ndarray, "crop_h crop_w c"], UInt[np.ndarray, "crop_h crop_w"]]
# (image, mask, rng) -> crop of both, all of one size
Prepare = Callable[[Image, LabelMap, np.random.Generator], Crop]
Batch = tuple[Shaped[np.ndarray, "n h w c"], UInt[np.ndarray, "n h w"]]

AHEAD = 2  # batches kept ready


class SampleStream:
    """An endless stream of batches over shuffled epochs.

    The randomness of a sample comes from (seed, epoch, index), so any batch can be made again
    without those before it, by whatever thread, and a resumed run sees what it would have seen.
    """

    def __init__(
        self, samples: Sequence[Sample], read: Read, prepare: Prepare, batch_size: int, seed: int
    ) -> None:
        self._samples = samples
        self._read = read
        self._prepare = prepare
        self._batch_size = batch_size
        self._seed = seed

    def batch(self, step: int) -> Batch:
        """The batch of a step: raw pixels (N, H, W, C) and class ids (N, H, W)."""
        first = step * self._batch_size
        pairs = [self._one(number) for number in range(first, first + self._batch_size)]
        return np.stack([image for image, _ in pairs]), np.stack([mask for _, mask in pairs])

    def _one(self, number: int) -> Crop:
        epoch, position = divmod(number, len(self._samples))
        order = np.random.default_rng((self._seed, epoch)).permutation(len(self._samples))
        index = int(order[position])
        image, mask = self._read(self._samples[index])
        return self._prepare(image, mask, np.random.default_rng((self._seed, epoch, index)))

    def batches(self, first_step: int) -> Generator[Batch, None, None]:
        """Batches from ``first_step`` on; an error in the reading thread is raised here."""
        ready: queue.Queue[Batch | Exception] = queue.Queue(maxsize=AHEAD)
        stop = threading.Event()

        def work() -> None:
            step = first_step
            while not stop.is_set():
                try:
                    item: Batch | Exception = self.batch(step)
                except Exception as error:  # handed to the consumer, who raises it
                    item = error
                step += 1
                while not stop.is_set():
                    try:
                        ready.put(item, timeout=0.1)
                        break
                    except queue.Full:
                        continue
                if isinstance(item, Exception):
                    return

        thread = threading.Thread(target=work, name="samples", daemon=True)
        thread.start()
        try:
            while True:
                item = ready.get()
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            stop.set()
            thread.join()
