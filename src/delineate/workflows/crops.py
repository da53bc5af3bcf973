"""How the crops of a training are chosen and made."""

from __future__ import annotations

from dataclasses import dataclass

from delineate.data.augment import SampleAugmentation
from delineate.training.cache import ScalingCache
from delineate.training.check import ReadSamples
from delineate.training.devices import sample_threads
from delineate.training.job import Job
from delineate.training.sampling import balanced_choice, copy_paste, crop_maker
from delineate.training.stream import Choose, MakeCrop, SampleStream, ScalingOf
from delineate.training.world import World


@dataclass(frozen=True)
class Crops:
    """What a plan says of crops, joined to the samples that were read."""

    make: MakeCrop
    choose: Choose | None
    scaling_of: ScalingOf | None

    @classmethod
    def of(cls, job: Job, samples: ReadSamples, augment: SampleAugmentation) -> Crops:
        """As the plan has it.

        Raises:
            SettingsError: the dataset has nothing to balance, or no objects to paste.
            MaskError: object ids cannot be read or do not fit their image.
        """
        index, sampling = samples.index, job.plan.sampling
        paste = copy_paste(job.plan, job.train, samples.cache, index, job.ignore_index)
        teaching = job.teaching
        by_image = job.normalisation.by == "image"
        if teaching is not None and teaching.normalised_by_image:
            by_image = True
        return cls(
            crop_maker(samples.cache, augment, index=index, paste=paste),
            balanced_choice(index, sampling.balanced),
            ScalingCache(samples.cache) if by_image else None,
        )

    def stream(self, job: Job, world: World = World()) -> SampleStream:  # noqa: B008 - frozen
        """This process's part of the batches."""
        return SampleStream(
            job.train,
            self.make,
            job.plan.batch_size,
            job.plan.seed,
            choose=self.choose,
            scaling_of=self.scaling_of,
            rank=world.rank,
            world=world.size,
            workers=sample_threads(world.local_size),
        )
