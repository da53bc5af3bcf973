"""Processes that are started, die, refuse and are interrupted. Each start costs seconds."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed

from delineate.errors import EngineError, MaskError, SettingsError
from delineate.training.launch import Worker, launch, refuse_devices
from delineate.training.verdict import VERDICT

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The processes import this module by its name; they get this process's path."""
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.setattr("delineate.training.launch.available_cores", lambda: 2)


def _own_parts(worker: Worker, folder: Path) -> tuple[int, int]:
    (folder / f"{worker.world.rank}-{worker.restarts}").touch()
    if worker.world.rank == 1 and worker.restarts == 0:
        while not (folder / "0-0").exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGKILL)
    if worker.restarts == 0:
        time.sleep(600)  # as one that waits for the one that died
    print("not on stdout")
    if worker.world.is_main:
        worker.tell({"threads": torch.get_num_threads()})
    return worker.world.rank, worker.world.size


def test_a_killed_process_has_all_of_them_started_again(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    told: list[Any] = []
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    result = launch(_own_parts, (tmp_path,), folder=tmp_path, devices=2, watch=told.append)
    assert result == (0, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0-0", "0-1", "1-0", "1-1"]
    assert told == [{"threads": max(len(os.sched_getaffinity(0)) // 2, 1)}]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err == "not on stdout\n" * 2


def _refusing(worker: Worker, folder: Path) -> None:
    (folder / f"{worker.world.rank}-{worker.restarts}").touch()
    if worker.world.rank == 1:
        raise MaskError("has class 7", where="a.png", mend="Use 0 to 2.")
    time.sleep(600)


def test_wrong_input_in_one_process_is_the_parents_error(tmp_path: Path) -> None:
    with pytest.raises(MaskError) as caught:
        launch(_refusing, (tmp_path,), folder=tmp_path, devices=2)
    assert str(caught.value) == "a.png: has class 7. Use 0 to 2."
    assert (caught.value.found, caught.value.where) == ("has class 7", "a.png")
    # nothing was tried again, and nothing is left that would stop the next launch
    assert {path.name for path in tmp_path.iterdir()} <= {"0-0", "1-0"}


def _interrupted(worker: Worker, folder: Path) -> None:
    try:
        while True:
            worker.tell("a step")
            time.sleep(0.1)
    except KeyboardInterrupt:
        worker.send("the end")  # which does not raise again
        (folder / f"saved-{worker.world.rank}").touch()
        raise


def test_ctrl_c_lets_a_process_save(tmp_path: Path) -> None:
    def press(told: Any) -> None:
        if not heard:
            os.kill(os.getpid(), signal.SIGINT)
        heard.append(told)

    heard: list[Any] = []
    with pytest.raises(KeyboardInterrupt):
        launch(_interrupted, (tmp_path,), folder=tmp_path, devices=1, watch=press)
    assert set(heard[:-1]) == {"a step"}
    assert heard[-1] == "the end"
    assert [path.name for path in tmp_path.iterdir()] == ["saved-0"]


@pytest.mark.long
def test_what_the_watcher_raises_ends_the_processes(tmp_path: Path) -> None:
    def refuse(event: Any) -> None:
        raise OSError(f"no room for {event}")

    with pytest.raises(OSError, match="no room for a step"):
        launch(_interrupted, (tmp_path,), folder=tmp_path, devices=1, watch=refuse)
    assert (tmp_path / "saved-0").exists()


def _dying(worker: Worker) -> None:
    raise ZeroDivisionError(f"at try {worker.restarts}")


@pytest.mark.long
def test_a_process_that_always_dies_ends_the_launch(tmp_path: Path) -> None:
    with pytest.raises(EngineError) as caught:
        launch(_dying, (), folder=tmp_path, devices=1)
    assert str(caught.value) == (
        f"{tmp_path}: process 0 ended before its work was done, 4 times, at last with "
        f'ZeroDivisionError: at try 3 (File "{__file__}", line '
        f"{_dying.__code__.co_firstlineno + 1}, in _dying). --resume goes on from the last "
        "checkpoint."
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"devices": 1, "rendezvous": "node1:29400"},
            "--rendezvous: a single machine has nobody to meet. Add --nodes, or leave it out.",
        ),
        ({"devices": 3}, "--devices: 3 are wanted, and 2 cores are here. Use --devices 2."),
        ({"devices": 0}, "--devices: 0 cannot train anything. Use 1 or more."),
        (
            {"devices": 1, "nodes": 2},
            "--rendezvous: 2 nodes have to meet at HOST:PORT, not at no place. Name one of the "
            "nodes and a free port, as in --rendezvous node1:29400, and run the same command on "
            "every node.",
        ),
        (
            {"devices": 1, "nodes": 2, "rendezvous": "node1"},
            "--rendezvous: 2 nodes have to meet at HOST:PORT, not at node1. Name one of the "
            "nodes and a free port, as in --rendezvous node1:29400, and run the same command on "
            "every node.",
        ),
    ],
)
def test_what_cannot_be_started_is_refused(
    options: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SettingsError) as caught:
        refuse_devices(**options)
    assert str(caught.value) == message


def test_another_thread_than_the_main_one_is_refused() -> None:
    found: list[str] = []

    def work() -> None:
        with pytest.raises(SettingsError) as caught:
            refuse_devices(2)
        found.append(str(caught.value))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [
        "--devices: several processes can be started from a program's main thread only. "
        "Call this from there, or use --devices 1."
    ]


def test_what_cannot_be_sent_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        launch(_dying, (lambda: None,), folder=tmp_path, devices=1)
    assert caught.value.mend == (
        "Define functions and classes at the top of a module, or use --devices 1."
    )


def test_an_old_verdict_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / VERDICT).write_text('{"kind": "KeyboardInterrupt"}')

    class Agent:
        def __init__(self, config: object, work: object) -> None: ...

        def __call__(self, *_: object) -> dict[int, str]:
            assert not (tmp_path / VERDICT).exists()
            return {1: "of the machine that leads"}

    monkeypatch.setattr("delineate.training.launch.elastic_launch", Agent)
    assert launch(_dying, (), folder=tmp_path, devices=1) == "of the machine that leads"


def test_a_machine_that_joins_leaves_the_word_and_has_no_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / VERDICT).write_text('{"kind": "KeyboardInterrupt"}')

    class Agent:
        def __init__(self, config: object, work: object) -> None: ...

        def __call__(self, *_: object) -> dict[int, str]:
            assert (tmp_path / VERDICT).exists()  # the other machine's, a moment ago
            return {1: "its own process's"}

    monkeypatch.setattr("delineate.training.launch.elastic_launch", Agent)
    place: dict[str, Any] = {"nodes": 2, "rendezvous": "node1:29400"}
    with pytest.raises(KeyboardInterrupt):
        launch(_dying, (), folder=tmp_path, devices=1, leads=False, **place)
    (tmp_path / VERDICT).unlink()
    monkeypatch.setattr(Agent, "__call__", lambda *_: {1: "its own process's"})
    assert launch(_dying, (), folder=tmp_path, devices=1, leads=False, **place) is None


def _of_two_nodes(worker: Worker, leads: bool) -> tuple[int, int, int]:
    distributed.init_process_group("gloo")
    summed = torch.ones(1)
    distributed.all_reduce(summed)
    assert worker.world.is_main is leads
    assert worker.world.from_main(leads) is True
    return worker.world.size, worker.world.nodes, int(summed)


def as_node(folder: str, port: str, leads: bool) -> None:
    """What each of two machines runs."""
    words: dict[str, Any] = {"nodes": 2, "rendezvous": f"localhost:{port}", "leads": leads}
    print(launch(_of_two_nodes, (leads,), folder=Path(folder), devices=1, **words))


@pytest.mark.long
def test_two_nodes_meet(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    module = "from tests.training.test_launch import as_node"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    nodes = [
        subprocess.Popen(
            [sys.executable, "-c", f"{module}; as_node({str(tmp_path)!r}, {port!r}, {leads})"],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        for leads in (False, True)
    ]
    told = [node.communicate(timeout=250)[0] for node in nodes]
    assert told == ["None\n", "(2, 2, 2)\n"]  # whichever of them has rank 0
