"""The networks of several finished trainings -> one bundle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from delineate.bundle.load import load
from delineate.data.dataset import Sample
from delineate.export import Exported, export_bundle
from delineate.models.ensemble import Ensemble, Member, mean_normalisation
from delineate.release import HeldOut
from delineate.workflows.drafting import drafted
from delineate.workflows.parts import Done
from delineate.workflows.resuming import identity_of
from delineate.workflows.training_setup import Prepared


def export_ensemble(
    prepared: Prepared, done: Sequence[Done], held_out: HeldOut, notes: dict[str, Any]
) -> Exported:
    """Export the mean of the networks of ``done`` as one graph.

    Each member keeps the temperature that its own bundle has: it was fitted on images that the
    member had not seen, and of the ensemble there are none.

    Args:
        prepared: the whole; the bundle takes its name and folder.
        done: finished trainings of one plan.
        held_out: the scores that the bundle names. The ensemble has seen every image.
        notes: for the manifest's provenance.

    Raises:
        CheckpointError: a network is damaged.
        RefusedError: the graph gives something else than the networks.
    """
    job, images = prepared.job, _images(done)
    members = [_member(prepared, each) for each in done]
    common = mean_normalisation([member.normalisation for member in members])
    module = Ensemble(members, common)
    draft = drafted(
        prepared,
        plan=done[0].part.plan,
        normalisation=common,
        multiple_of=job.spec(module).multiple_of,
        training_images=len(images),
        notes=notes,
    )
    return export_bundle(
        module,
        draft,
        prepared.bundle,
        val=images,
        read=job.read,
        force=True,
        canary=prepared.asked.canary,
        held_out=held_out,
    )


def _member(prepared: Prepared, done: Done) -> Member:
    plan = done.part.plan
    identity = identity_of(plan, done.part.data.fingerprint(), prepared.job.teaching)
    network = replace(prepared.job, plan=plan, run=done.run, identity=identity).trained()
    manifest = load(done.bundle, engine="onnxruntime").manifest
    calibration = manifest.calibration
    return Member(
        network.eval(),
        manifest.input.normalisation,
        1.0 if calibration is None else calibration.temperature,
    )


def _images(done: Sequence[Done]) -> list[Sample]:
    """Every validation image of the parts; of two with one name, the first."""
    found: dict[str, Sample] = {}
    for each in done:
        for sample in each.part.data.split("val"):
            found.setdefault(sample.name, sample)
    return [found[name] for name in sorted(found)]
