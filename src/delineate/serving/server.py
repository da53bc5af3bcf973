"""An app behind a port, with uvicorn."""

from __future__ import annotations

import errno
import logging
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI

from delineate.errors import SettingsError

_QUIET_PATHS = ("/healthz", "/readyz", "/metrics")
_BACKLOG = 2048


def run(
    app: FastAPI,
    host: str = "127.0.0.1",
    port: int = 8000,
    *,
    grace_s: int = 30,
    access_log: bool = True,
    on_start: Callable[[str], None] | None = None,
) -> None:
    """Serve ``app`` until Ctrl-C or SIGTERM; requests under way are answered first.

    Logs go to stderr; probes and scrapes are left out of them.

    Args:
        app: what to serve.
        host: name or address to listen on; ``0.0.0.0`` for every IPv4 address of the machine.
        port: 0 for any free one.
        grace_s: seconds that requests under way get to end.
        access_log: whether each request is a line of the log.
        on_start: called with the URL once connections are taken.

    Raises:
        SettingsError: the port is in use or not allowed, or the host is unknown.
    """
    listener = _listen(host, port)
    server = _Server(_config(app, grace_s, _log_config(access_log)), _url(listener), on_start)
    # uvicorn raises the signal once more when everything has ended; here the work is done.
    handlers = {}
    if threading.current_thread() is threading.main_thread():
        handlers = {
            number: signal.signal(number, _ignore) for number in (signal.SIGINT, signal.SIGTERM)
        }
    try:
        server.run(sockets=[listener])
    finally:
        listener.close()
        for number, handler in handlers.items():
            signal.signal(number, handler)


@contextmanager
def running(app: FastAPI, host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """``app`` on a port in a thread, as its URL, for as long as the block lasts.

    Requests under way when the block ends are answered first.

    Raises:
        SettingsError: as in :func:`run`, or the app does not start.
    """
    listener = _listen(host, port)
    server = _Server(_config(app, 30, None), _url(listener), None)
    thread = threading.Thread(target=server.run, args=([listener],), name="delineate-server")
    thread.start()
    try:
        while not server.started:
            if not thread.is_alive():
                raise SettingsError("the server did not start", where=server.url)
            time.sleep(0.005)
        yield server.url
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


class _Server(uvicorn.Server):
    def __init__(
        self, config: uvicorn.Config, url: str, on_start: Callable[[str], None] | None
    ) -> None:
        super().__init__(config)
        self.url = url
        self._on_start = on_start

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        if self.started and self._on_start is not None:
            self._on_start(self.url)


def _config(app: FastAPI, grace_s: int, log_config: dict[str, Any] | None) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        lifespan="on",
        ws="none",
        backlog=_BACKLOG,
        server_header=False,
        access_log=log_config is not None,
        log_config=log_config,
        timeout_graceful_shutdown=grace_s,
    )


def _ignore(number: int, frame: FrameType | None) -> None:
    del number, frame


def _listen(host: str, port: int) -> socket.socket:
    """A socket bound to the address; it is bound here so that failing has one clear error."""
    where = f"{host}:{port}"
    if not 0 <= port <= 65535:
        raise SettingsError(f"port {port} is out of range", mend="Choose one of 1 to 65535.")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as error:
        raise SettingsError(
            f"host {host!r} is unknown ({error})",
            mend="Use 127.0.0.1 for this machine alone, or 0.0.0.0 for every address of it.",
        ) from error
    family, kind, protocol, _, address = found[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise _cannot_listen(error, where, port) from error
    return listener


def _cannot_listen(error: OSError, where: str, port: int) -> SettingsError:
    match error.errno:
        case errno.EADDRINUSE:
            return SettingsError(
                "the port is in use",
                where=where,
                mend=f"Stop the program that uses it, or take another: --port {_free_port(port)}",
            )
        case errno.EACCES:
            return SettingsError(
                "the port needs the rights of the system's administrator",
                where=where,
                mend="Take one from 1024 on, for example --port 8000",
            )
        case errno.EADDRNOTAVAIL:
            return SettingsError(
                "is no address of this machine",
                where=where,
                mend="Use 127.0.0.1 for this machine alone, or 0.0.0.0 for every address of it.",
            )
        case _:
            return SettingsError(f"cannot be listened on ({error.strerror or error})", where=where)


def _free_port(port: int) -> int:
    """A port above ``port`` that is free now, or 0 (any)."""
    for candidate in range(port + 1, min(port + 100, 65536)):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", candidate))
            except OSError:
                continue
            return candidate
    return 0


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class LeaveOutProbes(logging.Filter):
    """Keeps probes and scrapes, which come every few seconds, out of the access log."""

    def filter(self, record: logging.LogRecord) -> bool:
        arguments = record.args
        path = arguments[2] if isinstance(arguments, tuple) and len(arguments) > 2 else ""
        return str(path).partition("?")[0] not in _QUIET_PATHS


def _log_config(access_log: bool) -> dict[str, Any]:
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "filters": {"no_probes": {"()": LeaveOutProbes}},
        "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(message)s"}},
        "handlers": {
            "stderr": {
                "class": "logging.StreamHandler",
                "stream": "ext://sys.stderr",
                "formatter": "line",
            }
        },
        "loggers": {
            # its remarks on starting and stopping say nothing that on_start does not
            "uvicorn": {"handlers": ["stderr"], "level": "WARNING", "propagate": False},
            "uvicorn.access": {
                "handlers": ["stderr"],
                "level": "INFO" if access_log else "WARNING",
                "filters": ["no_probes"],
                "propagate": False,
            },
            "delineate": {"handlers": ["stderr"], "level": "INFO", "propagate": False},
        },
    }
