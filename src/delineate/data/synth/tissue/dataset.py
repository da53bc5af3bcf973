"""Settings of generated tissue: ``delineate data synth tissue``."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from delineate.data.dataset import DatasetInfo
from delineate.data.synth.dataset import Scene, SynthSettings, generator
from delineate.data.synth.tissue.appearance import HELD_OUT, TRAINED
from delineate.data.synth.tissue.scene import LARGEST_PX, SMALLEST_PX, render_tissue

CLASSES = ("background", "stroma", "gland", "tumour")
COLOURS = ((0, 0, 0), (240, 228, 66), (0, 114, 178), (213, 94, 0))  # Okabe and Ito
PIXEL_SIZE_UM = 0.5


class TissueSettings(SynthSettings):
    """What decides the pixels of a generated dataset of tissue.

    Its objects are glands, lumen included, and tumour nests; stroma and bare glass are no objects.
    """

    kind: ClassVar[str] = "tissue"
    classes: ClassVar[tuple[str, ...]] = CLASSES

    size: int = Field(
        512, ge=SMALLEST_PX, le=LARGEST_PX, description="side of the square images, pixels"
    )
    held_out: bool = Field(
        False, description="stain and scanner from ranges that no other dataset is drawn from"
    )

    @property
    def info(self) -> DatasetInfo:
        """The ``dataset.yaml``. Every image is a slide of its own."""
        return super().info.model_copy(update={"colours": COLOURS, "pixel_size_um": PIXEL_SIZE_UM})

    def sample(self, index: int) -> Scene:
        """Image number ``index``, whatever ``n`` is, with object ids if they are asked for."""
        rng = generator(self.seed, index, int(self.held_out))
        appearance = (HELD_OUT if self.held_out else TRAINED).draw(rng)
        seed = int(rng.integers(2**62))
        return render_tissue(seed, self.size, self.size, appearance, instances=self.instances)
