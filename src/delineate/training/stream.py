"""Batches for training, each a function of seed and step alone, prepared ahead in threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import count, islice
from typing import TypeAlias

import numpy as np
from jaxtyping import Float32, Int64, Shaped, UInt

from delineate.data.dataset import Sample
from delineate.types import Images, LabelMaps, Scaling

Crop: TypeAlias = tuple[Shaped[np.ndarray, "crop_h crop_w c"], UInt[np.ndarray, "crop_h crop_w"]]
# (sample, rng, class that the crop should hold, or None) -> crop of image and mask, all of one size
MakeCrop: TypeAlias = Callable[[Sample, np.random.Generator, int | None], Crop]

AHEAD = 2  # batches kept ready, beside those in the threads' hands
_MOST_WORKERS = 8


@dataclass(frozen=True)
class Batch:
    """Crops of one size.

    Attributes:
        images: (N, H, W, C), raw pixels.
        masks: (N, H, W), class ids.
        names: the sample of each crop, by name.
        scalings: (N, 2, C), scale and offset of the image that each crop is of, where networks
            ask for them.
    """

    images: Images
    masks: LabelMaps
    names: tuple[str, ...]
    scalings: Float32[np.ndarray, "n 2 c"] | None = None

    def part(self, part: slice) -> Batch:
        """Some of the crops."""
        scalings = None if self.scalings is None else self.scalings[part]
        return Batch(self.images[part], self.masks[part], self.names[part], scalings)

    def joined(self, other: Batch) -> Batch:
        """These crops, then those of another batch of the same kind."""
        scalings = None
        if self.scalings is not None and other.scalings is not None:
            scalings = np.concatenate([self.scalings, other.scalings])
        return Batch(
            np.concatenate([self.images, other.images]),
            np.concatenate([self.masks, other.masks]),
            self.names + other.names,
            scalings,
        )


@dataclass(frozen=True)
class Choice:
    """What the next crop is made of: a sample, and a class that the crop should hold, or None."""

    sample: Sample
    class_id: int | None = None


# Scale and offset (2, C) of a sample's whole image
ScalingOf: TypeAlias = Callable[[Sample], Scaling]
# (sample whose turn it is, the crop's rng) -> what is taken
Choose: TypeAlias = Callable[[Sample, np.random.Generator], Choice]


def default_workers(cores: int, *, accelerator: bool, processes: int = 1) -> int:
    """How many threads prepare crops.

    Beside an accelerator half of the cores do, 8 at most. Where the network itself runs on the
    cores a crop costs a few hundredths of its share of a step, so one thread for every 8 cores
    is enough, and more would only take turns with the network's.

    Args:
        cores: of this machine.
        accelerator: the network runs elsewhere.
        processes: of this training on this machine, which share the cores.
    """
    wanted = cores // processes // (2 if accelerator else 8)
    return min(max(wanted, 1), _MOST_WORKERS)


class SampleStream:
    """An endless stream of batches over shuffled epochs.

    The randomness of a crop comes from (seed, epoch, index), so any batch can be made again
    without those before it, by whatever thread or process, and a resumed run sees what it would
    have seen.

    Args:
        samples: what an epoch is made of.
        make_crop: called by several threads at once.
        batch_size: crops in a batch of all processes together, a multiple of ``world``.
        seed: of order and crops.
        choose: may take another sample than the one whose turn it is.
        scaling_of: of a crop's image, where networks ask for it.
        rank, world: this process and how many there are; each gets its part of every batch, and
            the parts in order are the batch of a single process.
        workers: threads that prepare batches.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        make_crop: MakeCrop,
        batch_size: int,
        seed: int,
        *,
        choose: Choose | None = None,
        scaling_of: ScalingOf | None = None,
        rank: int = 0,
        world: int = 1,
        workers: int = 1,
    ) -> None:
        self._samples = samples
        self._make_crop = make_crop
        self._choose = choose
        self._scaling_of = scaling_of
        self._batch_size = batch_size
        self._seed = seed
        self._part = batch_size // world
        self._first = rank * self._part
        self._workers = workers
        self._order = lru_cache(maxsize=2)(self._shuffled)  # a batch may lie on two epochs

    def batch(self, step: int) -> Batch:
        """This process's part of the batch of a step."""
        first = step * self._batch_size + self._first
        found = [self._one(number) for number in range(first, first + self._part)]
        scalings = None
        if self._scaling_of is not None:
            scalings = np.stack([self._scaling_of(sample) for sample, _ in found])
        return Batch(
            images=np.stack([image for _, (image, _) in found]),
            masks=np.stack([mask for _, (_, mask) in found]),
            names=tuple(sample.name for sample, _ in found),
            scalings=scalings,
        )

    def _one(self, number: int) -> tuple[Sample, Crop]:
        epoch, position = divmod(number, len(self._samples))
        index = int(self._order(epoch)[position])
        rng = np.random.default_rng((self._seed, epoch, index))
        turn = self._samples[index]
        choice = Choice(turn) if self._choose is None else self._choose(turn, rng)
        return choice.sample, self._make_crop(choice.sample, rng, choice.class_id)

    def _shuffled(self, epoch: int) -> Int64[np.ndarray, " samples"]:
        return np.random.default_rng((self._seed, epoch)).permutation(len(self._samples))

    def batches(self, first_step: int) -> Generator[Batch, None, None]:
        """Batches from ``first_step`` on; an error in a thread is raised here.

        Closing it waits for the threads to finish the batches in their hands.
        """
        steps = count(first_step)
        with ThreadPoolExecutor(self._workers, thread_name_prefix="samples") as pool:
            waiting = deque(
                pool.submit(self.batch, step) for step in islice(steps, AHEAD + self._workers)
            )
            try:
                while True:
                    batch = waiting.popleft().result()
                    waiting.append(pool.submit(self.batch, next(steps)))
                    yield batch
            finally:
                for future in waiting:
                    future.cancel()
