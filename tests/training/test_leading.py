from __future__ import annotations

import threading
from pathlib import Path

import pytest

from delineate.errors import EngineError
from delineate.training.leading import MAIN, agreed_main


@pytest.fixture(autouse=True)
def _started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASTER_ADDR", "node1")
    monkeypatch.setenv("MASTER_PORT", "29401")
    monkeypatch.setenv("LOCAL_RANK", "0")


def test_the_first_process_of_the_machine_that_leads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert agreed_main(tmp_path, leads=True, rank=4) == 4
    assert agreed_main(tmp_path, leads=False, rank=0, limit_s=0.1) == 4
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert agreed_main(tmp_path, leads=True, rank=7) == 4
    assert (tmp_path / MAIN).read_text() == "node1:29401 4"


def test_what_was_said_at_an_earlier_start_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agreed_main(tmp_path, leads=True, rank=0)
    monkeypatch.setenv("MASTER_PORT", "29402")
    with pytest.raises(EngineError) as caught:
        agreed_main(tmp_path, leads=False, rank=0, limit_s=0.3)
    assert str(caught.value) == (
        f"{tmp_path}: no machine that leads has said so within 0.3 s. "
        "See that all machines have the same folder there."
    )


def test_the_others_wait_for_the_word(tmp_path: Path) -> None:
    speaker = threading.Timer(0.5, lambda: agreed_main(tmp_path, leads=True, rank=2))
    speaker.start()
    assert agreed_main(tmp_path, leads=False, rank=0, limit_s=60.0) == 2
    speaker.join()
