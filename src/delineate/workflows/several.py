"""The steps of a training in several processes; what comes before and after is in one."""

from __future__ import annotations

from collections.abc import Callable

from delineate.data.class_index import ClassIndex
from delineate.training.cache import SHARE_OF_MEMORY, SampleCache, memory_bytes
from delineate.training.check import ReadSamples
from delineate.training.checkpoint import Progress
from delineate.training.clock import Clock
from delineate.training.fit import fit
from delineate.training.folder import joinable
from delineate.training.history import add_warning
from delineate.training.job import Event
from delineate.training.launch import RESTARTS, Worker, launch
from delineate.training.log import Row
from delineate.workflows.crops import Crops
from delineate.workflows.following import page_of
from delineate.workflows.training_setup import Prepared, UserAugmentation, augmentation_of


def fit_together(
    prepared: Prepared,
    index: ClassIndex,
    augmentation: UserAugmentation | None,
    clock: Clock,
    *,
    watch: Callable[[Event], None],
    on_row: Callable[[Row], None],
) -> Progress:
    """Take the steps of a training in several processes.

    Args:
        prepared: the training; its folder is there.
        index: where the classes are.
        augmentation: a user's, in place of the plan's; a function of a module.
        clock: of the run; it runs while the processes start.
        watch: told about every step and validation.
        on_row: given every row of ``metrics.csv``.

    Raises:
        DelineateError: what :func:`delineate.training.fit.fit` and ``launch`` raise.
    """

    def hear(told: Event | Row) -> None:
        if isinstance(told, Event):
            watch(told)
        else:
            on_row(told)

    with joinable(prepared.job.run):
        progress = _launched(prepared, index, augmentation, clock, watch=hear)
    assert progress is not None, "the main process is on the machine that leads"
    return progress


def help_to_fit(
    prepared: Prepared, index: ClassIndex, augmentation: UserAugmentation | None
) -> None:
    """Take this machine's part in the steps of a training that another machine leads.

    Args:
        prepared: as on the machine that leads.
        index: where the classes are.
        augmentation: as on the machine that leads.

    Raises:
        DelineateError: what ``fit_together`` raises on the other machine.
    """
    _launched(prepared, index, augmentation, None, watch=None)


def _launched(
    prepared: Prepared,
    index: ClassIndex,
    augmentation: UserAugmentation | None,
    clock: Clock | None,
    *,
    watch: Callable[[Event | Row], None] | None,
) -> Progress | None:
    """The clock is that of the machine that leads; on another there is none."""
    settings = prepared.settings
    return launch(
        _take_part,
        (prepared, index, augmentation, None if clock is None else clock.start),
        folder=prepared.job.run,
        devices=settings.devices,
        nodes=settings.nodes,
        rendezvous=settings.rendezvous,
        leads=clock is not None,
        watch=watch,
    )


def _take_part(
    worker: Worker,
    prepared: Prepared,
    index: ClassIndex,
    augmentation: UserAugmentation | None,
    start: float | None,
) -> Progress:
    """What each process does. It goes on from the last checkpoint, if there is one."""
    job, world = prepared.job, worker.world
    limit = int(memory_bytes() * SHARE_OF_MEMORY / world.local_size)
    samples = ReadSamples(SampleCache(job.read, limit), index)
    crops = Crops.of(job, samples, augmentation_of(job, augmentation))
    page = page_of(prepared)
    path = job.run / "clock"
    clock = (
        Clock(path, 0.0, keeps=False)
        if start is None  # on a machine that does not lead, and so is not asked for the time
        else Clock.begun(path, start, keeps=world.is_main)
    )
    if world.is_main and worker.restarts:
        text = (
            "A process ended before its time, and all went on from the last checkpoint (restart "
            f"{worker.restarts} of {RESTARTS})."
        )
        add_warning(job.run, text)
        worker.send(Event.note(text))

    def watch(event: Event) -> None:
        if event.kind == "step":
            page.renew(event.fraction, event.remaining_s)
        worker.tell(event)

    return fit(
        job,
        crops.stream(job, world),
        resume=True,
        clock=clock,
        world=world,
        watch=watch,
        on_validation=page.on_validation,
        on_row=worker.send,  # told without a word about Ctrl-C, which ends between steps alone
    )
