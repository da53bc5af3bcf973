"""``delineate join``: one more machine for a training that another one leads."""

from __future__ import annotations

from pathlib import Path

from delineate.config import Duration, Plan, checked, load_yaml
from delineate.data.dataset import Dataset
from delineate.errors import CheckpointError, SettingsError
from delineate.training.check import read_all
from delineate.training.folder import await_joinable
from delineate.training.launch import refuse_devices
from delineate.workflows.resuming import NOTE, TRAINING, Asked, read_note
from delineate.workflows.several import help_to_fit
from delineate.workflows.training_setup import (
    Prepared,
    TrainSettings,
    UserAugmentation,
    job_of,
)

WAIT_S = 1800.0  # for the machine that leads, which may have many images to read


def join(
    run: Path | str,
    *,
    dataset: Path | str | None = None,
    augmentation: UserAugmentation | None = None,
    wait_s: float = WAIT_S,
) -> None:
    """Take part in the training in ``run`` until it has taken its last step.

    Plan, dataset, number of processes and the place to meet are those that the machine that leads
    has written there. It shows the progress and writes the bundle.

    Args:
        run: the run's folder, which all machines see; absent until the training begins.
        dataset: its folder, where this machine has it in another place.
        augmentation: the one that the other machine was given in place of the plan's.
        wait_s: seconds that the training's beginning is waited for.

    Raises:
        SettingsError: no training there took machines in, or this machine lacks the devices.
        CheckpointError: the dataset holds other files than the other machine's.
        DatasetError: there is no such dataset.
        DelineateError: what the training itself raises.
    """
    run = Path(run)
    await_joinable(run, wait_s)
    note = read_note(run)
    call = note.get("resumed", [note])[-1]
    settings = TrainSettings(
        duration=checked(Duration, call["duration"], run / NOTE),
        devices=call["devices"],
        nodes=call["nodes"],
        rendezvous=call["rendezvous"],
    )
    if settings.nodes == 1:
        raise SettingsError(
            "is trained by one machine alone",
            where=run,
            mend="Start it anew with --nodes and --rendezvous.",
        )
    refuse_devices(settings.devices, nodes=settings.nodes, rendezvous=settings.rendezvous)
    data = Dataset.open(_found(dataset, Path(note["dataset"])))
    fingerprint = data.fingerprint()
    if fingerprint != note["dataset_sha256"]:
        raise CheckpointError(
            f"holds other files than on the machine that leads: their hash is {fingerprint[:12]} "
            f"here and {note['dataset_sha256'][:12]} there",
            where=data.path,
            mend="Copy them anew.",
        )
    plan = load_yaml(run / "plan.yaml", Plan)
    job = job_of(data, run, plan, {}, fingerprint, settings)
    job.build()
    samples = read_all(
        job.train,
        job.val,
        job.read,
        classes=job.classes,
        ignore_index=job.ignore_index,
        keep=False,  # its processes keep their own
    )
    asked = Asked(TRAINING, plan, run.name, canary=False)
    help_to_fit(Prepared(job, data, fingerprint, settings, asked), samples.index, augmentation)


def _found(dataset: Path | str | None, there: Path) -> Path:
    """Where the dataset is on this machine."""
    if dataset is not None:
        return Path(dataset)
    if not there.is_dir():
        raise SettingsError(
            "no such folder on this machine; the one that leads has the dataset there",
            where=there,
            mend="Add --data with its folder here.",
        )
    return there
