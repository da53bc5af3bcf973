"""decode -> infer -> encode: the way of one image through the server."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import TypeVar

import anyio
import anyio.to_thread
import numpy as np

from delineate.data.images import decode_image, fit_channels
from delineate.errors import ImageError, MissingExtraError, PixelLimitError
from delineate.serving.encoders import JSON, PNG, Encoder
from delineate.serving.metrics import Metrics
from delineate.serving.model import ServedModel
from delineate.serving.problems import RequestError
from delineate.serving.settings import ServingSettings
from delineate.tiling.segment import segment
from delineate.types import Image, Output, Prediction

T = TypeVar("T")


def decode(data: bytes, model: ServedModel, pixel_limit: int) -> Image:
    """The bytes of an image file as the model takes them: (H, W, C), dtype of the model.

    Raises:
        RequestError: 400 no image can be read, 413 it has too many pixels, 415 its compression
            is not installed, 422 its channels or pixel type are not the model's.
    """
    try:
        image = decode_image(data, "image", pixel_limit=pixel_limit)
    except MissingExtraError as error:
        raise RequestError.wrap(error, HTTPStatus.UNSUPPORTED_MEDIA_TYPE) from error
    except ImageError as error:
        too_large = isinstance(error, PixelLimitError)
        status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE if too_large else HTTPStatus.BAD_REQUEST
        raise RequestError.wrap(error, status) from error
    spec = model.predictor.spec
    try:
        image = fit_channels(image, spec.channels, "image")
    except ImageError as error:
        raise RequestError.wrap(error, HTTPStatus.UNPROCESSABLE_ENTITY) from error
    if image.dtype != spec.dtype:
        raise RequestError(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            f"has {image.dtype} pixels and the model takes {spec.dtype}",
            where="image",
            mend=f"Send an image of {spec.dtype} pixels, scaled as the training images were.",
        )
    return image


def infer(image: Image, model: ServedModel, outputs: tuple[Output, ...]) -> Prediction:
    """The outputs for one image of any size, with a batch dimension of one.

    Raises:
        RequestError: 422 the image does not fit the model.
    """
    try:
        return segment(
            model.predictor,
            image,
            outputs,
            tiling=model.tiling,
            postprocessing=model.postprocessing,
        )
    except ImageError as error:
        raise RequestError.wrap(error, HTTPStatus.UNPROCESSABLE_ENTITY) from error


@dataclass(frozen=True)
class Encoded:
    """A finished answer, and the time that each stage took."""

    body: bytes
    media_type: str
    timing_ms: dict[str, float]


class Pipeline:
    """Takes images through the stages, in threads, so that the event loop stays free.

    The engine gets as many calls at a time as its spec says; the others wait in order.
    """

    def __init__(self, model: ServedModel, settings: ServingSettings, metrics: Metrics) -> None:
        self._model = model
        self._settings = settings
        self._metrics = metrics
        self._codecs = anyio.CapacityLimiter(settings.codec_threads)
        self._engine = anyio.CapacityLimiter(model.predictor.spec.calls_in_flight)

    async def run(self, data: bytes, encoder: Encoder) -> Encoded:
        """Answer one image file.

        Raises:
            RequestError: as :func:`decode` and :func:`infer`.
        """
        model, clock = self._model, _Clock()
        image = await clock.stage(
            "decode",
            self._codecs,
            lambda: decode(data, model, self._settings.pixel_limit),
        )
        self._metrics.image(image.shape[0], image.shape[1])
        prediction = await clock.stage(
            "infer", self._engine, lambda: infer(image, model, encoder.outputs)
        )
        body = await clock.stage(
            "encode", self._codecs, lambda: encoder.encode(prediction, model, clock.timing_ms)
        )
        for stage, seconds in clock.seconds.items():
            self._metrics.stage(stage, seconds)
        return Encoded(body, encoder.media_type, clock.timing_ms())

    async def warm_up(self) -> None:
        """Run an empty tile, and a smaller image, for each kind of answer.

        Engines prepare at their first call, and some once more at the first of another size.
        """
        spec, tile_px = self._model.predictor.spec, self._model.tiling.tile_px
        height, width = spec.fixed_hw or (tile_px, tile_px)
        image = np.zeros((height, width, spec.channels), spec.dtype)
        images = [image] if spec.fixed_hw is not None else [image, image[: height // 2]]
        for encoder in (PNG, JSON):
            for one in images:
                work = partial(infer, one, self._model, encoder.outputs)
                await _Clock().stage("infer", self._engine, work)


class _Clock:
    """Runs the stages of one request and keeps their times; waiting is the stage ``queue``."""

    def __init__(self) -> None:
        self.seconds = {"queue": 0.0}
        self._running: tuple[str, float] | None = None

    async def stage(self, name: str, limiter: anyio.CapacityLimiter, work: Callable[[], T]) -> T:
        submitted = time.perf_counter()

        def timed() -> T:
            started = time.perf_counter()
            self.seconds["queue"] += started - submitted
            self._running = (name, started)
            result = work()
            self.seconds[name] = time.perf_counter() - started
            self._running = None
            return result

        return await anyio.to_thread.run_sync(timed, limiter=limiter)

    def timing_ms(self) -> dict[str, float]:
        """Milliseconds of each stage, the running one so far."""
        seconds = dict(self.seconds)
        if self._running is not None:
            name, started = self._running
            seconds[name] = time.perf_counter() - started
        return {name: 1000 * value for name, value in seconds.items()}
