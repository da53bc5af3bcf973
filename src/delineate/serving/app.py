"""The HTTP service: one model, one route that segments, and what operators need around it."""

from __future__ import annotations

import logging
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from http import HTTPStatus
from importlib import resources
from typing import Annotated

import anyio
from fastapi import FastAPI, Query, Request
from starlette.requests import ClientDisconnect
from starlette.responses import HTMLResponse, Response

from delineate.serving import encoders, schema
from delineate.serving.body import read_image_bytes
from delineate.serving.metrics import METRICS_TYPE, Metrics
from delineate.serving.middleware import CountResponses, DrainBody
from delineate.serving.model import ServedModel
from delineate.serving.negotiation import preferred
from delineate.serving.pipeline import Pipeline
from delineate.serving.problems import RequestError, add_problem_handlers
from delineate.serving.settings import ServingSettings

__all__ = ["ServedModel", "ServingSettings", "create_app"]

_log = logging.getLogger("delineate.serving")

_DEFAULT_SETTINGS = ServingSettings()


def create_app(model: ServedModel, settings: ServingSettings = _DEFAULT_SETTINGS) -> FastAPI:
    """The service for one model.

    ``POST /v1/segment`` takes an image and gives its label map; ``GET /v1/model`` describes the
    model; ``/healthz``, ``/readyz`` and ``/metrics`` are for operators; ``/`` is a page to try it.
    Errors are JSON problem documents (:class:`delineate.serving.problems.Problem`).
    """
    service = Service(model, settings)
    app = FastAPI(
        title=f"delineate: {model.name}",
        version=model.version,
        lifespan=_lifespan,
        docs_url=None,  # these pages load scripts from elsewhere, and a server may be offline
        redoc_url=None,
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.service = service
    app.add_api_route(
        "/v1/segment",
        segment,
        methods=["POST"],
        responses=schema.segment_responses(),
        openapi_extra={"requestBody": schema.segment_body()},
    )
    app.add_api_route("/v1/model", describe, response_model=schema.ModelDescription)
    app.add_api_route("/healthz", healthz, response_model=schema.Health)
    app.add_api_route(
        "/readyz",
        readyz,
        response_model=schema.Health,
        responses={503: schema.problem_response("The model is not warm yet, or cannot run")},
    )
    app.add_api_route("/metrics", metrics, response_class=Response)
    app.add_api_route("/", page, include_in_schema=False)
    add_problem_handlers(app)
    paths = ("/v1/segment", "/v1/model", "/healthz", "/readyz", "/metrics", "/openapi.json", "/")
    app.add_middleware(CountResponses, metrics=service.metrics, paths=paths)
    app.add_middleware(DrainBody, most_bytes=settings.max_body_bytes)
    return app


class Service:
    """What the routes of one app share."""

    def __init__(self, model: ServedModel, settings: ServingSettings) -> None:
        self.model = model
        self.settings = settings
        self.metrics = Metrics(model.name, model.version)
        self.pipeline = Pipeline(model, settings, self.metrics)
        self.not_ready: str | None = "is warming up"
        self._most = model.predictor.spec.calls_in_flight + settings.queue_length
        self._admitted = 0

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """A place among the requests that run or wait.

        A request holds it from before its body is read, so that memory is bounded too.

        Raises:
            RequestError: 503, all places are taken.
        """
        if self._admitted >= self._most:
            raise RequestError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"is busy: {self._admitted} requests run or wait",
                where="server",
                mend=f"Send it again after {self.settings.retry_after_s} s.",
                headers={"Retry-After": str(self.settings.retry_after_s)},
            )
        self._admitted += 1
        self.metrics.in_flight.inc()
        try:
            yield
        finally:
            self._admitted -= 1
            self.metrics.in_flight.dec()

    async def warm_up(self) -> None:
        """Make the service ready, or note why it is not."""
        try:
            await self.pipeline.warm_up()
        except Exception as error:
            _log.exception("the model does not run")
            self.not_ready = f"cannot run the model ({type(error).__name__}; see the server's log)"
        else:
            self.not_ready = None


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_service_of(app).warm_up)
        yield
        tasks.cancel_scope.cancel()


def _service_of(app: FastAPI) -> Service:
    service = app.state.service
    assert isinstance(service, Service)
    return service


async def segment(
    request: Request,
    rle: Annotated[
        bool, Query(description="whether the JSON answer holds the regions as COCO RLE")
    ] = True,
) -> Response:
    """Segment an image: JSON with COCO RLE, or an indexed PNG, as the header Accept says."""
    service = _service_of(request.app)
    encoder = _encoder(request.headers.get("accept"), with_regions=rle)
    with service.admitted():
        try:
            data = await read_image_bytes(request, service.settings)
        except ClientDisconnect:
            return Response(status_code=HTTPStatus.BAD_REQUEST)  # nobody reads it
        answer = await service.pipeline.run(data, encoder)
    timing = ", ".join(f"{stage};dur={ms:.2f}" for stage, ms in answer.timing_ms.items())
    headers = {"Server-Timing": timing, "Vary": "Accept"}
    return Response(answer.body, media_type=answer.media_type, headers=headers)


def _encoder(accept: str | None, *, with_regions: bool) -> encoders.Encoder:
    match preferred(accept, ("application/json", "image/png")):
        case "application/json":
            return encoders.JSON if with_regions else encoders.JSON_WITHOUT_REGIONS
        case "image/png":
            return encoders.PNG
        case _:
            raise RequestError(
                HTTPStatus.NOT_ACCEPTABLE,
                f"is {accept!r}",
                where="header Accept",
                mend="Ask for application/json or image/png.",
            )


async def describe(request: Request) -> schema.ModelDescription:
    """The model: its classes with their colours, and the images it takes."""
    service = _service_of(request.app)
    model, spec = service.model, service.model.predictor.spec
    return schema.ModelDescription(
        name=model.name,
        version=model.version,
        task=spec.task,
        classes=[
            schema.ModelClass(id=index, name=name, colour=colour)
            for index, (name, colour) in enumerate(zip(spec.classes, model.colours, strict=True))
        ],
        input=schema.ModelInput(
            channels=spec.channels,
            dtype=spec.dtype,
            multiple_of=spec.multiple_of,
            fixed_hw=spec.fixed_hw,
            tile_px=model.tiling.tile_px,
            max_body_bytes=service.settings.max_body_bytes,
            pixel_limit=service.settings.pixel_limit,
        ),
    )


async def healthz() -> schema.Health:
    """Whether the server is alive."""
    return schema.Health(status="ok")


async def readyz(request: Request) -> schema.Health:
    """Whether the model is loaded and warm."""
    not_ready = _service_of(request.app).not_ready
    if not_ready is not None:
        raise RequestError(
            HTTPStatus.SERVICE_UNAVAILABLE, not_ready, where="server", mend="Ask again later."
        )
    return schema.Health(status="ready")


async def metrics(request: Request) -> Response:
    """Figures for Prometheus."""
    return Response(_service_of(request.app).metrics.text(), media_type=METRICS_TYPE)


async def page() -> HTMLResponse:
    """A page to drop an image on. It loads nothing from elsewhere."""
    nonce = secrets.token_urlsafe(16)
    html = resources.files("delineate.serving").joinpath("page.html").read_text(encoding="utf-8")
    policy = (
        f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; "
        "img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'"
    )
    return HTMLResponse(html.replace("NONCE", nonce), headers={"Content-Security-Policy": policy})
