"""A training in several processes, begun again from its checkpoint when one of them dies."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import distributed
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.elastic.rendezvous import RendezvousError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from delineate.errors import DelineateError, SettingsError
from delineate.training.devices import available_cores
from delineate.training.leading import agreed_main
from delineate.training.verdict import VERDICT, died, judged, leave_verdict, not_met
from delineate.training.world import World, world_from_environment

T = TypeVar("T")

RESTARTS = 3  # as torchrun's users mostly set it
MEET_S = 3600  # that machines wait for the last one, which may have many images to read
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)  # torch takes them over

_LOGGERS = ("torch.distributed.elastic", "torch.multiprocessing.spawn")


@dataclass(frozen=True)
class Worker:
    """What one of several processes knows of itself.

    Attributes:
        world: this process among all.
        restarts: how often all processes have been started again because one died.
        send: gives a picklable object of less than 4 KB to the ``watch`` of the parent on this
            machine.
        tell: the same, and raises KeyboardInterrupt after a Ctrl-C, or when the parent is gone;
            for where a training can end well.
    """

    world: World
    restarts: int
    send: Callable[[Any], None]
    tell: Callable[[Any], None]


def launch(
    entry: Callable[..., T],
    arguments: Sequence[Any],
    *,
    folder: Path,
    devices: int,
    nodes: int = 1,
    rendezvous: str | None = None,
    leads: bool = True,
    watch: Callable[[Any], None] | None = None,
) -> T | None:
    """Run ``entry`` in several processes until all of them have returned.

    When one dies, by a signal or by an exception, the others are ended and all are started
    again, 3 times at most; ``entry`` then goes on from its checkpoint. A DelineateError is
    raised here as it is, without another try. A call from Ctrl-C's handler or from ``watch``
    that ends the training waits for ``entry`` to save, half a minute at most.

    The processes are spawned: a script that calls this needs ``if __name__ == "__main__":``.

    Args:
        entry: called as ``entry(worker, *arguments)`` with a :class:`Worker`; a function of a
            module. What it returns is small and picklable.
        arguments: picklable.
        folder: there already; on several nodes, one that all of them see.
        devices: processes on this machine, one for each GPU; without GPUs they share the cores.
        nodes: machines; each runs this call with the same arguments.
        rendezvous: ``HOST:PORT``, HOST being one of the nodes; for several nodes.
        leads: the main process is on this machine; so on one of them.
        watch: called with what ``entry`` tells, in another thread. What it raises ends the
            training and is raised here.

    Returns:
        what the main process returned; None on a node that does not lead.

    Raises:
        DelineateError: raised by ``entry`` in one of the processes.
        SettingsError: the devices are not there, the nodes do not know where to meet, or an
            argument cannot be sent to other processes.
        EngineError: processes died once more than they are started again, or the nodes did not
            meet.
        KeyboardInterrupt: after Ctrl-C.
    """
    refuse_devices(devices, nodes=nodes, rendezvous=rendezvous)
    _refuse_unsendable(entry, arguments)
    verdict = folder / VERDICT
    if leads:
        verdict.unlink(missing_ok=True)
    results: dict[int, T] = {}
    received: SignalException | None = None
    with (
        tempfile.TemporaryDirectory() as logs,
        _handlers_restored(),
        _quiet(),
        _fresh_stores(),
        _Relay(watch) as relay,
    ):
        config = _config(Path(logs), folder.name, devices, nodes, rendezvous)
        try:
            results = elastic_launch(config, _work)(
                entry, arguments, verdict, relay.outbox, nodes > 1, leads
            )
        except SignalException as error:
            received = error
        except ChildFailedError as error:
            if not verdict.exists():
                raise died(error, folder, RESTARTS + 1) from error
        except RendezvousError as error:
            raise not_met(error, nodes, rendezvous) from error
    refused = judged(verdict, keep=nodes > 1)
    if relay.raised is not None:
        raise relay.raised
    if received is not None and received.sigval != signal.SIGINT:
        signal.raise_signal(received.sigval)
    if received is not None:
        raise KeyboardInterrupt
    if refused is not None:
        raise refused
    return results[min(results)] if leads else None


def refuse_devices(devices: int, *, nodes: int = 1, rendezvous: str | None = None) -> None:
    """Raise when these processes cannot be started from here.

    Raises:
        SettingsError: that is so.
    """
    if devices < 1 or nodes < 1:
        few, where = (devices, "--devices") if devices < 1 else (nodes, "--nodes")
        raise SettingsError(f"{few} cannot train anything", where=where, mend="Use 1 or more.")
    there = torch.cuda.device_count() if torch.cuda.is_available() else available_cores()
    if devices > there:
        kind = "GPUs" if torch.cuda.is_available() else "cores"
        raise SettingsError(
            f"{devices} are wanted, and {there} {kind} are here",
            where="--devices",
            mend=f"Use --devices {there}.",
        )
    host, _, port = (rendezvous or "").rpartition(":")
    if nodes > 1 and not (host and port.isdigit()):
        raise SettingsError(
            f"{nodes} nodes have to meet at HOST:PORT, not at {rendezvous or 'no place'}",
            where="--rendezvous",
            mend="Name one of the nodes and a free port, as in --rendezvous node1:29400, and run "
            "the same command on every node.",
        )
    if nodes == 1 and rendezvous is not None:
        raise SettingsError(
            "a single machine has nobody to meet",
            where="--rendezvous",
            mend="Add --nodes, or leave it out.",
        )
    if threading.current_thread() is not threading.main_thread():
        raise SettingsError(
            "several processes can be started from a program's main thread only",
            where="--devices",
            mend="Call this from there, or use --devices 1.",
        )


def _refuse_unsendable(entry: Callable[..., Any], arguments: Sequence[Any]) -> None:
    try:
        ForkingPickler.dumps((entry, *arguments))  # as a process that is started gets them
    except Exception as error:  # whatever an argument's own class raises
        raise SettingsError(
            f"not everything can be sent to other processes ({error})",
            where="--devices",
            mend="Define functions and classes at the top of a module, or use --devices 1.",
        ) from error


def _config(
    logs: Path, name: str, devices: int, nodes: int, rendezvous: str | None
) -> LaunchConfig:
    alone = nodes == 1
    return LaunchConfig(
        min_nodes=nodes,
        max_nodes=nodes,
        nproc_per_node=devices,
        run_id=name or "run",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0" if alone else str(rendezvous),
        rdzv_configs={"join_timeout": MEET_S},
        # a machine's own name does not always lead to it
        local_addr="localhost" if alone else None,
        max_restarts=RESTARTS,
        start_method="spawn",
        logs_specs=DefaultLogsSpecs(log_dir=str(logs)),
    )


def _work(
    entry: Callable[..., T],
    arguments: Sequence[Any],
    verdict: Path,
    outbox: Connection,
    several_nodes: bool,
    leads: bool,
) -> T | None:
    """What runs in each process. One that should not be started again leaves a verdict."""
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # stdout is the parent's, for its result
    if verdict.exists():
        return None
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    world = world_from_environment()
    if not torch.cuda.is_available():
        torch.set_num_threads(max(available_cores() // world.local_size, 1))
    pressed = threading.Event()
    # a step that is broken off in one process breaks it in all
    signal.signal(signal.SIGINT, lambda *_: pressed.set())

    def send(told: Any) -> None:
        try:
            outbox.send(told)  # one write of less than 4 KB: whole or not at all
        except OSError:
            pressed.set()

    def tell(told: Any) -> None:
        send(told)
        if pressed.is_set():
            raise KeyboardInterrupt

    restarts = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
    try:
        if several_nodes:
            main = agreed_main(verdict.parent, leads=leads, rank=world.rank)
            world = replace(world, main=main)
        result = entry(Worker(world, restarts, send, tell), *arguments)
    except (DelineateError, KeyboardInterrupt) as error:
        leave_verdict(verdict, error)
        # as a failure: the others, who may be waiting for this one, are then ended
        raise SystemExit(1) from None
    if distributed.is_initialized():
        distributed.destroy_process_group()
    return result


class _Relay:
    """Hands what processes tell to ``watch``, in a thread.

    Attributes:
        outbox: the end that processes write to. It survives them: one that is started again
            writes on.
        raised: what ``watch`` raised.
    """

    def __init__(self, watch: Callable[[Any], None] | None) -> None:
        self._watch = watch
        self._over = False
        self._inbox, self.outbox = multiprocessing.Pipe(duplex=False)
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)
        self.raised: BaseException | None = None

    def __enter__(self) -> _Relay:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over = True
        self.outbox.send(None)
        self._thread.join()
        self.outbox.close()
        self._inbox.close()

    def _run(self) -> None:
        while (event := self._inbox.recv()) is not None:
            if self._watch is None or self.raised is not None:
                continue  # read all the same, or the processes would wait
            try:
                self._watch(event)
            except BaseException as error:  # raised again in the main thread
                self.raised = error
                if not self._over:
                    os.kill(os.getpid(), signal.SIGINT)


@contextmanager
def _handlers_restored() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:  # what was not set from Python cannot be set again from it
                signal.signal(number, handler)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without torch's own words on what is told here in ours."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    handler, before = logging.NullHandler(), [logger.propagate for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.propagate = False
    try:
        yield
    finally:
        for logger, propagate in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.propagate = propagate


@contextmanager
def _fresh_stores() -> Iterator[None]:
    """A store of addresses for each start of the processes.

    In PyTorch 2.15 the agent's store serves all starts, and a process that is started again may
    find there the address of one that is dead, and wait for it.
    """
    name = "TORCH_DISABLE_SHARE_RDZV_TCP_STORE"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
