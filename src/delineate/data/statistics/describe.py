"""One pass over a dataset: every image is measured by itself, and the figures are added up."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import numpy as np

from delineate.data.dataset import Dataset, DatasetInfo, Sample, read_instances, read_pair
from delineate.data.images import read_image
from delineate.data.palette import is_background
from delineate.data.parallel import ordered_map
from delineate.data.statistics.examples import Examples
from delineate.data.statistics.intensity import count_values, sample_size
from delineate.data.statistics.measure import Measured, foreground_of, measure_labels
from delineate.data.statistics.result import Statistics
from delineate.data.statistics.tally import Tally

Progress = Callable[[int, int], None]
"""Called with samples done and samples in all, from the calling thread."""


def describe(
    dataset: Path,
    *,
    splits: Collection[str] | None = None,
    most: int | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Statistics:
    """Measure the canonical dataset at ``dataset``.

    Every file is read once, and no more images are held than there are workers. The figures are
    the same for any number of workers. Images without a mask count for sizes, pixel types and
    intensities alone.

    Args:
        dataset: a folder with ``dataset.yaml``.
        splits: which are measured; all when left out.
        most: images of a split that are measured, evenly spread; all when left out.
        workers: threads; as many as processors when left out.
        progress: told after every image.

    Raises:
        DatasetError: there is no dataset: no folder, no or a wrong ``dataset.yaml``, no images.
        ImageError: an image cannot be read.
        MaskError: a mask or a file of object ids cannot be read, has another size than its
            image or other ids than the classes.
    """
    data = Dataset.open(dataset)
    info = data.info
    background = frozenset(i for i, name in enumerate(info.classes) if is_background(name))
    wanted = [split for split in data.splits if splits is None or split in splits]
    samples = [(split, sample) for split in wanted for sample in _spread(data.splits[split], most)]
    kept = sample_size(len(samples))
    tallies = {split: Tally(split, info) for split in wanted}
    examples = Examples(info.ignore_index, background)
    for done, measured in enumerate(
        ordered_map(
            lambda sample: measure(sample, info, background, kept),
            [sample for _, sample in samples],
            workers,
        )
    ):
        split, sample = samples[done]
        tallies[split].add(sample, measured)
        examples.add(split, sample.name, measured.labels)
        if progress is not None:
            progress(done + 1, len(samples))
    whole = Tally("all", info)
    for tally in tallies.values():
        whole.merge(tally)
    return Statistics(
        dataset=str(dataset),
        classes=info.classes,
        ignore_index=info.ignore_index,
        pixel_size_um=info.pixel_size_um,
        splits=tuple(tally.result() for tally in tallies.values()),
        whole=whole.result(),
        examples=examples.result(),
    )


def _spread(samples: Sequence[Sample], most: int | None) -> Sequence[Sample]:
    if most is None or len(samples) <= most:
        return samples
    return [samples[index] for index in np.linspace(0, len(samples) - 1, most).round().astype(int)]


def measure(
    sample: Sample, info: DatasetInfo, background: frozenset[int], sampled_values: int
) -> Measured:
    """Read a sample and measure it.

    Args:
        background: ids of the classes that are everything that is nothing else.
        sampled_values: how many float32 values of a channel to keep.

    Raises:
        ImageError: the image cannot be read.
        MaskError: the mask or the object ids cannot be used.
    """
    labels = foreground = found = None
    if sample.mask is None:
        image = read_image(sample.image)
    else:
        image, labels = read_pair(sample, info)
        instances = read_instances(sample, (labels.shape[0], labels.shape[1]))
        found = measure_labels(labels, instances, background, info.ignore_index)
        if background:
            inside = foreground_of(labels, background, info.ignore_index)
            foreground = count_values(image, inside, sampled_values)
    values = count_values(image, None, sampled_values)
    assert values is not None  # an image has one pixel at least
    height, width, channels = image.shape
    return Measured((height, width), channels, image.dtype.name, values, foreground, found)
