"""A run followed in MLflow as well: the client sends from a thread and never stops a training."""

from __future__ import annotations

import json
import math
import os
import queue
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from delineate.config import flattened
from delineate.data.files import write_text
from delineate.errors import MissingExtraError, SettingsError

NOTE = "mlflow.json"
EXPERIMENT = "delineate"
_RETRY_S = 30.0  # between attempts while the server does not answer
_FINISH_S = 60.0  # that the end of a training waits for the server
_BATCH = 1000  # metrics in one request, MLflow's own limit
_PARAMS = 100  # parameters in one request, the same
_LONGEST_VALUE = 6000  # of a parameter, the same
_DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",  # else it reports its use to its makers
    "MLFLOW_ALLOW_FILE_STORE": "true",  # folders were asked for where the address is one
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # we try again ourselves
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}

_Value = str | int | float | bool | None
_Metric = tuple[str, float, int, int]  # name, value, milliseconds since 1970, step


def check_address(uri: str) -> None:
    """Raise where no tracker can be made for ``uri``; the server itself is not asked.

    Raises:
        MissingExtraError: mlflow is not installed, or what its client needs for this address.
        SettingsError: MLflow knows no such address.
    """
    _client(uri)


class MlflowTracker:
    """Sends a run's parameters, metrics and files to an MLflow server, as far as it answers.

    A thread sends, so that a step never waits. What a silent server has not taken is sent again
    later; what it never takes is counted and said. A run that is resumed goes on in the same
    MLflow run, whose id is kept in ``RUN/mlflow.json``.

    Args:
        uri: of the tracking server, ``http://host:5000``, or of a folder, ``file:mlruns``.
        run: the run's folder; its name is the run's name in MLflow.
        params: nested settings, the plan; flattened to dotted names.
        tags: names and values: dataset hash, command.
        warn: told, in the caller's thread, what could not be sent.
        retry_s: seconds between attempts while the server does not answer.

    Raises:
        MissingExtraError: mlflow is not installed, or what its client needs for this address.
        SettingsError: MLflow knows no such address.
    """

    def __init__(
        self,
        uri: str,
        *,
        run: Path,
        params: Mapping[str, Any],
        tags: Mapping[str, str],
        warn: Callable[[str], None],
        retry_s: float = _RETRY_S,
    ) -> None:
        self._uri, self._run, self._warn, self._retry_s = uri, run, warn, retry_s
        self._client = _client(uri)
        self._params, self._tags = flattened(params), dict(tags)
        self._ready: queue.SimpleQueue[_Metric | None] = queue.SimpleQueue()
        self._unsent: list[_Metric] = []
        self._files: Sequence[Path] = ()
        self._status: Literal["FINISHED", "KILLED"] = "KILLED"
        self._id: str | None = _noted(run, uri)
        self._begun = self._done = False
        self._failure: str | None = None
        self._warned = False
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
        self._thread.start()

    def log(self, row: Mapping[str, _Value]) -> None:
        """Send the numbers of a row, as of ``metrics.csv``; ``step`` says when they were true."""
        now_ms, step = int(time.time() * 1000), int(row.get("step") or 0)
        for name, value in row.items():
            if name != "step" and isinstance(value, int | float) and math.isfinite(value):
                self._ready.put((_name(name), float(value), now_ms, step))
        self._say()

    def finish(self, result: Mapping[str, Any], artifacts: Sequence[Path]) -> None:
        """Send the scores of the bundle and files, and end the run in MLflow as finished.

        Args:
            result: as of ``result.json``; its ``validation`` has the scores of the bundle.
            artifacts: files or folders to keep with the run; those that are absent are left out.
        """
        scores = result["validation"]
        step = int(result["steps"])
        row = {f"bundle/{name}": scores.get(name) for name in ("mean_iou", "mean_dice")}
        row |= {f"bundle/iou/{one['name']}": one["iou"] for one in scores["classes"]}
        self.log({**row, "step": step, "bundle/elapsed_s": result["elapsed_s"]})
        self._files = [path for path in artifacts if path.exists()]
        self._status = "FINISHED"
        self.stop()

    def stop(self) -> None:
        """End the run in MLflow, as killed if it was not finished; waits a minute at most."""
        self._ready.put(None)
        self._thread.join(_FINISH_S)
        self._say()
        if not self._done:
            left = len(self._unsent) + self._ready.qsize()
            self._warn(f"MLflow at {_public(self._uri)}: {left} values and the end were not sent")

    def _say(self) -> None:
        if self._failure is not None and not self._warned:
            self._warned = True
            self._warn(
                f"MLflow at {_public(self._uri)} does not take the run ({self._failure}); "
                "training goes on, and what was not sent is tried again"
            )

    def _work(self) -> None:
        ending = False
        while not (ending and self._done):
            ending = self._collect(wait=not ending) or ending
            try:
                self._send(ending=ending)
                self._failure = None
            except Exception as error:  # whatever the client raises: it must not end the training
                self._failure = _brief(error)
                if ending:
                    return
                ending = self._pause()

    def _collect(self, *, wait: bool) -> bool:
        """Take what is ready, waiting for the first; True when it was the end."""
        try:
            item = self._ready.get(block=wait and self._begun)
            while item is not None:
                self._unsent.append(item)
                item = self._ready.get(block=False)
        except queue.Empty:
            return False
        return True

    def _pause(self) -> bool:
        """Wait before the next attempt; True when the end has come meanwhile."""
        until = time.monotonic() + self._retry_s
        while (left := until - time.monotonic()) > 0:
            try:
                item = self._ready.get(timeout=left)
            except queue.Empty:
                return False
            if item is None:
                return True
            self._unsent.append(item)
        return False

    def _send(self, *, ending: bool) -> None:
        from mlflow.entities import Metric

        run_id = self._begin()
        while self._unsent:
            some = self._unsent[:_BATCH]
            self._client.log_batch(run_id, metrics=[Metric(*metric) for metric in some])
            del self._unsent[: len(some)]
        if ending:
            for path in self._files:
                send = self._client.log_artifacts if path.is_dir() else self._client.log_artifact
                send(run_id, str(path), path.name if path.is_dir() else None)
            self._client.set_terminated(run_id, self._status)
            self._done = True

    def _begin(self) -> str:
        """The id of the run in MLflow, made with its parameters and tags if it is not there."""
        from mlflow.entities import Param, RunTag

        if self._id is None:
            experiment = self._client.get_experiment_by_name(EXPERIMENT)
            which = (
                self._client.create_experiment(EXPERIMENT)
                if experiment is None
                else experiment.experiment_id
            )
            self._id = self._client.create_run(which, run_name=self._run.resolve().name).info.run_id
            note = {"uri": _public(self._uri), "run_id": self._id}
            write_text(self._run / NOTE, json.dumps(note, indent=2))
        if not self._begun:
            self._client.update_run(self._id, status="RUNNING")
            # those of a run that goes on are there, and MLflow lets none of them change
            there = self._client.get_run(self._id).data.params
            wanted = {_name(name): _shortened(value) for name, value in self._params.items()}
            params = [Param(name, v) for name, v in wanted.items() if name not in there]
            for first in range(0, len(params), _PARAMS):
                self._client.log_batch(self._id, params=params[first : first + _PARAMS])
            tags = [RunTag(_name(k), v) for k, v in self._tags.items()]
            self._client.log_batch(self._id, tags=tags)
            self._begun = True
        return self._id


def _client(uri: str) -> Any:
    for name, value in _DEFAULTS.items():  # before the import, which looks at them
        os.environ.setdefault(name, value)
    try:
        from mlflow.tracking import MlflowClient
    except ImportError as error:
        raise MissingExtraError("mlflow", "mlflow") from error
    with _as_settings_error(uri):
        return MlflowClient(tracking_uri=uri)


@contextmanager
def _as_settings_error(uri: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # MLflow's own, OSError or ImportError, by kind of address
        raise SettingsError(
            f"MLflow cannot use {_public(uri)!r} ({_brief(error)})",
            where="--mlflow",
            mend="Give the address of a server (http://HOST:5000) or of a folder (file:mlruns).",
        ) from error


def _noted(run: Path, uri: str) -> str | None:
    """The id under which an earlier part of this run was sent to ``uri``."""
    try:
        note = json.loads((run / NOTE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return str(note["run_id"]) if note.get("uri") == _public(uri) and "run_id" in note else None


def _public(text: str) -> str:
    """``text`` without a name and a password in the addresses in it."""
    return re.sub(r"://[^/@\s]*@", "://", text)


def _brief(error: Exception) -> str:
    """The first sentence of what the client says, at most 200 letters."""
    first = str(error).strip().partition("\n")[0].partition(". ")[0]
    return _public(first)[:200] or type(error).__name__


def _name(text: str) -> str:
    """``text`` in the characters that MLflow takes in names."""
    return re.sub(r"[^\w\-. :/]", "_", text)


def _shortened(value: object) -> str:
    text = str(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 1]}…"
