"""The image bytes of a request, refused as soon as they are too many."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from functools import partial
from http import HTTPStatus
from typing import Any

import anyio
from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from delineate.serving.problems import RequestError
from delineate.serving.settings import ServingSettings

FIELD = "image"
_FORM = "multipart/form-data"
# what a body that is an image may be called beside image/*: curl --data-binary sends the last one
_OTHER_TYPES = ("", _FORM, "application/octet-stream", "application/x-www-form-urlencoded")
_FORM_EXTRA_BYTES = 64 * 2**10  # boundaries, headers of the parts, other fields


async def read_image_bytes(request: Request, settings: ServingSettings) -> bytes:
    """The file in the body of ``request``, or in the field ``image`` of its form.

    Raises:
        RequestError: 408 the body comes too slowly, 413 it is too large, 415 it is of a type that
            is no image, 422 its form has no such file, 400 the form is damaged.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    is_form = media_type == _FORM
    _refuse_other_types(request, media_type)
    chunks = _limited(request, settings.max_body_bytes, _FORM_EXTRA_BYTES if is_form else 0)
    try:
        with anyio.fail_after(settings.upload_timeout_s):
            if is_form:
                return await _form_file(request, chunks, settings.max_body_bytes)
            return b"".join([chunk async for chunk in chunks])
    except TimeoutError as error:
        raise RequestError(
            HTTPStatus.REQUEST_TIMEOUT,
            f"did not arrive within {settings.upload_timeout_s:g} s",
            where="body",
            mend="Send a smaller image, or use a faster connection.",
        ) from error


def _refuse_other_types(request: Request, media_type: str) -> None:
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise RequestError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"is {request.headers['content-encoding']!r}",
            where="header Content-Encoding",
            mend="Send the image file as it is: its format compresses already.",
        )
    known = media_type.startswith("image/") or media_type in _OTHER_TYPES
    if not known:
        raise RequestError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"is {media_type!r}",
            where="header Content-Type",
            mend="Send image/png, image/jpeg, image/tiff, image/webp, image/bmp or "
            f"application/octet-stream, or a multipart form with a file in the field {FIELD!r}.",
        )


async def _limited(request: Request, limit: int, extra: int) -> AsyncGenerator[bytes, None]:
    """The chunks of the body as they come; an error as soon as they exceed ``limit + extra``."""
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit + extra:
        raise _too_large(f"is {declared} bytes", limit)
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
        if received > limit + extra:
            raise _too_large(f"is more than {limit} bytes", limit)
        yield chunk


def _too_large(found: str, limit: int) -> RequestError:
    return RequestError(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        found,
        where="body",
        mend=f"Send at most {limit} bytes, or have the server started with a larger "
        "max_body_bytes.",
    )


async def _form_file(request: Request, chunks: AsyncGenerator[bytes, None], limit: int) -> bytes:
    form = _Form()
    _, options = parse_options_header(request.headers["content-type"])
    boundary = options.get(b"boundary")
    if not boundary:
        raise _damaged_form("its Content-Type names no boundary")
    try:
        parser = MultipartParser(boundary, form.callbacks())
        async for chunk in chunks:
            parser.write(chunk)
    except FormParserError as error:
        raise _damaged_form(str(error).rstrip(".")) from error
    if not form.ended:
        raise _damaged_form("it ends before its last boundary")
    if len(form.files) != 1:
        held = f"{len(form.files)} files" if form.files else "no file"
        present = ", ".join(repr(name) for name in form.names) or "no field"
        raise RequestError(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            f"has {held} in the field {FIELD!r} (found {present})",
            where="form",
            mend=f"Send one file in it, for example: curl -F {FIELD}=@FILE",
        )
    if len(form.files[0]) > limit:
        raise _too_large(f"is {len(form.files[0])} bytes", limit)
    return bytes(form.files[0])


def _damaged_form(reason: str) -> RequestError:
    return RequestError(
        HTTPStatus.BAD_REQUEST,
        f"is a damaged form ({reason})",
        where="body",
        mend=f"Send one file, for example: curl -F {FIELD}=@FILE",
    )


class _Form:
    """Collects the files of the field ``image`` while a multipart parser reads (RFC 7578).

    Kept in memory: the limit on the body holds while it comes in. Other fields are passed over.
    """

    def __init__(self) -> None:
        self.names: list[str] = []
        self.files: list[bytearray] = []
        self.ended = False
        self._wanted = False
        self._header = [b"", b""]
        self._disposition = b""

    def callbacks(self) -> Any:  # a TypedDict that the library has for type checkers only
        return {
            "on_part_begin": self._begin,
            "on_header_field": partial(self._more_header, 0),
            "on_header_value": partial(self._more_header, 1),
            "on_header_end": self._end_header,
            "on_headers_finished": self._end_headers,
            "on_part_data": self._more_data,
            "on_end": self._end,
        }

    def _begin(self) -> None:
        self._wanted, self._disposition = False, b""

    def _more_header(self, part: int, data: bytes, start: int, end: int) -> None:
        self._header[part] += data[start:end]

    def _end_header(self) -> None:
        name, value = self._header
        if name.lower() == b"content-disposition":
            self._disposition = value
        self._header = [b"", b""]

    def _end_headers(self) -> None:
        _, options = parse_options_header(self._disposition)
        name = options.get(b"name", b"").decode(errors="replace")
        self.names.append(name)
        self._wanted = name == FIELD and b"filename" in options
        if self._wanted:
            self.files.append(bytearray())

    def _more_data(self, data: bytes, start: int, end: int) -> None:
        if self._wanted:
            self.files[-1] += data[start:end]

    def _end(self) -> None:
        self.ended = True
