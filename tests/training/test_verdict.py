from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from delineate.errors import OutputError, RefusedError
from delineate.training import verdict as module
from delineate.training.verdict import judged, leave_verdict


def test_the_first_word_counts(tmp_path: Path) -> None:
    verdict = tmp_path / "verdict.json"
    assert judged(verdict, keep=False) is None
    leave_verdict(verdict, RefusedError("the loss is nan", where="step 3", mend="Look."))
    leave_verdict(verdict, OutputError("the disk is full", where="run"))
    assert [path.name for path in tmp_path.iterdir()] == ["verdict.json"]
    found = judged(verdict, keep=True)
    assert isinstance(found, RefusedError)
    assert str(found) == "step 3: the loss is nan. Look."
    leave_verdict(tmp_path / "other.json", KeyboardInterrupt())
    assert isinstance(judged(tmp_path / "other.json", keep=False), KeyboardInterrupt)


def test_a_full_disk_leaves_no_half_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module.Path, "write_text", full)
    leave_verdict(tmp_path / "verdict.json", OutputError("the disk is full", where="run"))
    assert list(tmp_path.iterdir()) == []
    assert judged(tmp_path / "verdict.json", keep=False) is None
