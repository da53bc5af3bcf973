"""A teacher: a bundle whose scores a student learns from, on the crops that the student sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from delineate.bundle.load import network_of
from delineate.bundle.scores import ScoreModel
from delineate.bundle.store import BundleStore
from delineate.config import DistillationSettings
from delineate.errors import SettingsError
from delineate.training.losses.distillation import DistillationLoss
from delineate.training.stream import Batch
from delineate.types import PixelType


@dataclass(frozen=True)
class Teaching:
    """Who teaches, and what.

    Attributes:
        bundle: the teacher.
        name: of the teacher.
        licence: of its weights.
        sha256: of its network.
        pairs: (student's id, teacher's id) of each class that both have.
        missing: classes of the student that the teacher does not know.
        normalised_by_image: whether it asks for scale and offset of whole images.
        unlabelled_sha256: of the images on which it alone has a word; empty without any.
    """

    bundle: Path
    name: str
    licence: str
    sha256: str
    pairs: tuple[tuple[int, int], ...]
    missing: tuple[str, ...]
    normalised_by_image: bool = False
    unlabelled_sha256: str = ""

    @classmethod
    def of(cls, bundle: Path, classes: Sequence[str], channels: int, dtype: PixelType) -> Teaching:
        """Match a teacher's classes with a student's by their names.

        Raises:
            BundleError: it is no bundle, or damaged.
            SettingsError: the two share fewer than two classes, or take other images, or the
                teacher is no network.
        """
        store = BundleStore(bundle)
        network_of(store)  # refuses a classical method, whose scores are mere yes and no
        manifest = store.manifest
        spec = manifest.spec()
        if (spec.channels, spec.dtype) != (channels, dtype):
            raise SettingsError(
                f"the teacher takes images of {spec.channels} channels of {spec.dtype}, and those "
                f"of the dataset have {channels} of {dtype}",
                where=bundle,
                mend="Take a teacher that was trained on such images.",
            )
        theirs = list(spec.classes)
        pairs = tuple(
            (own, theirs.index(name)) for own, name in enumerate(classes) if name in theirs
        )
        if len(pairs) < 2:
            shared = f"only {classes[pairs[0][0]]}" if pairs else "no class"
            raise SettingsError(
                f"teacher and dataset share {shared}; the teacher has {', '.join(theirs)}, the "
                f"dataset {', '.join(classes)}",
                where=bundle,
                mend="Rename the classes of the dataset with: delineate data import --map.",
            )
        known = {own for own, _ in pairs}
        return cls(
            bundle=bundle,
            name=manifest.name,
            licence=str(manifest.provenance.get("licence", "unknown")),
            sha256=manifest.files[manifest.variants["float32"].file],
            pairs=pairs,
            missing=tuple(name for own, name in enumerate(classes) if own not in known),
            normalised_by_image=spec.normalised_by_image,
        )

    def note(self) -> dict[str, object]:
        """What the student's bundle says of its teacher."""
        return {
            "name": self.name,
            "licence": self.licence,
            "sha256": self.sha256,
            "classes_it_does_not_know": list(self.missing),
        }


class Teacher:
    """A loaded teacher, and the loss that it adds.

    Args:
        teaching: who teaches what.
        settings: how much.
        device: of the student.
    """

    def __init__(
        self, teaching: Teaching, settings: DistillationSettings, device: torch.device
    ) -> None:
        store = BundleStore(teaching.bundle)
        manifest = store.manifest
        graph = network_of(store)
        self._scores = ScoreModel(graph, manifest.spec(), device=device.type)
        self._loss = DistillationLoss(settings, teaching.pairs).to(device)
        self._device = device

    def loss(self, crops: Batch, outputs: Tensor | list[Tensor]) -> Tensor:
        """Of a student's finest output against the teacher's scores for the same raw crops."""
        finest = outputs[0] if isinstance(outputs, list) else outputs
        pixels = np.ascontiguousarray(crops.images)
        if crops.scalings is None and self._scores.spec.normalised_by_image:
            raise TypeError("a teacher that is normalised by image needs scale and offset")
        scores = self._scores.logits(pixels, crops.scalings)
        wanted = torch.from_numpy(scores).to(self._device)
        found: Tensor = self._loss(finest, wanted)
        return found
