"""What a run's folder tells: read from its files, whatever state the run is in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from delineate.config import Plan, flattened, read_yaml
from delineate.errors import SettingsError
from delineate.training.history import HistoryRow, read_history, read_warnings
from delineate.training.log import Row, read_metrics


@cache
def _defaults() -> dict[str, Any]:
    return flattened(Plan().model_dump(mode="json"))


@dataclass(frozen=True)
class RunRecord:
    """The files of a run, read.

    Attributes:
        path: the folder.
        plan: the settings of ``plan.yaml`` by dotted path.
        note: ``run.json``: dataset, command, environment; empty where it is missing.
        metrics: rows of ``metrics.csv``.
        history: the validations.
        result: ``result.json``, or None for a run that has not come to its end.
        warnings: what a reader should know.
    """

    path: Path
    plan: Mapping[str, Any]
    note: Mapping[str, Any]
    metrics: list[Row]
    history: list[HistoryRow]
    result: Mapping[str, Any] | None
    warnings: list[str]

    @property
    def name(self) -> str:
        return self.path.resolve().name

    @property
    def elapsed_s(self) -> float:
        """Seconds that the run has taken, as far as its files know."""
        if self.result is not None:
            return float(self.result["elapsed_s"])
        last = [float(row["elapsed_s"] or 0) for row in self.metrics[-1:]]
        return max([*last, *(row.elapsed_s for row in self.history[-1:])], default=0.0)

    @property
    def steps(self) -> int:
        """Optimiser steps done."""
        if self.result is not None:
            return int(self.result["steps"])
        return max((int(row["step"] or 0) for row in self.metrics), default=0)

    @cached_property
    def scores(self) -> list[tuple[int, float, float | None]]:
        """(step, mIoU on val, Dice on val) of each validation, 0 to 1."""
        rows = [row for row in self.metrics if row["val_miou"] is not None]
        return [(int(r["step"] or 0), float(r["val_miou"] or 0), r["val_dice"]) for r in rows]

    @property
    def best(self) -> tuple[int, float] | None:
        """(step, mIoU on val) of the best validation, the first of equals."""
        defined = [(step, miou) for step, miou, _ in self.scores if miou == miou]
        return max(defined, key=lambda row: row[1], default=None)

    @property
    def environment(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.note.get("environment", {})
        return found

    @cached_property
    def changed(self) -> dict[str, tuple[Any, Any]]:
        """(value, default) of the plan's settings that differ from the defaults."""
        usual = _defaults()
        return {
            name: (value, usual.get(name))
            for name, value in self.plan.items()
            if name not in usual or usual[name] != value
        }

    @property
    def wait_share(self) -> float | None:
        """Share of the time of steps that they waited for data, 0 to 1."""
        if not self.history:
            return None
        seconds = self.history[-1].seconds
        wait, step = seconds.get("wait", 0.0), seconds.get("step", 0.0)
        return wait / (wait + step) if wait + step > 0 else None


def read_run(path: Path) -> RunRecord:
    """Read a run's folder.

    Raises:
        SettingsError: there is no such folder, it holds no run, or its ``plan.yaml`` is damaged.
    """
    mend = "Name the folder that delineate train was given with -o."
    if not path.is_dir():
        found = "is a file, and a run is a folder" if path.exists() else "no such folder"
        raise SettingsError(found, where=path, mend=mend)
    if not (path / "plan.yaml").exists():
        raise SettingsError("holds no run: it has no plan.yaml", where=path, mend=mend)
    return RunRecord(
        path=path,
        plan=flattened(read_yaml(path / "plan.yaml")),
        note=_json(path / "run.json") or {},
        metrics=read_metrics(path),
        history=read_history(path),
        result=_json(path / "result.json"),
        warnings=read_warnings(path),
    )


def _json(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):  # a kill leaves files whole, a person may not
        return None
    return found if isinstance(found, dict) else None
