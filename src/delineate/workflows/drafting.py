"""What a training says about its network before the network is exported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from delineate.bundle.manifest import InputInfo, Manifest, Variant, class_infos
from delineate.config import Normalisation, Plan
from delineate.workflows.training_setup import Prepared


def drafted(
    prepared: Prepared,
    *,
    plan: Plan,
    normalisation: Normalisation,
    multiple_of: int,
    training_images: int,
    notes: Mapping[str, Any] | None = None,
) -> Manifest:
    """The manifest for :func:`delineate.export.export_bundle`, without scores.

    Args:
        prepared: gives name, classes, colours and kind of input.
        plan: what the network was trained by.
        normalisation: of the network's input.
        multiple_of: pixels that height and width of the input have to be a multiple of.
        training_images: how many it was trained on.
        notes: more for the provenance.
    """
    job, data = prepared.job, prepared.data
    return Manifest(
        name=prepared.name,
        task=job.task,
        classes=class_infos(job.classes, data.colours),
        ignore_index=job.ignore_index,
        input=InputInfo(
            channels=job.channels,
            dtype=job.dtype,
            multiple_of=multiple_of,
            pixel_size_um=data.info.pixel_size_um,
            normalisation=normalisation,
        ),
        tiling=job.plan.tiling,
        postprocessing=job.plan.postprocessing,
        variants={"float32": Variant(file="model.onnx")},
        provenance={
            "dataset_sha256": prepared.dataset_sha256,
            "training_images": training_images,
            **({} if job.teaching is None else {"teacher": job.teaching.note()}),
            **(notes or {}),
            "plan": plan.model_dump(mode="json"),
            "licence": "that of the training data and of the encoder's weights, if pretrained",
        },
    )
