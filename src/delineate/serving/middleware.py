"""What happens around every request, as plain ASGI."""

from __future__ import annotations

from collections.abc import Collection

import anyio
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from delineate.serving.metrics import Metrics

_DRAIN_SECONDS = 2.0


class CountResponses:
    """Counts responses by path and status; paths that are not served count as ``other``."""

    def __init__(self, app: ASGIApp, metrics: Metrics, paths: Collection[str]) -> None:
        self._app = app
        self._metrics = metrics
        self._paths = frozenset(paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                path = scope["path"] if scope["path"] in self._paths else "other"
                self._metrics.answered(path, message["status"])
            await send(message)

        await self._app(scope, receive, counted)


class DrainBody:
    """Reads what is left of a body before an early answer to it, and throws it away.

    A server that closes a connection with unread data resets it, and most clients then never see
    the answer (RFC 9112, section 9.6). The rest is read for two seconds and at most
    ``most_bytes``; a client that waits for ``100 Continue`` is answered at once.
    """

    def __init__(self, app: ASGIApp, most_bytes: int) -> None:
        self._app = app
        self._most_bytes = most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope) if scope["type"] == "http" else None
        if headers is None or not _has_body(headers):
            await self._app(scope, receive, send)
            return
        started = more = False

        async def watched() -> Message:
            nonlocal started, more
            started = True
            message = await receive()
            more = message["type"] == "http.request" and message.get("more_body", False)
            return message

        async def drained(message: Message) -> None:
            if message["type"] == "http.response.start":
                waits = headers.get("expect", "").lower() == "100-continue"
                unread = more if started else not waits
                if unread:
                    await _drain(receive, self._most_bytes)
            await send(message)

        await self._app(scope, watched, drained)


def _has_body(headers: Headers) -> bool:
    return headers.get("content-length", "0") != "0" or "transfer-encoding" in headers


async def _drain(receive: Receive, most_bytes: int) -> None:
    read = 0
    with anyio.move_on_after(_DRAIN_SECONDS):
        while read < most_bytes:
            message = await receive()
            read += len(message.get("body", b""))
            if not message.get("more_body", False):
                return
