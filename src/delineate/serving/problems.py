"""Errors as JSON problem documents (RFC 9457): what was found, where, and what to do."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response

from delineate.errors import DelineateError, InputError

PROBLEM_TYPE = "application/problem+json"


class Problem(BaseModel):
    """Why a request was not answered."""

    status: int = Field(description="the HTTP status", examples=[400])
    found: str = Field(description="what was found", examples=["is empty (0 bytes)"])
    where: str | None = Field(description="the part of the request", examples=["image"])
    mend: str = Field(
        description="what to do about it", examples=["Fetch or export the file again."]
    )


class RequestError(InputError):
    """A request that cannot be answered, with the HTTP status that says so."""

    def __init__(
        self,
        status: HTTPStatus,
        found: str,
        *,
        where: str | None = None,
        mend: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.status = status
        self.headers = headers
        super().__init__(found, where=where, mend=mend)

    @classmethod
    def wrap(cls, error: DelineateError, status: HTTPStatus) -> RequestError:
        """``error`` with the status it has over HTTP."""
        return cls(status, error.found, where=error.where, mend=error.mend)


def add_problem_handlers(app: FastAPI) -> None:
    """Make every error of ``app`` a problem document, unforeseen ones included."""
    app.add_exception_handler(RequestError, _request_error)
    app.add_exception_handler(RequestValidationError, _invalid_option)
    app.add_exception_handler(HTTPException, _no_such_route)
    app.add_exception_handler(Exception, _unforeseen)


def _response(problem: Problem, headers: Mapping[str, str] | None = None) -> Response:
    return Response(
        problem.model_dump_json(),
        problem.status,
        headers=dict(headers or {}),
        media_type=PROBLEM_TYPE,
    )


async def _request_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    problem = Problem(status=error.status, found=error.found, where=error.where, mend=error.mend)
    return _response(problem, error.headers)


async def _invalid_option(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    problem = Problem(
        status=HTTPStatus.UNPROCESSABLE_ENTITY,
        found=f"is {first['input']!r}: {first['msg']}",
        where="option " + ".".join(str(part) for part in first["loc"][1:]),
        mend="The options are listed in /openapi.json.",
    )
    return _response(problem)


async def _no_such_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    allowed = (error.headers or {}).get("Allow", "")
    problem = Problem(
        status=error.status_code,
        found=f"{request.method} is not answered here" if allowed else str(error.detail).lower(),
        where=request.url.path,
        mend=f"Use {allowed}." if allowed else "The routes are listed in /openapi.json.",
    )
    return _response(problem, error.headers)


async def _unforeseen(request: Request, _: Exception) -> Response:
    # What happened is in the server's log, with its traceback: the client is told nothing of it.
    problem = Problem(
        status=HTTPStatus.INTERNAL_SERVER_ERROR,
        found="the server failed",
        where=request.url.path,
        mend="The operator finds the reason in the server's log.",
    )
    return _response(problem)
